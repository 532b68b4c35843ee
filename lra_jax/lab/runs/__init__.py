"""Training a config into a folder, which survives what ends it."""
