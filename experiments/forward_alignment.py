"""Forward rules beside the gradient: `python -m experiments.forward_alignment`.

See `experiments.site.forward_alignment`.
"""

from absl import app

from experiments.site.forward_alignment import main, parse

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
