"""What figures are drawn on: matplotlib, as it is without anybody's settings.

A user may have set it up for windows or notebooks of their own, or wrongly. Figures
that go into files depend on none of that, and a run that cannot draw ends as well as
any other: it says why, in a line.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.util
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from lra_jax.lab.terminal import cache, screen

MISSING = "No figures: matplotlib is missing (`pip install 'lra_jax[plot]'`)."

STYLE: Mapping[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

# Settings of windows and of a process, which no figure in a file depends on.
_NOT_OF_FIGURES = (
    "backend", "docstring", "figure.hooks", "interactive", "keymap", "macosx",
    "savefig.directory", "text.latex", "tk", "toolbar", "webagg",
)  # fmt: skip


def missing() -> str | None:
    """Why there are no figures, as a line of Markdown; None where they can be drawn."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        return MISSING
    is_new = "matplotlib" not in sys.modules and "MPLCONFIGDIR" not in os.environ
    if is_new and cache.home() is None:
        os.environ["MPLCONFIGDIR"] = _temporary_folder()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        with _settings(pathlib.Path(spec.submodule_search_locations[0])):
            for name in ("figure", "ticker", "backends.backend_svg"):
                importlib.import_module(f"matplotlib.{name}")
    except Exception as error:
        return failure(error)
    return None


def _temporary_folder() -> str:
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _settings(package: pathlib.Path) -> Iterator[None]:
    """In which matplotlib, as it is imported, reads the settings that come with it.

    A user's may be of any kind, and it ends where it cannot decode them.
    """
    names = ("MATPLOTLIBRC", "MPLBACKEND")
    before = {name: os.environ.get(name) for name in names}
    os.environ["MATPLOTLIBRC"] = str(package / "mpl-data" / "matplotlibrc")
    os.environ["MPLBACKEND"] = "agg"
    try:
        with contextlib.ExitStack() as stack:
            if pathlib.Path("matplotlibrc").exists():  # it would be read first
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                stack.enter_context(contextlib.chdir(folder))
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def failure(error: Exception) -> str:
    """A line that says why no figure was drawn."""
    reason = " ".join(str(error).split())[:300]
    return f"No figures: {screen.printable(f'{type(error).__name__}: {reason}')}"


@contextlib.contextmanager
def style(own: Mapping[str, Any] = STYLE) -> Iterator[None]:
    """In which figures look alike wherever they are drawn.

    Args:
      own: settings over matplotlib's defaults.
    """
    import matplotlib as mpl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mpl.MatplotlibDeprecationWarning)
        ours = {
            key: value
            for key, value in dict.items(mpl.rcParamsDefault)
            if not key.startswith(_NOT_OF_FIGURES)
        }
        context = mpl.rc_context({**ours, **own})
        context.__enter__()
    try:
        yield
    finally:
        context.__exit__(None, None, None)
