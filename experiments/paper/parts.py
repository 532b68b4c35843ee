"""Parts of what takes long, each kept in a file of its own until the whole is there."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from lra_jax.lab.terminal import files


def load(path: pathlib.Path) -> Any:
    """What a JSON file has; None where it is not there or cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def read(path: pathlib.Path, key: Any) -> dict[str, Any] | None:
    """A part that is kept.

    Args:
      path: of its file.
      key: what it is of, in values of JSON.

    Returns:
      What was given to `write`; None where there is nothing, or something damaged or of
      another key: then it is to be made again.
    """
    found = load(path)
    return found if isinstance(found, dict) and found.get("key") == key else None


def write(path: pathlib.Path, key: Any, **content: Any) -> None:
    """Keeps a part; the folder is made where it is missing.

    Raises:
      OSError: it cannot be written; what was there before is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps({"key": key, **content}))
