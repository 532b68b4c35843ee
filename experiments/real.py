"""Rules on recorded data: `python -m experiments.real --config configs/real/NAME.toml`.

The same as `lra-jax real`.
"""

from absl import app

from lra_jax.lab.benches.real import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
