"""Results are used again only where the code that can change them is the same."""

import ast
import functools
import importlib.util
import json
import sys

import pytest
from command_line import CONFIG
from rich.console import Console

from lra_jax import RULES
from lra_jax.lab import config as config_lib
from lra_jax.lab.config.config import ADDED
from lra_jax.lab.runs import fingerprint, provenance, run, store
from lra_jax.lab.runs import groups as groups_lib
from lra_jax.lab.runs.runner import Runner

HASH = "9c4b22c7b76ae05e"

TEXT = '''"""A rule."""

import math


class Rule:
    """What it is."""

    x: int = 1

    def scale(self, a: float) -> str:
        """Scales."""
        return f"{a * math.pi:.{self.x}f}"
'''


def hash_of(tmp_path, text):
    path = tmp_path / "code.py"
    path.write_text(text, "utf-8")
    return fingerprint._hash(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Scales.", "Makes it larger."),
        ('"""A rule."""', ""),
        ("    x: int = 1", "    x: int = 1  # one\n\n"),
        ("import math\n", "# A comment.\nimport math\n\n"),
        (
            'f"{a * math.pi:.{self.x}f}"',
            '(\n            f"{a*math.pi:.{self.x}f}"\n        )',
        ),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(tmp_path, old, new):
    assert old in TEXT
    assert hash_of(tmp_path, TEXT.replace(old, new)) == hash_of(tmp_path, TEXT)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("math.pi", "math.e"),
        ("x: int = 1", "x: int = 2"),
        ("x: int = 1", "x: int = True"),
        ("x: int = 1", "x: int = 1.0"),
        ("a * math", "a / math"),
        (".{self.x}f", ".{self.x}e"),
        ("def scale(self, a: float)", "def scale(self, a: float = 0)"),
    ],
)
def test_what_the_code_does_counts(tmp_path, old, new):
    assert old in TEXT
    assert hash_of(tmp_path, TEXT.replace(old, new)) != hash_of(tmp_path, TEXT)


def test_the_hash_of_a_text_is_the_same_everywhere(tmp_path):
    """In all versions of Python, that is: this one runs in each."""
    assert hash_of(tmp_path, TEXT) == HASH


def test_it_is_of_what_can_change_numbers_and_of_nothing_else():
    names = {*fingerprint.ours()}
    assert {
        "lra_jax/rules/lra_norm.py", "lra_jax/numerics.py", "lra_jax/sweep/program.py",
        "lra_jax/tasks/adding.py", "lra_jax/lab/config/optimizers.py",
        "lra_jax/lab/data/datasets.py", "lra_jax/lab/config/draws.py",
        "lra_jax/lab/runs/groups.py", "lra_jax/lab/config/config.py",
        "lra_jax/lab/config/arguments.py", "lra_jax/lab/data/neurogym.py",
    } <= names  # fmt: skip
    of_lab = {name for name in names if name.startswith("lra_jax/lab/")}
    assert len(of_lab) == len(fingerprint._FILES)
    assert "lra_jax/lab/runs/store.py" not in of_lab


def test_the_definitions_that_count_are_there():
    for name, definitions in fingerprint._FILES.items():
        tree = ast.parse((fingerprint._LAB / name).read_text("utf-8"))
        assert {*definitions} <= {fingerprint._name(node) for node in tree.body}


def test_what_is_around_the_definitions_that_count_does_not(tmp_path):
    path = tmp_path / "code.py"
    path.write_text("AXES = (1,)\n\ndef f(): return 1\n")
    before = fingerprint._hash(path, ("AXES",))
    path.write_text("AXES = (1,)\n\ndef f(): return 2\n")
    assert fingerprint._hash(path, ("AXES",)) == before
    for changed in ("AXES = (2,)", "AXES: tuple = (2,)"):
        path.write_text(f"{changed}\n\ndef f(): return 1\n")
        assert fingerprint._hash(path, ("AXES",)) != before


def test_files_with_the_same_short_name_all_count(tmp_path):
    paths = [tmp_path / f"{part}/models/base.py" for part in "ab"]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text("X = 1\n")
    before = fingerprint.of_files(paths)
    assert [*before] == ["models/base.py"]
    assert fingerprint.of_files([*paths, paths[0]]) == before
    for path in paths:
        path.write_text("X = 2\n")
        assert fingerprint.of_files(paths) != before
        path.write_text("X = 1\n")


