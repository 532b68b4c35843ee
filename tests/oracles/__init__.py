"""Independent NumPy implementations of the specification."""
