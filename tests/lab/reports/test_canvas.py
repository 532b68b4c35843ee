"""Figures where matplotlib is set up strangely, broken, or not there."""

import os
import subprocess
import sys

import pytest

from lra_jax.lab import report
from lra_jax.lab.reports import canvas, figures
from lra_jax.lab.terminal import cache, machine

mpl = pytest.importorskip("matplotlib")

from test_report import make  # noqa: E402


def test_figures_do_not_depend_on_a_users_settings():
    with mpl.rc_context({"lines.linewidth": 30, "text.usetex": True}):
        with canvas.style():
            assert mpl.rcParams["lines.linewidth"] == 1.5
            assert not mpl.rcParams["text.usetex"]
            assert mpl.rcParams["font.size"] == 9
        assert mpl.rcParams["lines.linewidth"] == 30


def test_strange_settings_are_not_read(tmp_path):
    """In a process of its own: they are read when matplotlib is imported."""
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe\x00backend: nonsense\n")
    (tmp_path / "rc").write_bytes(b"\xff")
    script = (
        "from lra_jax.lab.reports import canvas; assert canvas.missing() is None;"
        "import os, matplotlib as m; print(os.getcwd());"
        "assert os.environ['MPLBACKEND'] == 'module://none.at_all';"
        "assert m.rcParams['font.size'] == 10"
    )
    environment = {
        **os.environ, "PYTHONPATH": os.getcwd(), "MPLBACKEND": "module://none.at_all",
        "MATPLOTLIBRC": str(tmp_path / "rc"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{tmp_path}\n", "")


def test_matplotlib_that_cannot_be_imported_is_a_line(monkeypatch):
    def fail(name):
        raise RuntimeError(f"no {name}\n[here]")

    monkeypatch.setattr(canvas.importlib, "import_module", fail)
    said = "No figures: RuntimeError: no matplotlib.figure [here]"
    assert canvas.missing() == said
    monkeypatch.setattr(canvas.importlib.util, "find_spec", lambda _: None)
    assert canvas.missing() == canvas.MISSING


def test_a_page_without_figures_says_why(tmp_path, monkeypatch, capsys):
    folder = make(tmp_path / "demo")

    def fail(*_):
        raise RuntimeError("no [fonts]")

    view = report._draw(folder, report.read(folder))
    assert len(view.drawings) == 2
    monkeypatch.setattr(figures, "draw", fail)
    view = report._draw(folder, report.read(folder))
    assert view.drawings == ()
    assert view.notes[-1] == "No figures: RuntimeError: no [fonts]"
    assert "No figures: RuntimeError: no [fonts]" in capsys.readouterr().err


# The folder for what is kept.


def no_home():
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOME": "/h"}, "/h/.cache/lra_jax"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/lra_jax"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "x"}, "/h/.cache/lra_jax"),
        ({"HOME": "h"}, None),
        ({"HOME": ""}, None),
        ({}, None),
    ],
)
def test_where_things_are_kept(monkeypatch, environment, expected):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cache.pathlib.Path, "home", no_home)
    found = cache.folder()
    assert (found and str(found)) == expected


@pytest.mark.parametrize("place", [None, "file/x"])
def test_without_such_a_folder_programs_are_not_kept(
    no_programs_kept, monkeypatch, tmp_path, place
):
    (tmp_path / "file").write_text("")
    found = place and tmp_path / place
    updates = {}
    monkeypatch.setattr(cache, "folder", lambda: found)
    monkeypatch.setattr(machine.jax.config, "update", updates.__setitem__)
    machine.prepare()
    assert "jax_compilation_cache_dir" not in updates
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "new")
    machine.prepare()
    assert updates["jax_compilation_cache_dir"].startswith(str(tmp_path / "new"))