def test_of_what_is_no_source_the_bytes_count(tmp_path):
    path = tmp_path / "own.so"
    hashes = set()
    for data in (b"\x7fELF\0\xff", b"\x7fELF\0\xfe", b"print 1\n", b"print 2\n"):
        path.write_bytes(data)
        hashes |= {*fingerprint.of_files([path]).values()}
    assert len(hashes) == 4


def test_links_to_nothing_are_no_files_of_a_package(tmp_path):
    (tmp_path / "code.py").write_text("X = 1\n")
    (tmp_path / ".#code.py").symlink_to("somebody@somewhere.123")  # as Emacs leaves it
    (tmp_path / "folder.py").mkdir()
    assert [*fingerprint._sources(str(tmp_path))] == [tmp_path / "code.py"]


def test_the_card_of_a_rule_does_not(tmp_path):
    path = tmp_path / "code.py"
    path.write_text('A_CARD = card.RuleCard(title="a")\n\ndef f(): return 1\n')
    before = fingerprint._hash(path)
    path.write_text('A_CARD = card.RuleCard(title="b")\n\ndef f(): return 1\n')
    assert fingerprint._hash(path) == before
    path.write_text('A_CARD = card.Variant("a", 1, {})\n\ndef f(): return 1\n')
    assert fingerprint._hash(path) != before


def test_changes_are_named():
    now = {"a": "1", "b": "2", "c": "3"}
    assert fingerprint.changes(now, now) == []
    assert fingerprint.changes({"a": "1", "b": "9", "d": "4"}, now) == [
        "changed: b", "new: c", "gone: d"
    ]  # fmt: skip
    for nothing in (None, {}, "text"):
        assert fingerprint.changes(nothing, now) == [
            "it does not say by which code it was made"
        ]


def load(folder, *overrides):
    (folder / "my.toml").write_text(CONFIG)
    return config_lib.load(folder / "my.toml", overrides)


def load_module(folder, name, text):
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


MINE = "import lra_jax\n\n\ndef mine():\n    return lra_jax.readout_only({})\n"


def test_the_file_of_somebodys_rule_counts_where_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    module = load_module(tmp_path, "my_rule", MINE.format(""))
    monkeypatch.setitem(RULES, "mine", functools.partial(module.mine))
    monkeypatch.setitem(RULES, "mine", module.mine)
    usual = load(tmp_path)
    name = f"{tmp_path.name}/my_rule.py"
    assert fingerprint.of(usual) == fingerprint.ours()
    raw = {"name": "x", "task": "temporal_order", "seq_len": 10}
    config = config_lib.resolve(raw | {"grid": {"rule": "mine", "lr": 0.1}}, "x")
    before = fingerprint.of(config)
    assert {*before} - {*fingerprint.ours()} == {name}
    (tmp_path / "my_rule.py").write_text(MINE.format("1"))
    assert fingerprint.changes(before, fingerprint.of(config)) == [f"changed: {name}"]
    extra = tmp_path / "helper.py"
    extra.write_text("x = 1\n")
    assert f"{tmp_path.name}/helper.py" in fingerprint.of(usual, [extra])


# Run folders.


@pytest.fixture
def finished(tmp_path):
    """A finished run's folder, without any training."""
    config = load(tmp_path)
    folder = store.RunFolder(tmp_path / "my", config)
    folder.open(resume=False)
    groups = groups_lib.make_groups(config)
    manifest = provenance.describe_environment(config, ["grid"]) | {
        "finished": True, "num_members": 34, "member_steps": 0, "seconds": 1.0,
    }  # fmt: skip
    folder.save(groups, [None] * len(groups), manifest)
    folder.close()
    return folder


def change(folder, **changed):
    path = folder.path / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, **changed}))


