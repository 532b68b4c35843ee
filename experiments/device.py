"""Measures an accelerator: `python -m experiments.device --out DIR`.

See `experiments.speed.device`.
"""

from absl import app

from experiments.speed.device import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
