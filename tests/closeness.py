"""Trees of arrays that are equal up to rounding, or to the bit."""

import jax
import numpy as np


def assert_close(actual, expected, tolerance=1e-5, least=0.0):
    """Equal up to `tolerance` of each array's largest entry, or of `least`.

    What is expected is finite: beside an infinite entry all others would be close.
    """
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        assert np.all(np.isfinite(b))
        atol = tolerance * max(least, np.max(np.abs(b), initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def assert_identical(actual, expected):
    """Equal bit for bit, NaN included."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
