"""Weights from and to a Flax NNX model: a `SimpleCell` and a `Linear` readout.

Flax is not imported here: the modules that are given know all that is needed.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lra_jax import types


def params_from_flax(cell: Any, readout: Any) -> types.Params:
    """The weights of a Flax model, to train them with a rule of ours.

    `SimpleCell` computes zₜ = tanh(xₜ W_xh + b_h + zₜ₋₁ W_hh), as `forward` does, from
    z₋₁ = 0 as well; integer symbols are one-hot vectors there. `nnx.RNN(cell)` has the
    cell as `.cell`, and puts the batch first: `[B, T, X]`.

    Args:
      cell: `flax.nnx.SimpleCell`, X to H.
      readout: `flax.nnx.Linear` with a bias, H to Y, of the last state.

    Raises:
      ValueError: the cell is no `SimpleCell`, as a `GRUCell` is none; it has residuals,
        no tanh or another first state; or the readout is no `Linear` with a bias of H
        inputs: then the model is none that the rules can train.

    Example:
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> rnn = nnx.RNN(nnx.SimpleCell(6, 8, rngs=rngs))
      >>> readout = nnx.Linear(8, 4, rngs=rngs)
      >>> params = lra_jax.params_from_flax(rnn.cell, readout)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> one_hot = jax.nn.one_hot(batch.inputs, 6).swapaxes(0, 1)  # [B, T, X]
      >>> logits = lra_jax.forward(params, batch.inputs).logits
      >>> bool(jnp.allclose(readout(rnn(one_hot)[:, -1]), logits, atol=1e-5))
      True
    """
    _check(cell, readout)
    return types.Params(
        w_xh=cell.dense_i.kernel[...],
        w_hh=cell.dense_h.kernel[...],
        b_h=cell.dense_i.bias[...],
        w_hy=readout.kernel[...],
        b_y=readout.bias[...],
    )


def params_to_flax(params: types.Params, cell: Any, readout: Any) -> None:
    """Puts weights into a Flax model, in place, as NNX does.

    Args:
      params: the weights.
      cell: see `params_from_flax`.
      readout: see `params_from_flax`.

    Raises:
      ValueError: see `params_from_flax`; or a shape differs.

    Example:
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> cell, readout = nnx.SimpleCell(6, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> lra_jax.params_to_flax(params, cell, readout)
      >>> bool((cell.dense_h.kernel[...] == params.w_hh).all())
      True
    """
    found = params_from_flax(cell, readout)
    for name, new, old in zip(params._fields, params, found, strict=True):
        if jnp.shape(new) != old.shape:
            raise ValueError(
                f"{name}: the model's has shape {old.shape}, got {jnp.shape(new)}"
            )
    cell.dense_i.kernel[...] = params.w_xh
    cell.dense_h.kernel[...] = params.w_hh
    cell.dense_i.bias[...] = params.b_h
    readout.kernel[...] = params.w_hy
    readout.bias[...] = params.b_y


def _check(cell: Any, readout: Any) -> None:
    """Raises a ValueError where the two are not the network that `forward` computes."""
    _check_kind("cell", cell, "SimpleCell")
    _check_kind("readout", readout, "Linear")
    if cell.residual:
        raise ValueError("cell: expected residual=False, got True")
    with jax.ensure_compile_time_eval():  # also inside of jit
        points = jnp.array([-2.0, 0.5, 3.0])
        if not jnp.allclose(cell.activation_fn(points), jnp.tanh(points)):
            raise ValueError("cell: expected activation_fn=tanh, got another function")
        if cell.carry_init is not None:
            carry = cell.carry_init(jax.random.key(0), (1, cell.hidden_features))
            if jnp.any(carry != 0):
                raise ValueError("cell: expected carry_init=None, got another function")
    if readout.bias is None:
        raise ValueError("readout: expected use_bias=True, got False")
    for name, variable, axes in (
        ("cell.dense_i", cell.dense_i.kernel, "[X, H]"),
        ("readout", readout.kernel, "[H, Y]"),
    ):
        shape = variable[...].shape
        if len(shape) != 2:
            raise ValueError(f"{name}: expected a kernel {axes}, got shape {shape}")
    hidden_size, found = cell.hidden_features, readout.in_features
    if found != hidden_size:
        raise ValueError(
            f"readout: expected in_features={hidden_size} as the cell's H, got {found}"
        )


def _check_kind(name: str, module: Any, kind: str) -> None:
    """Raises a ValueError for any module that does not compute what a `kind` does."""
    for base in type(module).__mro__:
        ours = base.__name__ == kind and base.__module__.startswith("flax.nnx")
        if ours and type(module).__call__ is base.__call__:
            return
    got, where = type(module).__name__, type(module).__module__
    if got == kind:
        got = f"{where}.{got}"
    hint = "; give its .cell" if got == "RNN" and name == "cell" else ""
    raise ValueError(f"{name}: expected flax.nnx.{kind}, got {got}{hint}")
