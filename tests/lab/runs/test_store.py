"""The run folder's own promises, with states that no training made."""

import contextlib
import errno
import json
import os
import pathlib
import platform
import random
import stat
import struct
import warnings
from unittest import mock

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from command_line import CONFIG, read_file

from lra_jax import sweep
from lra_jax.lab import config as config_lib
from lra_jax.lab.runs import checkpoint, provenance, store
from lra_jax.lab.runs import groups as groups_lib
from lra_jax.lab.terminal import files
from lra_jax.tiles import EMPTY


def load_config(folder, *overrides):
    (folder / "my.toml").write_text(CONFIG)
    return config_lib.load(folder / "my.toml", overrides)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return load_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def groups(config):
    return groups_lib.make_groups(config)


SHAPES = {}  # those found so far: to trace a program for them takes long


@pytest.fixture(autouse=True, scope="module")
def shapes_once():
    real = sweep.run_shapes

    def run_shapes(experiment, grid, slots):
        key = experiment, len(grid.seeds), slots.shape
        if key not in SHAPES:
            SHAPES[key] = real(experiment, grid, slots)
        return SHAPES[key]

    with mock.patch.object(sweep, "run_shapes", run_shapes):
        yield


@pytest.fixture
def opened(tmp_path, config, groups):
    """Opens the folder as a process does that goes on with its run."""
    folders = []

    def open_folder():
        folder = store.RunFolder(tmp_path / "run", config)
        folders.append(folder)
        folder.open(resume=True)
        return folder, folder.load_states(groups)

    yield open_folder
    for folder in folders:
        folder.close()


STATES = {}  # those made so far: to trace a program for its shapes takes long


def state_after(group, chunks):
    """A state that differs from all others in every array."""
    key = (len(group.members), chunks)
    if key not in STATES:
        STATES[key] = make_state(group, chunks)
    return STATES[key]


def make_state(group, chunks):
    state = sweep.init_sweep(group.grid)
    generator = np.random.default_rng(chunks)

    def draw(shape):
        if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
            keys = jax.random.split(jax.random.key(chunks), max(1, shape.size))
            return keys.reshape(shape.shape)
        return jnp.asarray(100 * generator.normal(size=shape.shape), shape.dtype)

    slots = np.arange(state.slots.size, dtype=np.int32).reshape(state.slots.shape)
    slots = np.where(slots < len(group.members), slots, EMPTY)
    shapes = sweep.run_shapes(group.experiment, group.grid, slots)
    rows = np.arange(7 * chunks) % len(group.members)
    return state._replace(
        slots=slots,
        runs=jax.tree.map(draw, shapes),
        members=state.members._replace(step=state.members.step + chunks),
        curves=sweep.Curves(*(rows.astype(t) for t in (*"iiffii",))),
    )


def assert_same_state(a, b):
    def plain(x):
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(
            x.dtype, jax.dtypes.prng_key
        )
        return np.asarray(jax.random.key_data(x) if is_key else x)

    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(plain(x), plain(y))


def advance(folder, groups, states, chunks):
    """Saves the first group's states after these chunks, as a run does."""
    for chunk in chunks:
        states[0] = state_after(groups[0], chunk)
        folder.save(groups, states, manifest(folder), changed=0)


def manifest(folder):
    return provenance.describe_environment(folder.config, ["grid"])


@pytest.fixture
def saved(opened, groups):
    """The folder of a run that ended after three chunks of its first group."""
    folder, states = opened()
    folder.save(groups, states, manifest(folder))
    advance(folder, groups, states, (1, 2, 3))
    folder.close()
    return folder.path


def bytes_of(path):
    return {
        file.relative_to(path): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name != ".lock"
    }


NEWER, OLDER = "checkpoint/000.odd.msgpack", "checkpoint/000.even.msgpack"
CURVES = "checkpoint/000.curves"
ROW = struct.calcsize("<iiffii")  # of a file of evaluations


