"""Why a rule works, or does not: `python -m experiments.alignment`.

The same as `lra-jax alignment`.
"""

from absl import app

from lra_jax.lab.benches.alignment import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
