"""Trains a hyper-parameter grid: `python -m experiments.grid --config configs/x.toml`.

The same as `lra-jax grid`.
"""

from absl import app

from lra_jax.lab.grid import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
