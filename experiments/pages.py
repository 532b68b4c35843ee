"""Fills the numbers of README.md and docs/ from results: `python -m experiments.pages`.

See `experiments.site.pages`.
"""

from absl import app

from experiments.site.pages import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