def test_a_state_comes_back_to_the_bit_and_the_newest_of_two(opened, groups):
    folder, states = opened()
    assert states == [None, None]
    folder.save(groups, states, manifest(folder))
    for chunks in (1, 2, 3):
        advance(folder, groups, states, [chunks])
        folder.close()
        folder, states = opened()
        assert folder.num_chunks == chunks
        assert_same_state(states[0], state_after(groups[0], chunks))
        assert states[1] is None
        for leaf in jax.tree.leaves(states[0].runs):  # no device has all of it
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            assert isinstance(leaf, np.ndarray) or is_key
    assert {f.name for f in (folder.path / "checkpoint").iterdir()} == {
        "000.even.msgpack", "000.odd.msgpack", "000.curves"
    }  # fmt: skip


def test_the_state_and_the_weights_of_another_network_come_back(tmp_path):
    overrides = ('network="gru"', "num_layers=2", "save_params=true")
    config = load_config(tmp_path, *overrides)
    groups = groups_lib.make_groups(config)
    folder = store.RunFolder(tmp_path / "run", config)
    folder.open(resume=True)
    state = make_state(groups[0], 1)
    states = [state, *[None] * (len(groups) - 1)]
    folder.save(groups, states, manifest(folder), changed=0)
    params = jax.tree.map(lambda x: np.asarray(x[0, 0]), state.runs.train.params)
    folder.save_params(3, params, {"network": "gru"})
    folder.close()
    again = store.RunFolder(folder.path, config)
    again.open(resume=True)
    assert_same_state(again.load_states(groups)[0], state)
    again.close()
    with safetensors.safe_open(
        folder.path / "params/000003.safetensors", "numpy"
    ) as file:
        assert file.metadata() == {"network": "gru", "member": "3"}
        names = [*file.keys()]
        np.testing.assert_array_equal(
            file.get_tensor("cell.1.w_hh"), params.cell[1].w_hh
        )
    arrays = ("w_xh", "w_hh", "b_h", "b_n")
    expected = [f"cell.{layer}.{name}" for layer in (0, 1) for name in arrays]
    assert sorted(names) == sorted([*expected, "w_hy", "b_y"])


def test_a_state_without_running_members_comes_back(opened, groups):
    folder, states = opened()
    folder.save(groups, states, manifest(folder))
    states[1] = state_after(groups[1], 1)._replace(runs=None)
    folder.save(groups, states, manifest(folder), changed=1)
    folder.close()
    _, loaded = opened()
    assert_same_state(loaded[1], states[1])


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_flipped_bit_anywhere_is_seen_and_the_other_state_used(
    opened, saved, groups, capsys
):
    generator = random.Random(0)
    whole = bytes_of(saved)
    size = 8 * len(whole[pathlib.Path(NEWER)])
    bits = [*range(0, 800, 37), *(generator.randrange(size) for _ in range(40))]
    for bit in bits:
        flip(saved / NEWER, bit)
        damaged = (saved / NEWER).read_bytes()
        folder, states = opened()
        folder.close()
        assert folder.num_chunks == 2, bit
        assert states[0].members.step[0] == 2
        assert (saved / "checkpoint/000.odd.damaged").read_bytes() == damaged
        assert (saved / OLDER).read_bytes() == whole[pathlib.Path(OLDER)]
        err = capsys.readouterr().err
        assert f"{saved / NEWER} is " in err
        assert "Going on from checkpoint/000.even.msgpack" in err
        assert "at most what lies between two saves is computed again" in err
        (saved / NEWER).write_bytes(whole[pathlib.Path(NEWER)])
    flip(saved / OLDER, 5000)
    folder, states = opened()
    assert_same_state(states[0], state_after(groups[0], 3))


@pytest.mark.parametrize("length", [0, 1, 30, 86, 87, 500, -1])
def test_a_truncated_checkpoint_is_seen(opened, saved, groups, length):
    (saved / NEWER).write_bytes((saved / NEWER).read_bytes()[:length])
    folder, states = opened()
    assert_same_state(states[0], state_after(groups[0], 2))
    # What comes next leaves the state alone that was gone on from.
    whole = (saved / OLDER).read_bytes()
    advance(folder, groups, states, [3])
    assert (saved / OLDER).read_bytes() == whole
    folder.close()
    _, states = opened()
    assert_same_state(states[0], state_after(groups[0], 3))


