"""Feedback weights over training: `python -m experiments.feedback_error`.

See `experiments.site.feedback_error`.
"""

from absl import app

from experiments.site.feedback_error import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
