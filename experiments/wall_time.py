"""How long a grid takes, by measured rates: `python -m experiments.wall_time`.

See `experiments.speed.wall_time`.
"""

from absl import app

from experiments.speed.wall_time import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
