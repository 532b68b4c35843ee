"""Comparisons of rules with equal tuning: one command each."""
