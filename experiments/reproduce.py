"""Runs the paper's protocol and compares: `python -m experiments.reproduce table1`.

See `experiments.paper.reproduce`.
"""

from absl import app

from experiments.paper.reproduce import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
