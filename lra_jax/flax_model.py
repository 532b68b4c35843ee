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
      ValueError: the cell has residuals or no tanh, or the readout no bias: then the
        model is none that the rules can train.

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
    if cell.residual:
        raise ValueError("cell: expected residual=False, got True")
    with jax.ensure_compile_time_eval():  # also inside of a traced function
        half = jnp.asarray(0.5)
        is_tanh = bool(jnp.allclose(cell.activation_fn(half), jnp.tanh(half)))
    if not is_tanh:
        raise ValueError("cell: expected activation_fn=tanh, got another function")
    if readout.bias is None:
        raise ValueError("readout: expected use_bias=True, got False")