def test_if_both_are_damaged_nothing_is_touched_and_both_are_named(opened, saved):
    for name in (NEWER, OLDER):
        flip(saved / name, 3000)
    before = bytes_of(saved)
    with pytest.raises(store.RunFolderError) as error:
        opened()
    for text in (
        f"{saved / NEWER} is damaged: its checksum",
        f"{saved / OLDER} is damaged: its checksum",
        "Nothing was changed",
        "remove these files: then this group's 32 members train anew",
    ):
        assert text in str(error.value)
    assert bytes_of(saved) == before


def rows_of(path, index=0):
    """The evaluations in the file of a group, read in another way than by the store."""
    data = (path / f"checkpoint/{index:03d}.curves").read_bytes()
    assert len(data) % ROW == 0
    return [*struct.iter_unpack("<iiffii", data)]


def assert_rows_are_of(path, state, index=0):
    columns = (x.tolist() for x in state.curves)
    assert rows_of(path, index) == [*zip(*columns, strict=True)]


def test_a_save_appends_the_new_evaluations_alone(monkeypatch, opened, saved, groups):
    assert_rows_are_of(saved, state_after(groups[0], 3))
    written = []
    real = checkpoint.CurveFile._append
    monkeypatch.setattr(
        checkpoint.CurveFile, "_append", lambda *a: (written.append(a[1]), real(*a))
    )
    folder, states = opened()
    advance(folder, groups, states, [4, 5])
    assert [len(data) for data in written] == 2 * [7 * ROW]
    assert_rows_are_of(saved, state_after(groups[0], 5))
    # The states themselves have none, so that they do not grow.
    sizes = {(saved / name).stat().st_size for name in (NEWER, OLDER)}
    assert max(sizes) - min(sizes) < 10
    for name in (NEWER, OLDER):
        _, _, data = (saved / name).read_bytes().partition(b"\n")
        content = flax.serialization.msgpack_restore(data)
        assert content["state"]["curves"] is None
        assert content["curves"]["rows"] == 7 * content["chunks"]


@pytest.mark.parametrize("length", [1, ROW - 1, ROW, 7 * ROW, 1000])
def test_a_torn_tail_is_cut_off(opened, saved, groups, length):
    """What a kill leaves between the append and the checkpoint's rename."""
    whole = (saved / CURVES).read_bytes()
    (saved / CURVES).write_bytes(whole + random.Random(length).randbytes(length))
    folder, states = opened()
    assert_same_state(states[0], state_after(groups[0], 3))
    assert (saved / CURVES).stat().st_size == len(whole) + length  # until a save
    advance(folder, groups, states, [4])
    assert_rows_are_of(saved, state_after(groups[0], 4))
    folder.close()
    _, states = opened()
    assert_same_state(states[0], state_after(groups[0], 4))


def test_evaluations_that_fit_in_part_are_taken_back(opened, saved, groups):
    resource = pytest.importorskip("resource")
    folder, states = opened()
    before = bytes_of(saved)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = (saved / CURVES).stat().st_size + 50  # two rows and a half of seven
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(store.RunFolderError) as error:
            advance(folder, groups, states, [4])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"{saved / CURVES} cannot be written: File too large" in str(error.value)
    assert bytes_of(saved) == before
    advance(folder, groups, states, [4])
    assert_rows_are_of(saved, state_after(groups[0], 4))


def damage_row(path, row):
    flip(path / CURVES, 8 * ROW * row + 3)


def cut_at_row(path, row):
    (path / CURVES).write_bytes((path / CURVES).read_bytes()[: ROW * row + 10])


