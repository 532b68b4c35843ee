"""Times updates of all networks: `python -m experiments.network_speed`.

See `experiments.speed.network_speed`.
"""

from absl import app

from experiments.speed.network_speed import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
