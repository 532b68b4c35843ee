"""The longest T that rules solve: `python -m experiments.reach --config FILE`.

The same as `lra-jax reach`.
"""

from absl import app

from lra_jax.lab.benches.reach import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
