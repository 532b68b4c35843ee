"""The optimizers that a config may name: the table that modules of one's own extend."""

from lra_jax.lab.config.optimizers import OPTIMIZERS

__all__ = ["OPTIMIZERS"]
