"""Makes the leaderboard: `python -m experiments.leaderboard`.

See `experiments.site.leaderboard`.
"""

from absl import app

from experiments.site.leaderboard import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
