"""Measures an accelerator: `python -m experiments.device --out DIR`.

See `experiments.accelerator.device`.
"""

from absl import app

from experiments.accelerator.device import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