@pytest.mark.parametrize("length", [0, 1, 20, None])
def test_a_finished_run_whose_table_ends_too_early_is_a_message(
    tmp_path, finished, length
):
    path = finished.path / "results.csv"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:length]))
    says = f"it has {max(0, (length or 0) - 1)} rows of 34"
    if length is None:
        path.unlink()
        says = "cannot be read: No such file or directory"
    interruption = type("Quiet", (), {"signal": None, "command": "x"})()
    runner = Runner(Console(quiet=True), tmp_path, interruption)
    with pytest.raises(store.RunFolderError) as error:
        runner.rows(finished.config)
    assert f"{path} " in str(error.value)
    assert says in str(error.value)
    assert str(error.value).endswith(
        "To write it again from the checkpoints:\n  python -m experiments.grid --config "
        f"{finished.path}/config.resolved.toml --out {finished.path} --resume"
    )
    # As it says: what writes it is opening the run and saving it.
    manifest = json.loads((finished.path / "manifest.json").read_text())
    finished.open(resume=True)
    groups = groups_lib.make_groups(finished.config)
    finished.save(groups, finished.load_states(groups), manifest)
    finished.close()
    assert path.read_text() == "".join(whole)
    assert len(runner.rows(finished.config)) == 34


def other_code(**hashes):
    return {**fingerprint.ours(), **hashes}


def asked_again(folder, config=None, **options):
    again = store.RunFolder(folder.path, config or folder.config, **options)
    try:
        return again.is_finished(), again.open(resume=True)
    finally:
        again.close()


def described(folder):
    return provenance.describe_environment(folder.config, ["grid"])


def test_a_run_of_the_same_code_is_used_again(finished):
    is_finished, manifest = asked_again(finished)
    assert is_finished
    assert provenance.history(manifest, described(finished)) == {}


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"lra_jax/rules/fa.py": "0", "x.py": "1"}, "changed: lra_jax/rules/fa.py\n  gone: x.py"),
        (None, "it does not say by which code it was made"),
    ],
)  # fmt: skip
def test_a_run_of_other_code_is_refused_and_says_what_differs(finished, found, says):
    old = None if found is None else other_code(**found)
    change(finished, fingerprint=old, code="abc")
    before = (finished.path / "manifest.json").read_bytes()
    with pytest.raises(store.OldCodeError) as error:
        asked_again(finished)
    assert str(error.value) == (
        f"{finished.path} was made by other code than today's:\n  {says}\nTo use it all "
        "the same, add --accept-old-code; or choose another folder"
    )
    assert (finished.path / "manifest.json").read_bytes() == before


def test_who_insists_gets_it_and_it_is_said(finished, capsys):
    change(finished, fingerprint=other_code(**{"lra_jax/rnn.py": "0"}), code="abc")
    is_finished, manifest = asked_again(finished, accept_old_code=True)
    assert is_finished
    # Its numbers stay those of the code that made them.
    assert provenance.history(manifest, described(finished)) == {
        key: manifest[key]
        for key in ("config_digest", "fingerprint", "code", "versions")
    } | {"later": []}
    assert "is used, made by other code than today's:\n  changed: lra_jax/rnn.py\n" in (
        capsys.readouterr().err
    )


def test_a_run_that_other_code_goes_on_with_is_of_both(finished):
    old = other_code(**{"lra_jax/rnn.py": "0"})
    change(finished, fingerprint=old, code="abc", finished=False)
    _, manifest = asked_again(finished, accept_old_code=True)
    now = described(finished)
    mixed = provenance.history(manifest, now)
    assert (mixed["code"], mixed["fingerprint"]) == ("abc", old)
    assert [later["code"] for later in mixed["later"]] == [now["code"]]
    assert provenance.history({**manifest, **mixed}, now) == mixed  # it is noted once
    change(finished, **mixed, finished=True)
    with pytest.raises(store.OldCodeError, match=r"changed: lra_jax/rnn\.py"):
        asked_again(finished)
    # Nor is it the first code's alone.
    change(
        finished,
        fingerprint=fingerprint.ours(),
        later=[{"code": "x", "fingerprint": old}],
    )
    with pytest.raises(
        store.OldCodeError, match=r"gone on with: changed: lra_jax/rnn\.py"
    ):
        asked_again(finished)


