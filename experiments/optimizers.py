"""The optimizers that a config may name: the table that modules of one's own extend."""

from lra_jax.lab.config.optimizers import OPTIMIZERS, adam, momentum, rmsprop, sgd

__all__ = ["OPTIMIZERS", "adam", "momentum", "rmsprop", "sgd"]
