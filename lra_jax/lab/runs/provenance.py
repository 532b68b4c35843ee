"""By what a run was made: config, code, versions, device."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from lra_jax.lab.config import Config, extensions
from lra_jax.lab.runs import fingerprint
from lra_jax.lab.terminal import machine

SCHEMA_VERSION = 2


def describe_environment(config: Config, command: Sequence[str]) -> dict[str, Any]:
    """What a result depends on besides the config, and the command that makes it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "config_digest": config.digest(),
        "command": list(command),
        "versions": versions(),
        "code": code_version(),
        "fingerprint": fingerprint.of(config, extensions.imported_files()),
        "device": machine.describe(),
        "dtype": config.dtype,
        "matmul_precision": config.matmul_precision,
        "seeds": list(config.seeds),
    }


_MAKER = ("config_digest", "fingerprint", "code", "versions")


def history(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of the code that made a run.

    Numbers belong to the code and the defaults that computed them. A run that other
    code goes on with keeps those that it began with, and notes the later ones: it is
    used again only by who accepts that.

    Args:
      before: the manifest so far; empty of a new run.
      now: from `describe_environment`.
    """
    same = ("config_digest", "fingerprint")
    later = list(before.get("later", []))
    if not before or (not later and all(before.get(k) == now[k] for k in same)):
        return {}
    mine = {key: now[key] for key in _MAKER}
    known = [*later, before]
    is_known = any(all(x.get(k) == now[k] for k in same) for x in known)
    if not before.get("finished") and not is_known:
        later.append(mine)
    return {key: before.get(key) for key in _MAKER} | {"later": later}


def versions() -> dict[str, str | None]:
    """Of the packages that compute."""
    return machine.versions("lra_jax", "jax", "jaxlib", "numpy", "optax", "flax")


def code_version() -> str | None:
    """The commit of the checkout, with `+` if it was changed; None outside of one."""
    here = pathlib.Path(__file__)
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": True}
    try:
        # An environment may lie in the checkout of something else.
        is_in_it = ["git", "ls-files", "--error-unmatch", here.name]
        subprocess.run(is_in_it, cwd=here.parent, timeout=10, **options)
        command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
        done = subprocess.run(command, cwd=here.parent, timeout=10, **options)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
