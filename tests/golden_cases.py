"""The numbers in tests/golden: what the authors' released code computed."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np

import lra_jax
from lra_jax.paper.released import released_gradients

FOLDER = pathlib.Path(__file__).parent / "golden" / "released"
CASES = sorted(path.stem for path in FOLDER.glob("case_*.npz"))
CURVES = {
    curve["name"]: curve
    for curve in json.loads((FOLDER / "curves.json").read_text("utf8"))["curves"]
}
LOCAL_LOSSES = {"MSE": "mse", "LOG-PENALTY": "log_penalty"}


def load(name):
    """The arrays of a file, by name."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def params_of(arrays):
    return lra_jax.Params(*(jnp.asarray(arrays[k]) for k in lra_jax.Params._fields))


def batch_of(arrays, prefix=""):
    inputs, labels = arrays[f"{prefix}tokens"], arrays[f"{prefix}labels"]
    return lra_jax.Batch(jnp.asarray(inputs, jnp.int32), jnp.asarray(labels, jnp.int32))


def numbers_of(arrays):
    """The rule's numbers, as Python has them."""
    return {k: arrays[k].item() for k in ("gamma", "num_refinements", "lambda_", "c")}


def gradients_of(arrays, params, batch, numbers):
    """What this library computes of a file's inputs, under the file's names."""
    found = released_gradients(
        params, batch, **numbers, local_loss=LOCAL_LOSSES[str(arrays["local_loss"])]
    )
    return {
        "global_loss_initial": found.loss,
        "global_loss": found.target_loss,
        "losses": found.local_loss,
        "d_w_hh_norms": found.w_hh_grad_norm,
        "d_w_xh_norms": found.w_xh_grad_norm,
        "d_b_h_norms": found.b_h_grad_norm,
        **{f"d_{name}": grad for name, grad in found.grads._asdict().items()},
    }
