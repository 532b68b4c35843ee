"""Times one update in all the ways to do it: `python -m experiments.benchmark`.

See `experiments.speed.benchmark`.
"""

from absl import app

from experiments.speed.benchmark import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
