"""The measurement of an accelerator: what fits into its time, what it says, and writes."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from experiments.accelerator import (
    agreement,
    device,
    device_cells,
    device_report,
    kernels,
    roofline,
    schedule,
)
from experiments.accelerator.device_cells import ENGINE, LOOPED, MAPPED, METHODS, Cell
from lra_jax import RULES

pytestmark = pytest.mark.end_to_end

# What fits into a time.


def test_a_bound_follows_from_more_members_and_from_less_work():
    bounds = schedule.Bounds()
    load = schedule.Load("a", members=16, each=10)
    assert bounds.bound(load) is None
    bounds.learn(load, 2.0)
    assert bounds.bound(load._replace(members=1)) == 2  # fewer take no longer
    assert bounds.bound(load._replace(members=64)) == 8
    assert bounds.bound(load._replace(members=64, each=50)) == 40
    bounds.learn(load._replace(members=64), 3.0)
    assert bounds.bound(load._replace(members=128)) == 6  # the lower of 16 and 6
    assert (
        bounds.bound(load._replace(kind="b", members=128)) == 6
    )  # for want of its own
    bounds.learn(load._replace(kind="b", members=128), 100.0)
    assert bounds.bound(load._replace(kind="b", members=128)) == 100


def test_what_is_taken_is_important_and_short_and_the_longest_never():
    costs = {"a": 30.0, "b": 5.0, "c": 10.0, "d": 1.0}

    def take(left, count=1, waiting="abcd"):
        return schedule.take([*waiting], costs.__getitem__, left, count)

    assert take(1000) == ["a"]
    assert take(100) == ["b"]  # `a` would be a third of it: it waits
    assert take(100, count=3) == ["b", "c", "d"]
    assert take(20) == ["d"]
    assert take(40, waiting="a") == ["a"]  # nothing else waits
    assert take(8, waiting="ab") == ["b"]  # more than its share, but it fits
    assert take(4, waiting="abc") == []
    assert take(4, waiting="") == []


# Kernels.

PROGRAM = """HloModule jit_f, is_scheduled=true

%fused (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %t = f32[2]{0} tanh(%p)
}

%body (x: (s32[], f32[2])) -> (s32[], f32[2]) {
  %x = (s32[], f32[2]{0}) parameter(0)
  %g = f32[2]{0} get-tuple-element(%x), index=1
  %f = f32[2]{0} fusion(%g), kind=kLoop, calls=%fused
  %d = f32[2]{0:T(128)} dot(%f, %f), lhs_contracting_dims={}, metadata={op_name="a(b"}
  ROOT %r = (s32[], f32[2]{0}) tuple(%x, %d)
}

%condition (x: (s32[], f32[2])) -> pred[] {
  %x = (s32[], f32[2]{0}) parameter(0)
  ROOT %c = pred[] fusion(%x), kind=kLoop, calls=%fused
}

%branch (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %w = (s32[], f32[2]{0}) while(%p), condition=%condition, body=%body
}

