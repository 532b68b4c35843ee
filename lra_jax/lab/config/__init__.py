"""What is asked for: a TOML file to a checked `Config`."""

from lra_jax.lab.config.checks import load, load_extensions, resolve
from lra_jax.lab.config.config import AXES, Config
from lra_jax.lab.config.problems import ConfigError
from lra_jax.lab.config.settings import check_setting
from lra_jax.lab.config.text import read

__all__ = [
    "AXES",
    "Config",
    "ConfigError",
    "check_setting",
    "load",
    "load_extensions",
    "read",
    "resolve",
]
