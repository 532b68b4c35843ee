"""What a function's program contains, read from its jaxpr."""

import jax


def equations(function, *arguments):
    """All equations of the function's jaxpr, inner programs included."""
    return list(_walk(jax.make_jaxpr(function)(*arguments).jaxpr))


def matmul_precisions(function, *arguments):
    """The precision of every matrix product, as a set of pairs."""
    return {
        equation.params["precision"]
        for equation in equations(function, *arguments)
        if equation.primitive.name == "dot_general"
    }


def _walk(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _walk(inner)