@pytest.mark.parametrize("damage", [damage_row, cut_at_row])
def test_damage_to_the_newest_evaluations_costs_a_save(
    opened, saved, groups, capsys, damage
):
    damage(saved, 14)  # the first that the older checkpoint does not count
    folder, states = opened()
    assert_same_state(states[0], state_after(groups[0], 2))
    err = capsys.readouterr().err
    assert f"{saved / NEWER} has its evaluations in 000.curves, which " in err
    assert "Going on from checkpoint/000.even.msgpack" in err
    advance(folder, groups, states, [3, 4])
    folder.close()
    _, states = opened()
    assert_same_state(states[0], state_after(groups[0], 4))
    assert_rows_are_of(saved, state_after(groups[0], 4))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: damage_row(path, 13), "is damaged: its checksum"),
        (lambda path: cut_at_row(path, 13), "has 13 whole rows of 14"),
        (lambda path: (path / CURVES).unlink(), "cannot be read: No such file"),
    ],
)
def test_damage_to_older_evaluations_is_a_message_and_nothing_is_touched(
    opened, saved, config, groups, damage, expected
):
    damage(saved)
    before = bytes_of(saved)
    refused = store.RunFolder(saved, config)
    refused.open(resume=True)
    with pytest.raises(store.RunFolderError) as error:
        refused.load_states(groups)
    refused.close()
    assert f"{saved / OLDER} has its evaluations in 000.curves, which {expected}" in (
        str(error.value)
    )
    assert "Nothing was changed. Put back copies" in str(error.value)
    assert bytes_of(saved) == before
    # As the message says: without the checkpoints, the group begins anew.
    for name in (NEWER, OLDER):
        (saved / name).unlink()
    folder, states = opened()
    assert states[0] is None
    advance(folder, groups, states, [1])
    assert_rows_are_of(saved, state_after(groups[0], 1))


def test_each_group_has_a_file_of_evaluations(opened, groups):
    folder, states = opened()
    folder.save(groups, states, manifest(folder))
    for chunks in (1, 2):
        for index in (0, 1):
            states[index] = state_after(groups[index], chunks)
            folder.save(groups, states, manifest(folder), changed=index)
    folder.close()
    folder, loaded = opened()
    assert folder.num_chunks == 4
    for index in (0, 1):
        assert_same_state(loaded[index], state_after(groups[index], 2))
        assert_rows_are_of(folder.path, loaded[index], index)
    columns = [x.curves for x in loaded]
    expected = sum(x.member.size for x in columns)
    folder.save(groups, loaded, manifest(folder))
    assert read_file(folder.path / "curves.npz")["step"].size == expected


def test_a_save_after_several_chunks_counts_them_and_spares_the_newest(
    opened, saved, groups
):
    folder, states = opened()
    newest = (saved / NEWER).read_bytes()
    states[0] = state_after(groups[0], 5)
    folder.save(groups, states, manifest(folder), changed=0, chunks=2)
    assert folder.num_chunks == 5
    assert (saved / NEWER).read_bytes() == newest
    folder.close()
    folder, states = opened()
    assert folder.num_chunks == 5
    assert_same_state(states[0], state_after(groups[0], 5))


def test_saves_that_take_long_are_due_seldom(monkeypatch, opened, groups):
    clock = 1000.0
    monkeypatch.setattr(store.time, "monotonic", lambda: clock)
    folder, states = opened()
    assert folder.is_save_due()
    write = folder._write

    def slow(name, *data):
        nonlocal clock
        clock += 0.1 * name.endswith(".msgpack")
        write(name, *data)

    monkeypatch.setattr(folder, "_write", slow)
    folder.save(groups, states, manifest(folder))
    assert folder.is_save_due()  # it took no time
    advance(folder, groups, states, [1])
    assert not folder.is_save_due()
    clock += 4.9
    assert not folder.is_save_due()
    clock += 0.2
    assert folder.is_save_due()


def test_a_run_goes_on_whose_checkpoints_have_the_evaluations(opened, saved, groups):
    """As older versions wrote them."""
    (saved / CURVES).unlink()
    for name, chunks in ((NEWER, 3), (OLDER, 2)):
        _, _, data = (saved / name).read_bytes().partition(b"\n")
        content = flax.serialization.msgpack_restore(data)
        del content["curves"]
        curves = state_after(groups[0], chunks).curves
        content["state"]["curves"] = flax.serialization.to_state_dict(curves)
        data = flax.serialization.msgpack_serialize(content)
        (saved / name).write_bytes(checkpoint.title(data) + b"\n" + data)
    folder, states = opened()
    assert folder.num_chunks == 3
    assert_same_state(states[0], state_after(groups[0], 3))
    advance(folder, groups, states, [4])
    assert_rows_are_of(saved, state_after(groups[0], 4))
    folder.close()
    flip(saved / OLDER, 5000)  # the newest now; the other one is still of the old kind
    folder, states = opened()
    assert_same_state(states[0], state_after(groups[0], 3))
    advance(folder, groups, states, [4])
    assert_rows_are_of(saved, state_after(groups[0], 4))


