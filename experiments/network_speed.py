"""Times updates of all networks: `python -m experiments.network_speed`.

See `experiments.speed.networks`.
"""

from absl import app

from experiments.speed.networks import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
