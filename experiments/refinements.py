"""Does a tuned γ replace K? `python -m experiments.refinements`.

The same as `lra-jax refinements`.
"""

from absl import app

from lra_jax.lab.benches.refinements import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
