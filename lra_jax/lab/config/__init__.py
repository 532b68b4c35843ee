"""What is asked for: a TOML file to a checked `Config`."""
