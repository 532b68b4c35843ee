"""Reports on runs, and compares them: `python -m experiments.report RUN [RUN ...]`.

The same as `lra-jax report`.
"""

from absl import app

from lra_jax.lab.report import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
