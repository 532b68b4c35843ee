"""Runs of `lra_jax` from configs to reports; everything that touches files is here."""
