"""Rules that stand for the others where what a test asks is the same code for all."""

import pytest

# One of each way that errors take.
OF_EACH_WAY = ("bptt", "lra_diff", "lra_norm", "tptt", "lra_e", "snap", "uoro")


def others_slow(rule):
    """The marks of a case of a rule: others than these run with the slow tests."""
    return () if rule in OF_EACH_WAY else pytest.mark.slow