def rewrite(path, **changed):
    """Changes the content of a checkpoint, with a checksum that is right."""
    _, _, data = path.read_bytes().partition(b"\n")
    content = {**flax.serialization.msgpack_restore(data), **changed}
    data = flax.serialization.msgpack_serialize(content)
    path.write_bytes(checkpoint.title(data) + b"\n" + data)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"config_digest": "0" * 64}, "is of another config or group"),
        ({"group": 1}, "is of another config or group"),
        ({"state": {"slots": []}}, "is of another program (KeyError"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(opened, saved, changed, expected):
    for name in (NEWER, OLDER):
        rewrite(saved / name, **changed)
    before = bytes_of(saved)
    with pytest.raises(store.RunFolderError) as error:
        opened()
    assert expected in str(error.value)
    assert bytes_of(saved) == before


def test_a_state_without_a_field_for_weights_comes_back(opened, saved, groups):
    """As the checkpoints of older runs are."""
    for name in (NEWER, OLDER):
        _, _, data = (saved / name).read_bytes().partition(b"\n")
        state = flax.serialization.msgpack_restore(data)["state"]
        assert state.pop("params") is None
        assert set(state) == {"slots", "runs", "members", "curves"}
        rewrite(saved / name, state=state)
    _, states = opened()
    assert_same_state(states[0], state_after(groups[0], 3))


def test_a_checkpoint_of_another_version_is_refused(opened, saved):
    for name in (NEWER, OLDER):
        data = (saved / name).read_bytes()
        (saved / name).write_bytes(data.replace(b"checkpoint 2", b"checkpoint 1", 1))
    with pytest.raises(store.RunFolderError, match="no checkpoint of version 2"):
        opened()


def test_a_folder_of_another_version_or_config_is_refused(tmp_path, opened, saved):
    other = store.RunFolder(saved, load_config(tmp_path, "grid.0.gamma=[2]"))
    before = bytes_of(saved)
    with pytest.raises(
        store.RunFolderError, match=r"here:  gamma = \[2\] \(grid.0\)"
    ) as error:
        other.open(resume=True)
    # `--resume` and `--out` are words of `experiments.grid`; others come here as well.
    assert "another config; choose another folder" in str(error.value)
    assert "--" not in str(error.value)
    other.close()
    data = json.loads((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(json.dumps({**data, "schema_version": 1}))
    before = bytes_of(saved)
    with pytest.raises(store.RunFolderError, match="version 1, this is version 2"):
        opened()
    assert bytes_of(saved) == before


def test_a_checkpoint_of_another_network_is_refused(tmp_path, opened, saved, groups):
    # The same digest, as after a change of the code, and other shapes.
    wider = groups_lib.make_groups(load_config(tmp_path, "hidden_size=9"))
    folder, _ = opened()
    with pytest.raises(store.RunFolderError, match=r"another program \(ValueError"):
        folder.load_states(wider)


def test_a_damaged_manifest_costs_no_state(tmp_path, opened, saved, groups, capsys):
    (saved / "manifest.json").write_text("{")
    folder, states = opened()
    assert folder.num_chunks == 3
    assert_same_state(states[0], state_after(groups[0], 3))
    assert "manifest.json cannot be read; its times and counts begin anew" in (
        capsys.readouterr().err
    )
    folder.close()
    again = store.RunFolder(saved, folder.config)
    with pytest.raises(store.RunFolderError, match=r"add --resume .* another --out"):
        again.open(resume=False)
    again.close()


@pytest.mark.parametrize("damage", [None, "", "seeds = [0"])
def test_a_config_that_is_gone_or_damaged_is_written_again(opened, saved, damage):
    path = saved / "config.resolved.toml"
    whole = path.read_text()
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)
    opened()
    assert path.read_text() == whole


def test_without_a_manifest_the_config_is_written_only_where_there_is_none(
    tmp_path, opened, saved
):
    path = saved / "config.resolved.toml"
    whole = path.read_text()
    (saved / "manifest.json").unlink()
    other = store.RunFolder(saved, load_config(tmp_path, "max_steps=7"))
    other.open(resume=True)
    other.close()
    assert path.read_text() == whole  # whose checkpoints these are is asked later
    path.unlink()
    config = load_config(tmp_path, "max_steps=7")
    other = store.RunFolder(saved, config)
    other.open(resume=True)
    with pytest.raises(store.RunFolderError, match="Nothing was changed"):
        other.load_states(groups_lib.make_groups(config))
    other.close()
    assert not path.exists()
    opened()
    assert path.read_text() == whole


def test_weights_that_cannot_be_written_are_a_message(opened, saved):
    folder, _ = opened()
    (saved / "params").write_text("")
    with pytest.raises(store.RunFolderError, match="params cannot be written: File ex"):
        folder.save_params(0, {"w": np.zeros(1)}, {})


def test_a_checkpoint_that_cannot_be_set_aside_is_a_message(
    monkeypatch, opened, saved, groups
):
    folder, _ = opened()
    flip(saved / NEWER, 3000)

    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(store.RunFolderError) as error:
        folder.load_states(groups)
    aside = (saved / NEWER).with_suffix(".damaged")
    assert f"{aside} cannot be written: Permission denied" in str(error.value)


CALLS = ("fsync", "replace")  # of `os`; between them, all that a save does


class Killed(BaseException):
    """Ends a save as SIGKILL does: nothing is cleaned up."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(13))
def test_a_save_killed_at_any_of_its_calls_loses_no_state(
    monkeypatch, opened, saved, groups, call, after
):
    folder, states = opened()
    folder._tables_due = 0  # this save writes all that there is
    count = -1

    def dying(function):
        def replaced(*arguments):
            nonlocal count
            count += 1
            if count == call and not after:
                raise Killed
            function(*arguments)
            if count == call:
                raise Killed

        return replaced

    with monkeypatch.context() as context:
        for name in CALLS:
            context.setattr(os, name, dying(getattr(os, name)))
        with pytest.raises(Killed):
            advance(folder, groups, states, [4])
    folder.close()
    for name in ("manifest.json", "results.csv", "curves.npz", NEWER, OLDER):
        read_file(saved / name)
    folder, states = opened()
    expected = 3 if (call, after) < (2, True) else 4
    assert folder.num_chunks == expected
    assert_same_state(states[0], state_after(groups[0], expected))
    # And the run goes on over what the killed one left.
    advance(folder, groups, states, [expected + 1])
    folder.save(groups, states, manifest(folder))
    assert not list(saved.rglob("*.part"))
    assert_rows_are_of(saved, state_after(groups[0], expected + 1))


def test_a_save_makes_exactly_these_calls(monkeypatch, opened, saved, groups):
    folder, states = opened()
    folder._tables_due = 0
    names = []
    for name in CALLS:
        function = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, f=function: (names.append(name), f(*a))
        )
    advance(folder, groups, states, [4])
    # Of the evaluations; then of each file and of its folder.
    assert names == ["fsync", *(4 * ["fsync", "replace", "fsync"])]


@pytest.mark.parametrize("call", range(5))
def test_a_full_disk_is_a_message_and_what_was_there_stays(
    monkeypatch, opened, saved, groups, call
):
    folder, states = opened()
    folder._tables_due = 0
    before = bytes_of(saved)
    count = -1

    def full(number):
        nonlocal count
        if stat.S_ISDIR(os.fstat(number).st_mode):
            return
        count += 1
        if count == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(store.RunFolderError) as error:
        advance(folder, groups, states, [4])
    names = (CURVES, OLDER, "manifest.json", "results.csv", "curves.npz")
    assert f"{saved / names[call]} cannot be written: No space left" in str(error.value)
    assert "All that was written before is whole" in str(error.value)
    after = bytes_of(saved)
    assert before.keys() == after.keys()
    for name in names[call:]:
        assert after[pathlib.Path(name)] == before[pathlib.Path(name)]


def test_a_folder_that_cannot_be_synced_is_no_failure(
    monkeypatch, opened, saved, groups
):
    folder, states = opened()
    real, asked = os.fsync, []

    def fsync(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            asked.append(number)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    advance(folder, groups, states, [4])
    assert len(asked) == 4  # a checkpoint, the manifest and two tables
    folder.close()
    assert opened()[0].num_chunks == 4


def test_tables_are_written_at_both_ends_and_now_and_then(monkeypatch, opened, groups):
    clock = 1000.0
    monkeypatch.setattr(store.time, "monotonic", lambda: clock)
    folder, states = opened()
    folder.save(groups, states, manifest(folder))

    def num_rows():
        return read_file(folder.path / "curves.npz")["step"].size

    def num_steps():
        rows = read_file(folder.path / "results.csv")
        return sum(int(row["step"]) for row in rows)

    assert (num_rows(), num_steps()) == (0, 0)
    advance(folder, groups, states, [1])
    clock += store.TABLES_INTERVAL - 0.1
    advance(folder, groups, states, [2])
    assert (num_rows(), num_steps()) == (0, 0)
    clock += 0.2
    advance(folder, groups, states, [3])
    assert (num_rows(), num_steps()) == (21, 3 * 32)
    advance(folder, groups, states, [4])
    assert num_rows() == 21
    folder.save(groups, states, manifest(folder))
    assert (num_rows(), num_steps()) == (28, 4 * 32)


def test_a_folder_is_finished_only_with_whole_tables(
    monkeypatch, opened, saved, groups
):
    """Else a bench would count what its runs had some seconds before their end."""
    folder, states = opened()
    states[0] = state_after(groups[0], 4)
    real = folder._write

    def full(name, *data):
        if name == "curves.npz":
            raise store.RunFolderError("no space")
        real(name, *data)

    monkeypatch.setattr(folder, "_write", full)
    ended = manifest(folder) | {"finished": True}
    with pytest.raises(store.RunFolderError, match="no space"):
        folder.save(groups, states, ended)
    assert not folder.is_finished()
    monkeypatch.setattr(folder, "_write", real)
    folder.save(groups, states, ended)
    assert folder.is_finished()
    found = store.read_curves(saved / "curves.npz")["member"]
    assert len(found) == len(states[0].curves.member)


def test_tables_that_take_long_are_written_seldom(monkeypatch, opened, groups):
    clock = 1000.0
    monkeypatch.setattr(store.time, "monotonic", lambda: clock)
    folder, states = opened()
    write = folder._write

    def slow(name, *data):
        nonlocal clock
        clock += 10 * (name == "curves.npz")
        write(name, *data)

    monkeypatch.setattr(folder, "_write", slow)
    folder.save(groups, states, manifest(folder))
    clock += 199
    advance(folder, groups, states, [1])
    assert clock == 1209
    clock += 2
    advance(folder, groups, states, [2])
    assert clock == 1221


def test_a_live_page_is_written_with_the_tables_and_its_time_counts(
    monkeypatch, opened, groups
):
    clock = 1000.0
    monkeypatch.setattr(store.time, "monotonic", lambda: clock)
    folder, states = opened()

    def page(rows, manifest):
        nonlocal clock
        clock += 1
        return f"{manifest['name']}: {sum(row['step'] for row in rows)} updates"

    folder._live_page = page
    path = folder.path / "report.html"
    folder.save(groups, states, manifest(folder))
    assert path.read_text() == "my: 0 updates"
    clock += 19  # a twentieth of the time is a second
    advance(folder, groups, states, [1])
    assert path.read_text() == "my: 0 updates"
    clock += 2
    advance(folder, groups, states, [2])
    assert path.read_text() == "my: 64 updates"


def test_a_folder_in_use_is_refused_and_says_by_whom(tmp_path, opened, saved, groups):
    folder, states = opened()
    before = bytes_of(saved)
    for resume in (False, True):
        second = store.RunFolder(saved, folder.config)
        with pytest.raises(store.RunFolderError) as error:
            second.open(resume=resume)
        second.close()
        text = f"in use by process {os.getpid()} on {platform.node()} since 2"
        assert text in str(error.value)
    assert bytes_of(saved) == before
    advance(folder, groups, states, [4])
    folder.close()
    assert opened()[0].num_chunks == 4


def test_a_new_folder_in_use_is_refused_too(tmp_path, config):
    first, second = (store.RunFolder(tmp_path / "run", config) for _ in range(2))
    first.open(resume=False)
    with pytest.raises(store.RunFolderError, match="in use by process"):
        second.open(resume=False)
    first.close()
    second.close()


def test_the_note_of_a_dead_process_is_in_nobodys_way(opened, saved):
    (saved / ".lock").write_text("process 1 on elsewhere since 1999-12-31 23:59:59")
    opened()
    text = (saved / ".lock").read_text()
    assert text.startswith(f"process {os.getpid()} on {platform.node()} since ")
    assert "elsewhere" not in text


def test_a_filesystem_without_locks_is_used_with_a_warning(
    monkeypatch, opened, saved, capsys
):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    assert opened()[0].num_chunks == 3
    err = capsys.readouterr().err
    assert "a filesystem without locks (No locks available)" in err


def test_the_lock_of_windows_is_of_a_byte_behind_the_note(monkeypatch, tmp_path):
    asked = []

    class Msvcrt:
        LK_NBLCK = 2

        @staticmethod
        def locking(number, mode, count):
            asked.append((os.lseek(number, 0, os.SEEK_CUR), mode, count))
            if len(asked) > 1:
                raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.sys, "platform", "win32")
    monkeypatch.setattr(files, "msvcrt", Msvcrt, raising=False)
    with (tmp_path / ".lock").open("a+") as file:
        files.lock(file)
        with pytest.raises(BlockingIOError):
            files.lock(file)
    assert asked == 2 * [(files._LOCKED_BYTE, 2, 1)]


@pytest.mark.parametrize("name", ["thesis.tex", "checkpoint/model.best.msgpack"])
def test_a_folder_that_is_no_run_is_refused_untouched(tmp_path, config, name):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("years of work")
    folder = store.RunFolder(tmp_path / "run", config)
    with pytest.raises(store.RunFolderError, match="is not a run folder"):
        folder.open(resume=True)
    assert bytes_of(tmp_path / "run") == {pathlib.Path(name): b"years of work"}
    assert not (tmp_path / "run/.lock").exists()


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path, config):
    (tmp_path / "file").write_text("")
    folder = store.RunFolder(tmp_path / "file" / "run", config)
    with pytest.raises(store.RunFolderError, match="run: Not a directory"):
        folder.open(resume=False)


def test_curves_are_read_in_the_order_of_members_and_damage_is_a_message(tmp_path):
    path = tmp_path / "curves.npz"
    member = np.array([2, 0, 2, 0, 5])
    np.savez_compressed(path, member=member, step=np.array([0, 0, 10, 10, 0]))
    curves = store.read_curves(path)
    for index, steps in ((0, [0, 10]), (1, []), (2, [0, 10]), (5, [0])):
        mine = store.of_member(curves, index)
        assert curves["step"][mine].tolist() == steps
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[60] ^= 255  # of the first array's compressed bytes
    for damaged in (whole[:-40], bytes(flipped), b"", b"something else"):
        path.write_bytes(damaged)
        with pytest.raises(store.RunFolderError, match=r"curves\.npz is damaged"):
            store.read_curves(path)
    with pytest.raises(store.RunFolderError, match="cannot be read"):
        store.read_curves(tmp_path / "no.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_of_curves_is_a_message_or_no_harm(tmp_path, save):
    path = tmp_path / "curves.npz"
    save(path, member=np.arange(3), step=np.arange(3))
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with contextlib.suppress(store.RunFolderError):
            store.read_curves(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_in_the_header_of_long_curves_is_a_message(tmp_path, save):
    """Which NumPy reads before the checksum of what follows is known to be wrong."""
    path = tmp_path / "curves.npz"
    member = np.random.default_rng(0).integers(0, 1000, 5000)
    save(path, member=member, step=np.arange(5000))
    whole = path.read_bytes()
    for bit in range(8 * 30, 8 * 250):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with contextlib.suppress(store.RunFolderError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a type's name has become
            store.read_curves(path)
