"""The list of mutations: each has its place in the library, and changes it."""

import mutations
import pytest


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda m: m.what)
def test_the_text_of_a_mutation_is_in_its_file_once(mutation):
    text = (mutations.ROOT / "lra_jax" / mutation.file).read_text("utf8")
    assert text.count(mutation.old) == 1
    assert mutation.new != mutation.old
    assert (mutations.ROOT / "tests" / mutation.tests.split()[0]).is_file()