ENTRY %main (a: f32[2]) -> f32[2] {
  %a = f32[2]{0} parameter(0)
  %k = (s32[], f32[2]{0}) while(%a), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %l = (s32[], f32[2]{0}) call(%k), to_apply=%body
  ROOT %b = f32[2]{0} conditional(%l), branch_computations={%fused, %branch}
}
"""


def test_kernels_are_counted_as_often_as_loops_run():
    # The loop of 5 has 2 each; the call 2; the branch's loop 2 and its condition.
    assert kernels.count(PROGRAM, 0) == (5 * 2 + 2 + 1, True)
    assert kernels.count(PROGRAM, 7) == (5 * 2 + 2 + 7 * 3, True)
    known = PROGRAM.replace(
        "body=%body\n", 'body=%body, {"known_trip_count":{"n":"4"}}\n'
    )
    assert kernels.count(known, 7) == (5 * 2 + 2 + 4 * 2, False)
    with pytest.raises(ValueError, match="found no entry"):
        kernels.count("nothing", 0)


def test_kernels_of_a_real_program_are_those_of_its_loop():
    def loops(x):
        return jax.lax.fori_loop(0, 100, lambda i, x: jax.numpy.sin(x @ x), x)

    x = jax.ShapeDtypeStruct((4, 4), np.float32)
    found = kernels.count(jax.jit(loops).lower(x).compile().as_text(), 0)
    # At least the product and the sine; the counter too, on some devices.
    assert 200 <= found.kernels <= 420
    assert not found.has_unknown_loops


def named(kind, pid, tid, name):
    return {"ph": "M", "name": f"{kind}_name", "pid": pid, "tid": tid, "args": {"name": name}}  # fmt: skip


def event(pid, tid, name, ts, dur, **args):
    return {"ph": "X", "pid": pid, "tid": tid, "name": name, "ts": ts, "dur": dur, "args": args}  # fmt: skip


def test_a_trace_of_a_gpu_has_its_streams_and_nothing_twice():
    seen = kernels.summarize([
        named("process", 1, 0, "/device:GPU:0"),
        named("process", 2, 0, "/host:CPU"),
        named("thread", 1, 7, "Stream #13(Compute)"),
        named("thread", 1, 8, "XLA Ops"),
        event(1, 7, "gemm", 10, 30),
        event(1, 7, "fusion", 50, 5),
        event(1, 7, "gemm", 60, 40),
        event(1, 8, "dot.1", 10, 90),  # the same, by operation
        event(2, 1, "python", 0, 1000),
    ])  # fmt: skip
    assert [x[:2] for x in seen.kernels] == [("gemm", 2), ("fusion", 1)]
    assert seen.number == 3
    assert seen.kernels[0][2] == pytest.approx(70e-6)
    assert seen.busy_seconds == pytest.approx(75e-6)
    assert seen.window_seconds == pytest.approx(90e-6)


def test_a_trace_of_a_cpu_has_operations_without_those_around_them():
    host = named("process", 2, 0, "/host:CPU")
    work = [
        event(2, 1, "while.5", 0, 100, hlo_op="while.5"),
        event(2, 1, "dot.1", 0, 60, hlo_op="dot.1"),
        event(2, 1, "end: dot.1", 60, 1),
    ]
    assert kernels.summarize([host, *work]).kernels == [
        ("dot.1", 1, pytest.approx(6e-5))
    ]
    with pytest.raises(ValueError, match="no kernels"):
        kernels.summarize([host])


# Agreement with a CPU.


def compared(found, expected, name="bptt"):
    (row,) = agreement.compare({name: found}, {name: expected} if expected else {})
    return row


def test_agreement_counts_in_units_of_the_largest_value():
    expected = {"w": np.array([0.0, 8.0], np.float32), "n": np.array([3], np.int32)}
    near = expected | {"w": np.array([0.0004, 8.0], np.float32)}
    row = compared(near, expected)
    assert row["passed"]
    assert row["difference"] == pytest.approx(0.0004 / 8)
    assert row["note"] == "largest in w"
    far = expected | {"w": np.array([0.001, 8.0], np.float32)}
    assert compared(far, expected)["passed"] is False
    assert compared(far, expected, "lra_reversible")["passed"]  # it amplifies rounding
    assert compared(near, expected, "draws")["passed"] is False  # has to be equal
    assert compared(expected, expected, "draws")["passed"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"w": np.array([np.nan, 8], np.float32), "n": np.array([3], np.int32)},
        {"w": np.array([0, 8], np.float32), "n": np.array([4], np.int32)},
        {"w": np.array([0, 8], np.float64), "n": np.array([3], np.int32)},
        {"w": np.array([0, 8, 0], np.float32), "n": np.array([3], np.int32)},
        {"w": np.array([0, 8], np.float32)},
    ],
)
def test_disagreement_is_found(wrong):
    expected = {"w": np.array([0, 8], np.float32), "n": np.array([3], np.int32)}
    assert compared(wrong, expected)["passed"] is False


def test_what_fails_on_the_device_does_not_agree_and_what_nobody_knows_may():
    values = {"w": np.zeros(1, np.float32)}
    assert compared("XlaRuntimeError: no such operation", values) == {
        "name": "bptt",
        "tolerance": agreement.TOLERANCE,
        "difference": None,
        "passed": False,
        "note": "XlaRuntimeError: no such operation",
    }
    assert compared(values, None)["passed"] is None
    assert compared(values, "it failed there too")["note"] == "it failed there too"


def agree(rules):
    found = agreement.check(rules=rules, threads=2)
    assert found["compared_with"] == "agreement.npz"
    wrong = [row for row in found["rows"] if not row["passed"]]
    assert found["passed"], wrong
    assert not wrong  # the stored file has them all


def test_this_cpu_agrees_with_the_stored_values():
    agree(("lra_diff",))


@pytest.mark.slow
def test_this_cpu_agrees_with_the_stored_values_of_all_rules():
    assert set(RULES) <= set(agreement.stored())
    agree(tuple(RULES))


def test_a_program_that_fails_is_a_result(monkeypatch):
    def broken(**numbers):
        raise ValueError("not on this device")

    monkeypatch.setitem(agreement.RULES, "bptt", broken)
    monkeypatch.setattr(agreement, "draws", lambda seed: {"a/inputs": seed})
    monkeypatch.setattr(agreement, "initial", lambda seed: {"w": seed})
    monkeypatch.setattr(agreement, "evaluations", lambda problems: {})
    monkeypatch.setattr(agreement, "statuses", lambda device: {})
    found = agreement.values(jax.devices()[0], rules=("bptt",))
    assert found["bptt"] == "ValueError: not on this device"
    assert found["draws"]["a/inputs"] == 1


# The measurement.

TINY = device_cells.Sizes(
    methods=METHODS[:1], members=(1, 3), seq_lens=(10,), hidden_size=4, batch_size=2
)
BEST = roofline.Roofline(1e12, 1e11, 1e12, 1e-6, 1e-6, 1e-5)


def test_all_cells_of_the_issue_are_there_and_the_most_important_come_first():
    cells = device_cells.Sizes().cells()
    first = Cell(METHODS[0], ENGINE, 1, 10)
    assert cells[:5] == [first._replace(members=n) for n in (1, 16, 256, 4096, 16384)]
    assert len(cells) == len(set(cells)) == 4 * 3 * (5 + 5 + 3)
    last = cells[-1]
    assert (last.seq_len, last.way) == (1000, LOOPED)


class Fake:
    """A clock, and cells that take a time known here, in place of real ones."""

    def __init__(self, monkeypatch, speed=1e6, compilation=1.0, limit=1e9):
        self.now, self.limit, self.prepared = 0.0, limit, []
        self.speed, self.compilation = speed, compilation
        monkeypatch.setattr(device_cells, "prepare", self.prepare)
        monkeypatch.setattr(device.machine, "free_memory", lambda: self.limit)
        monkeypatch.setattr(device.timings, "measure", self.measure)
        monkeypatch.setattr(
            agreement,
            "check",
            lambda **_: {"passed": True, "compared_with": "", "rows": []},
        )
        monkeypatch.setattr(device.roofline, "measure", lambda *_, **__: (BEST, []))

    def prepare(self, sizes, cell, *, width=None, seconds=None):
        self.now += self.compilation
        self.prepared.append((cell, width))
        load = sizes.load(cell)
        updates = device_cells.updates_of(seconds) if cell.way == ENGINE else 1
        call = updates * load.members * load.each / self.speed
        lockstep = min(cell.members, width or cell.members)
        timing = device.timings.Timing("", lambda n: call, load.members * updates)
        return device_cells.Prepared(
            bytes=1000 * lockstep * cell.seq_len, width=lockstep, updates=updates,
            kernels=kernels.Count(10, False), cost={}, compile_seconds=self.compilation,
            start=lambda: timing,
        )  # fmt: skip

    def measure(self, timings, repeats, seconds, say):
        (timing,) = timings
        for _ in range(repeats):
            self.now += timing.run(1)
            timing.seconds.append(timing.run(1))
        self.now += timing.run(1)

    def run(self, minutes, sizes=TINY, save=lambda document: None, **changes):
        plan = device.Plan(cells=sizes, traced=(), **changes)
        measurement = device.Measurement(plan, minutes, save, clock=lambda: self.now)
        measurement.run()
        return measurement.document


WIDE = dataclasses.replace(
    TINY, members=(1, 16, 256), seq_lens=(10, 100), methods=METHODS[:2]
)


@pytest.mark.parametrize("minutes", [0.5, 2.0, 60.0])
def test_the_time_is_kept_and_the_longest_are_dropped(monkeypatch, minutes):
    fake = Fake(monkeypatch)
    document = fake.run(minutes, WIDE)
    assert document["finished"]
    assert fake.now <= 60 * minutes
    rows = document["cells"]
    assert len(rows) == len(WIDE.cells())
    dropped = [row for row in rows if row["status"] == "no time"]
    measured = [row for row in rows if row["status"] == "measured"]
    assert (not dropped) == (minutes == 60)
    assert len(measured) + len(dropped) == len(rows)
    # The most important is there, and at last what was left had no room.
    assert (measured[0]["way"], measured[0]["members"]) == (ENGINE, 1)
    left = 60 * minutes * (1 - device.MARGIN) - fake.now
    for row in dropped:
        assert float(row["note"].split()[2]) > left - 1
    if minutes == 2:
        assert times(dropped)[-1] >= times(measured)[-1]
        assert times(dropped)[0] > times(measured)[0]


def times(rows):
    """What cells take, in order; a clock of `Fake` goes with it."""
    work = []
    for row in rows:
        method = device_cells.Method(row["rule"], row["num_refinements"])
        cell = Cell(method, row["way"], row["members"], row["seq_len"])
        load = WIDE.load(cell)
        work.append(load.members * load.each)
    return sorted(work)


def test_no_time_at_all_is_an_end_too(monkeypatch):
    document = Fake(monkeypatch).run(0.01)
    assert document["finished"]
    assert {row["status"] for row in document["cells"]} == {"no time"}
    assert "There was no time for 6 of 6 cells.\n" in device_report.page(document)


def test_rates_and_shares_are_what_was_timed(monkeypatch):
    document = Fake(monkeypatch).run(60)
    rows = {(row["way"], row["members"]): row for row in document["cells"]}
    each = TINY.multiply_adds(Cell(METHODS[0], ENGINE, 1, 10))
    assert rows[ENGINE, 3]["rate"] == pytest.approx(1e6 / each)
    shares = rows[MAPPED, 3]["shares"]
    assert shares["products"] == pytest.approx(1e6 / 1e12)
    # 4 (H² + 2 B H) bytes for B H² multiply-adds: of H = 4 and B = 2
    assert shares["memory"] == pytest.approx(1e6 * 4 * 32 / 32 / 1e12)
    assert shares["launches"] == pytest.approx((10 * 1e-6 + 1e-5) / (3 * each / 1e6))


def test_a_cell_that_does_not_fit_is_a_result_and_the_engine_divides_it(monkeypatch):
    sizes = dataclasses.replace(TINY, members=(16, 256), loop_members=1)
    # 256 members need 2.56 MB: there is room for 100 of them
    fake = Fake(monkeypatch, speed=1e9, limit=1e6)
    document = fake.run(60, sizes)
    rows = {(row["way"], row["members"]): row for row in document["cells"]}
    assert rows[ENGINE, 256]["status"] == "measured"
    assert rows[ENGINE, 256]["tile_width"] == 64
    assert rows[MAPPED, 16]["status"] == "measured"
    assert rows[MAPPED, 256]["status"] == "out of memory"
    assert rows[MAPPED, 256]["note"] == "0.0 GB (estimated) of 0.0 GB"
    page = device_report.page(document)
    assert (
        "| lra_diff, K = 10 | jit(vmap(train_step)) | 10 | 256 | out of memory |"
        in page
    )


def test_memory_that_runs_out_halves_the_tiles_and_what_fails_is_a_result(monkeypatch):
    fake = Fake(monkeypatch, speed=1e9)
    measure, failing = fake.measure, []

    def full(timings, *rest):
        cell, width = fake.prepared[-1]
        if cell.way == MAPPED:
            raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS\nand more")
        if cell.way == ENGINE and (width or 256) > 32:
            failing.append(width)
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        measure(timings, *rest)

    monkeypatch.setattr(device.timings, "measure", full)
    document = fake.run(60, dataclasses.replace(TINY, members=(256,)))
    engine, mapped, looped = document["cells"]
    assert failing == [None, 128, 64]
    assert (engine["status"], engine["tile_width"]) == ("measured", 32)
    assert (mapped["status"], mapped["note"]) == (
        "failed",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
    )
    assert looped["status"] == "measured"
    assert document["finished"]


def test_what_is_there_is_whole_whenever_it_ends(monkeypatch, tmp_path):
    fake, seen = Fake(monkeypatch), []

    def save(document):
        device.write(tmp_path, document)
        assert {path.name for path in tmp_path.iterdir()} == {
            "device.json",
            "device.md",
        }
        found = json.loads((tmp_path / "device.json").read_text("utf8"))
        seen.append(len(found["cells"]))
        if len(seen) > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fake.run(60, save=save)
    assert seen == [0, 0, 0, 1, 2, 3]
    found = json.loads((tmp_path / "device.json").read_text("utf8"))
    assert not found["finished"]
    assert "**not finished**" in (tmp_path / "device.md").read_text("utf8")


def test_limits_that_cannot_be_measured_are_a_note(monkeypatch):
    fake = Fake(monkeypatch)

    def broken(*_, **__):
        raise RuntimeError("no room")

    monkeypatch.setattr(device.roofline, "measure", broken)
    document = fake.run(60)
    assert document["notes"] == ["No limits of the device: no room"]
    assert {row["shares"] for row in document["cells"]} == {None}
    assert "- No limits of the device: no room" in device_report.page(document)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """Of a real run, as small as it can be."""
    plan = device.Plan(
        cells=dataclasses.replace(TINY, members=(3,)),
        limits=roofline.Sizes(matrix=8, floats=64, members=(2,)),
        traced=(3,),
        repeats=1,
        seconds=0.001,
        threads=2,
    )
    folder = tmp_path_factory.mktemp("device")
    with pytest.MonkeyPatch.context() as patch:
        nothing = {"passed": True, "compared_with": "nothing", "rows": []}
        patch.setattr(agreement, "check", lambda **_: nothing)
        measurement = device.Measurement(
            plan, 60, lambda document: device.write(folder, document)
        )
        measurement.run()
    found = json.loads((folder / "device.json").read_text("utf8"))
    assert found == json.loads(json.dumps(measurement.document))
    return found


def test_a_real_run_measures_everything(document):
    assert document["finished"]
    rows = {(row["way"], row["members"]): row for row in document["cells"]}
    assert {(way, 3) for way in device_cells.WAYS} == set(rows)
    for row in rows.values():
        assert row["status"] == "measured", row
        work = row["calls"] * row["updates"]
        work *= 1 if row["way"] == LOOPED else row["members"]
        assert row["rate"] == pytest.approx(work / row["seconds"][0])
        assert row["bytes"] > 0
        assert row["compile_seconds"] > 0
        assert min(row["shares"].values()) > 0
        # T steps forward, 10 for each target of the others, and for the gradients.
        assert row["kernels"] > 10 + 9 * 10 + 10
    assert rows[ENGINE, 3]["has_unknown_loops"]  # K is an argument of the program
    assert not rows[MAPPED, 3]["has_unknown_loops"]
    assert min(document["roofline"]["best"].values()) > 0
    (trace,) = document["traces"]
    if trace.get("error") == "the profiler's trace has no kernels":
        assert jax.__version_info__ < (0, 8), trace  # on a CPU it has none before
        return
    assert trace["count"] >= sum(row["count"] for row in trace["kernels"]) > 0


def test_the_members_that_are_timed_do_learn():
    """Weights made on the host are those that a sweep would start from, in kind."""
    cell = Cell(METHODS[0], ENGINE, 3, 10)
    experiment = device_cells.make_experiment(TINY, cell, 2)
    grid = device_cells.make_grid(experiment, cell)
    plain = device_cells.start_plain(experiment, grid)
    w = np.asarray(plain.states.params.w_hh)
    assert w.shape == (3, 4, 4)
    np.testing.assert_allclose(w[2] @ w[2].T, np.eye(4), atol=1e-6)
    keys = jax.random.key_data(plain.states.key)
    assert len({tuple(key) for key in np.asarray(keys).tolist()}) == 3
    runs = device_cells.start_runs(experiment, grid, device_cells.slots_of(grid, 2))
    assert np.asarray(runs.status).tolist() == [[1]] * len(runs.status)


def test_the_table_and_the_figure(document, tmp_path):
    pytest.importorskip("matplotlib")
    page = device_report.page(document)
    (line,) = [
        x for x in page.splitlines() if x.startswith("| lra_diff, K = 10 | 10 | 3 |")
    ]
    rows = {row["way"]: row for row in document["cells"] if row["members"] == 3}
    cells = [cell.strip() for cell in line.split("|")[4:7]]
    expected = [device_report.number(rows[way]["rate"]) for way in device_cells.WAYS]
    assert cells == expected
    upper, lower = device_report.draw(document).axes
    drawn = {tuple(line.get_ydata()) for line in upper.lines}
    assert tuple(r["rate"] for r in document["cells"] if r["way"] == ENGINE) in drawn
    assert len(lower.lines) == len(device_report.LIMITS) + 1
    assert device.draw(tmp_path, document) == str(tmp_path / "device.png")
    assert (tmp_path / "device.png").read_bytes()[:4] == b"\x89PNG"
    assert device.draw(tmp_path, document | {"methods": []}).startswith("No figures: ")
    nothing = document | {"cells": []}
    assert device.draw(tmp_path, nothing) == "no figure: nothing was measured"


def test_numbers_have_three_digits():
    found = [device_report.number(x) for x in (None, 0, 0.01234, 1.5, 123456.0)]
    assert found == ["-", "0", "0.0123", "1.50", "123,456"]


# The command.


@pytest.mark.parametrize(
    ("passed", "error", "code"),
    [
        (True, None, 0),
        (False, None, 1),
        (True, KeyboardInterrupt(), 130),
        (True, OSError("no room"), 2),
    ],
)
def test_the_exit_code_says_how_it_ended(
    monkeypatch, tmp_path, capsys, passed, error, code
):
    def run(self):
        self.document["agreement"] = {"passed": passed, "compared_with": "", "rows": []}
        if error:
            raise error

    monkeypatch.setattr(device.Measurement, "run", run)
    monkeypatch.setattr(device.machine, "prepare", lambda: None)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    with flagsaver.as_parsed(out=str(tmp_path / "a"), minutes="1", quick="true"):
        assert device.main([]) == code
    said = capsys.readouterr()
    assert ("no room" in said.err) == (code == 2)
    assert ("device.json" in said.out) == (code != 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--out: expected a folder for the results, got none"),
        (["--out=x", "--minutes=0"], "--minutes: expected a positive number, got 0"),
    ],
)
def test_bad_flags_are_one_message(arguments, says):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.device", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"experiments.device: {says}\n"
