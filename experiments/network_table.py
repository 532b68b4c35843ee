"""The table of rules on networks: `python -m experiments.network_table`.

See `experiments.site.network_table`.
"""

from absl import app

from experiments.site.network_table import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