def test_a_folder_of_the_version_before_is_the_same_run_of_unknown_code(finished):
    """It has no fingerprint, another digest, and no defaults."""
    config = finished.config
    path = finished.path / "config.resolved.toml"
    old = config._request(ADDED)
    path.write_text(old)
    change(finished, config_digest=config.request_digest(), fingerprint=None)
    with pytest.raises(store.OldCodeError, match="it does not say by which code"):
        asked_again(finished)
    is_finished, manifest = asked_again(finished, accept_old_code=True)
    assert is_finished
    assert manifest["config_digest"] == config.request_digest()
    assert path.read_text() == old


def test_other_defaults_are_other_code_and_another_setting_another_run(
    tmp_path, finished
):
    path = finished.path / "config.resolved.toml"
    new = path.read_text()
    path.write_text(new.replace("c0 = 0.0", "c0 = 0.5").replace("c1 = 0.0\n", ""))
    change(finished, config_digest="of other defaults")
    with pytest.raises(store.OldCodeError) as error:
        asked_again(finished)
    for line in (
        "  there: defaults.rule.lra_diff.c0 = 0.5, here:  defaults.rule.lra_diff.c0 = 0",
        "  here:  defaults.rule.lra_diff.c1 = 0.0\n",
    ):
        assert line in str(error.value)
    wider = load(tmp_path, "hidden_size=9")
    for accept in (False, True):
        with pytest.raises(store.OtherRunError) as error:
            asked_again(finished, wider, accept_old_code=accept)
        assert not isinstance(error.value, store.OldCodeError)
        assert "there: hidden_size = 8\n  here:  hidden_size = 9" in str(error.value)
    assert asked_again(finished, accept_old_code=True)[0]
    assert path.read_text() != new  # it stays a run of the defaults that made it
    manifest = {**json.loads((finished.path / "manifest.json").read_text())}
    assert manifest["config_digest"] == "of other defaults"


def test_a_setting_that_the_folder_does_not_know_yet_is_no_difference(finished):
    path = finished.path / "config.resolved.toml"
    path.write_text(path.read_text().replace("input_gain = 1.0\n", ""))
    change(finished, config_digest="of fewer settings")
    assert asked_again(finished)[0]
    path.write_text("input_gain = 0.5\n" + path.read_text())
    change(finished, config_digest="of another setting")
    with pytest.raises(store.OtherRunError, match=r"there: input_gain = 0\.5"):
        asked_again(finished)


@pytest.mark.parametrize("line", ["input_gain = 1.0\n", "import = []\n"])
def test_a_setting_that_is_new_is_no_difference(finished, line):
    path = finished.path / "config.resolved.toml"
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, ""))
    change(finished, config_digest="of fewer settings")
    assert asked_again(finished)[0]


def test_other_versions_of_jax_are_said_and_no_hindrance(finished, capsys):
    versions = json.loads((finished.path / "manifest.json").read_text())["versions"]
    change(finished, versions=versions | {"jax": "0.1"})
    assert asked_again(finished)[0]
    assert capsys.readouterr().err == (
        f"{finished.path} was begun with jax 0.1, now {versions['jax']}: the last digits "
        "of results may be others\n"
    )


def test_a_bench_uses_a_finished_run_only_of_the_same_code(
    tmp_path, finished, monkeypatch, capsys
):
    asked = []
    monkeypatch.setattr(run, "_train", lambda *_: asked.append(1) or 0)
    interruption = type("Quiet", (), {"signal": None, "command": "x"})()
    console = Console(quiet=True)
    runner = Runner(console, tmp_path, interruption)
    assert len(runner.rows(finished.config)) == 34
    change(finished, fingerprint=other_code(**{"lra_jax/rnn.py": "0"}))
    with pytest.raises(store.OtherRunError) as error:
        runner.rows(finished.config)
    assert "changed: lra_jax/rnn.py" in str(error.value)
    assert str(error.value).endswith(f"To train it anew, move {finished.path} away")
    insisting = Runner(console, tmp_path, interruption, accept_old_code=True)
    assert len(insisting.rows(finished.config)) == 34
    assert not asked
    change(finished, code="abc", later=[{"code": "def", "fingerprint": {}}])
    assert "abc, def" in {row["code"] for row in insisting.made_with()}
