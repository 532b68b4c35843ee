"""An accelerator: whether it agrees with a CPU, how fast it is, and what bounds it."""
