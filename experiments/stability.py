"""How long a solved task stays solved: `python -m experiments.stability --config FILE`.

The same as `lra-jax stability`.
"""

from absl import app

from lra_jax.lab.benches.stability import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
