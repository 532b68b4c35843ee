"""The table of rules on networks or tasks: `python -m experiments.rule_table`.

See `experiments.site.rule_table`.
"""

from absl import app

from experiments.site.rule_table import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
