"""The numbers and pictures of README and docs/, made from `results/`."""
