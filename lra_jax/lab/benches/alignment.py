"""Why a rule works, or does not: `python -m experiments.alignment`.

Every rule but `lra_released` (which the paper's reproduction takes apart), `rtrl` and
`lra_reversible` (whose errors are those of BPTT and `lra_norm`) and `random_error`
(which has no direction) learns temporal order with gradients of its own. At regular
intervals `lra_jax.diagnostics` asks it what it would do next, and BPTT what it would do
with the same weights and batch: do the rule's errors point where BPTT's do, at each
step and in sum over them, and do they keep their size on the way back? BPTT and
`lra_norm`, with and without its cost of activity, do the same on a longer sequence,
with Adam, and rates of their own for W_hh and the readout.

Each setting's numbers go into `runs/alignment/BUDGET/` as soon as they are there, and
the command goes on where it stood. The table, its numbers and the figure go into
`results/alignment/`; those of another budget than `standard` into a folder of its name
there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.console
from absl import flags

from lra_jax import diagnostics, rule_card
from lra_jax.lab.benches import pictures
from lra_jax.lab.benches.published import TITLES
from lra_jax.lab.flow import recording as flow
from lra_jax.lab.flow import tables
from lra_jax.lab.flow.recording import RELATIVE_NORM, Recording, Setting
from lra_jax.lab.reports import markdown, results, statistics
from lra_jax.lab.reports.results import Row
from lra_jax.lab.reports.statistics import finite_mean_interval
from lra_jax.lab.reports.summary import percent
from lra_jax.lab.runs import fingerprint, run, store
from lra_jax.lab.terminal import command_line, files, machine, screen

TASK = "temporal_order"
# Columns of the CSV, for each t and for the whole network.
COLUMNS = (
    "error_cosine",
    RELATIVE_NORM,
    "w_hh_cosine",
    "w_hh_grad_norm",
    "w_xh_grad_norm",
    "w_hh_sum_cosine",
    "w_xh_sum_cosine",
    "accuracy",
)


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much is trained.

    Attributes:
      seq_len: T of all rules.
      long_seq_len: T of the rules for long sequences.
      num_steps: updates.
      every: updates between two observations; there is one in the middle.
      num_seeds: of each setting.
      hidden_size: H.
      num_validation: samples behind the accuracy.
    """

    seq_len: int = 60
    long_seq_len: int = 150
    num_steps: int = 1000
    every: int = 100
    num_seeds: int = 5
    hidden_size: int = 100
    num_validation: int = 1000

    def length(self, family: str) -> int:
        """T of a family."""
        return self.long_seq_len if family == LONG else self.seq_len


BUDGETS = {
    "standard": Budget(),
    "smoke": Budget(
        seq_len=12, long_seq_len=15, num_steps=20, every=10, num_seeds=2,
        hidden_size=16, num_validation=200,
    ),
}  # fmt: skip

LONG = "long sequence"
_NORM = {"max_norm": 1.0}
_LRA = {"gamma": 50.0, "num_refinements": 1, "c1": 1.0}
# As configs/reach/one_setting.toml, but for a slower readout and W_hh left to itself.
_ADAM: dict[str, Any] = {
    "lr": 1e-3,
    "optimizer": "adam",
    "optimizer_options": {
        "b2": 0.99, "decay_steps": 500, "w_hh_rate": 0.003, "readout_rate": 10,
    },
}  # fmt: skip
_NESTEROV: dict[str, Any] = {
    "optimizer": "momentum",
    "optimizer_options": {"nesterov": True},
}

# One setting of each rule: from results/standard where T = 60 has one, else the best of
# a few on two other seeds (docs/notes/rules.md has them).
_SETTINGS = (
    Setting("bptt", "bptt", _NORM, 0.1),
    Setting("lra_diff", "lra_diff", _LRA, 0.1),
    Setting("lra_diff, λ = 0.1", "lra_diff", _LRA | {"lambda_": 0.1}, 0.1),
    Setting("lra_norm", "lra_norm", _NORM, 0.03),
    Setting("fa", "fa", _NORM, 0.03),
    Setting("lra_fdbk", "lra_fdbk", _NORM, 0.03),
    Setting("lra_e", "lra_e", _NORM, 0.1),
    Setting("rec_lra", "rec_lra", _NORM, 0.1),
    Setting("dfa", "dfa", _NORM, 0.03),
    Setting("readout_only", "readout_only", {}, 0.1),
    Setting("snap", "snap", _NORM, 0.03),
    Setting("eprop", "eprop", _NORM, 0.03),
    Setting("rflo", "rflo", _NORM, 0.03),
    Setting("uoro", "uoro", _NORM, 0.03),
    Setting("tpri", "tpri", _NORM | {"ridge": 1.0}, 0.3),
    Setting("tptt", "tptt", {"target_lr": 10.0, "feedback_lr": 0.1}, **_NESTEROV),
)


def by_family(settings: Sequence[Setting]) -> dict[str, tuple[Setting, ...]]:
    """Settings by the way that the errors of their rules take, as the cards have it."""
    families: dict[str, tuple[Setting, ...]] = {}
    for setting in settings:
        family = rule_card(setting.rule).family
        families[family] = (*families.get(family, ()), setting)
    return families


FAMILIES = {
    **by_family(_SETTINGS),
    LONG: (
        Setting("bptt, Adam", "bptt", **_ADAM),
        Setting("lra_norm, Adam", "lra_norm", **_ADAM),
        Setting("lra_norm, no cost, Adam", "lra_norm", {"activity": 0.0}, **_ADAM),
    ),
}

_BUDGET = flags.DEFINE_enum(  # other programs here have flags of these names
    "budget", "standard", [*BUDGETS], "How much is trained.", allow_override=True
)
_RESULTS = flags.DEFINE_string(
    "results", "results", "Where tables and figures go.", allow_override=True
)
_ACCEPT_OLD_CODE = flags.DEFINE_boolean(
    "accept_old_code",
    False,
    "Use results that other code than today's has made.",
    allow_override=True,
)


def record(setting: Setting, seq_len: int, budget: Budget) -> Recording:
    """Trains a setting with all seeds, in float64: errors of 1e-60 are errors."""
    with machine.in_float64():
        return flow.record(
            setting,
            task=TASK,
            seq_len=seq_len,
            seeds=range(budget.num_seeds),
            num_steps=budget.num_steps,
            every=budget.every,
            hidden_size=budget.hidden_size,
            num_validation=budget.num_validation,
        )


def moments(recording: Recording) -> dict[str, int]:
    """The observations that are told apart: their positions."""
    last = len(recording.steps) - 1
    return {"start": 0, "middle": last // 2, "end": last}


def distances(seq_len: int) -> dict[str, int]:
    """The steps at which errors are compared: how far they are from the last one."""
    return {"1": 1, "10": 10, "half": seq_len // 2, "first": seq_len - 1}


def numbers(recording: Recording, family: str) -> Row:
    """What a setting comes to: means over seeds, and their 95 % intervals.

    `accuracy_best` is that of each seed's best observation. Columns at the start, in
    the middle and at the end of training are: `accuracy_...`; `w_hh_cosine_...` and
    `w_xh_cosine_...`, of whole gradients to BPTT's; `error_cosine_1_...`, `_10_`,
    `_half_` and `_first_`, that many steps back from the last one; and `decades_...`,
    how much log₁₀ ‖qₜ‖ falls per step back in time, by a line through all steps. None
    where there is nothing to compare.
    """
    setting = recording.setting
    row: Row = {
        "name": setting.name,
        "family": family,
        "rule": setting.rule,
        "options": _text(setting.options),
        "lr": setting.lr,
        "optimizer": setting.optimizer,
        "optimizer_options": _text(setting.optimizer_options),
        "task": recording.task,
        "seq_len": recording.seq_len,
        "updates": int(recording.steps[-1]),
        "seeds": len(recording.seeds),
        "diverged": int(np.sum(recording.diverged)),
    }
    best = np.max(recording.seen.accuracy, axis=1)
    row["accuracy_best"], row["accuracy_best_interval"] = finite_mean_interval(best)
    norm = np.asarray(recording.seen.error_norm)
    columns = {
        "accuracy": recording.seen.accuracy,
        "w_hh_cosine": recording.seen.w_hh_sum_cosine,
        "w_xh_cosine": recording.seen.w_xh_sum_cosine,
        **{
            f"error_cosine_{name}": recording.seen.error_cosine[..., -1 - distance]
            for name, distance in distances(recording.seq_len).items()
        },
        "decades": diagnostics.decay(norm, recording.seq_len),
    }
    for name, values in columns.items():
        for when, index in moments(recording).items():
            mean, half_width = finite_mean_interval(values[:, index])
            row[f"{name}_{when}"] = mean
            row[f"{name}_{when}_interval"] = half_width
    return row


def _text(options: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.rstrip('_')} = {value:g}" if not isinstance(value, bool) else name
        for name, value in options.items()
    )


def lines(recording: Recording, family: str) -> list[Row]:
    """What the figure shows: steps at three moments of training, sums at all."""
    shown = [int(recording.steps[index]) for index in moments(recording).values()]
    return [
        {"family": family, "seq_len": recording.seq_len, **row}
        for row in tables.by_step([recording], COLUMNS)
        if row["t"] is None or row["step"] in shown
    ]


def page(rows: Sequence[Row], budget: Budget) -> str:
    """The settings, and what they come to."""
    settings = markdown.table(
        ["errors go", "setting", "rule", "options", "optimizer", "T"],
        [
            [
                row["family"],
                row["name"],
                row["rule"],
                row["options"] or "defaults",
                ", ".join(
                    filter(
                        None,
                        (row["optimizer"], f"lr = {row['lr']:g}",
                         row["optimizer_options"]),
                    )
                ),
                str(row["seq_len"]),
            ]
            for row in rows
        ],
    )  # fmt: skip
    whole = markdown.table(
        [
            "setting",
            "accuracy %: best",
            "at the end",
            "cos ∇W_hh, BPTT: start → middle → end",
            "cos ∇W_xh, BPTT: start → middle → end",
        ],
        [
            [
                row["name"] + _diverged(row),
                *(
                    percent(row[f"accuracy_{when}"], row[f"accuracy_{when}_interval"])
                    for when in ("best", "end")
                ),
                _cell(row, "w_hh_cosine", ("start", "middle", "end")),
                _cell(row, "w_xh_cosine", ("start", "middle", "end")),
            ]
            for row in rows
        ],
    )
    steps = markdown.table(
        [
            "setting",
            "cos qₜ, BPTT: 1 step back, start → end",
            "10 steps",
            "T/2 steps",
            "T - 1 steps",
            "decades ‖qₜ‖ falls per step back",
        ],
        [
            [
                row["name"],
                *(
                    _cell(row, f"error_cosine_{name}", ("start", "end"))
                    for name in distances(row["seq_len"])
                ),
                _cell(row, "decades", ("start", "end"), 3),
            ]
            for row in rows
        ],
    )
    notes = (
        f"{TITLES[TASK].capitalize()}, H = {budget.hidden_size}, batches of 20, "
        f"{budget.num_seeds} seeds, {budget.num_steps:,} updates, float64. Accuracy on "
        f"{budget.num_validation:,} samples every {budget.every:,} updates; the best "
        "is each seed's. ± is the 95 % interval over seeds.",
        "qₜ is the error at hₜ that the rule's update of W_xh descends. BPTT's is that "
        "of the same weights and batch, which are of the rule's own training. A cosine "
        "of errors is a mean over the batch; – is where there are none.",
        "Decades: the slope of a line through log₁₀ ‖qₜ‖ of all t, with the mean of "
        "‖qₜ‖ over the batch; negative where errors grow on their way back.",
    )
    return "\n".join((settings, whole, steps)) + "\n" + markdown.notes(notes)


def _cell(row: Row, name: str, when: Sequence[str], digits: int = 2) -> str:
    """Means and intervals of some moments, said once where they are equal."""
    found = []
    for moment in when:
        mean, interval = row[f"{name}_{moment}"], row[f"{name}_{moment}_interval"]
        text = "–" if mean is None else f"{mean:z.{digits}f}"
        found.append(text if interval is None else f"{text} ± {interval:.{digits}f}")
    return " → ".join(found[:1] if len(set(found)) == 1 else found)


def _diverged(row: Row) -> str:
    if not row["diverged"]:
        return ""
    return f" ({row['diverged']} of {row['seeds']} seeds diverged)"


def _code() -> dict[str, str]:
    """The fingerprint of what is observed, and of what observes it."""
    files = map(
        pathlib.Path, (__file__, flow.__file__, tables.__file__, statistics.__file__)
    )
    return fingerprint.ours() | fingerprint.of_files(files)


def observe(
    setting: Setting,
    family: str,
    budget: Budget,
    folder: pathlib.Path,
    *,
    accept_old_code: bool = False,
) -> tuple[Row, list[Row]]:
    """`numbers` and `lines` of a setting: recorded now, or before by the same code.

    Args:
      setting: to be recorded.
      family: that it belongs to.
      budget: how much is trained.
      folder: where both are kept.
      accept_old_code: whether what other code has recorded counts.

    Raises:
      store.RunFolderError: what is kept is damaged, or of other code.
    """
    words = repr((setting, family, budget))
    path = folder / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"
    if path.exists():
        try:
            kept = json.loads(path.read_text("utf-8"))
            row, drawn, code = kept["numbers"], kept["lines"], kept["code"]
        except (ValueError, TypeError, KeyError):
            text = f"{path} is damaged; remove it to record anew"
            raise store.RunFolderError(text) from None
        if changed := fingerprint.changes(code, _code()):
            what = f"{path} ({setting.name})"
            otherwise = "remove it to record anew"
            store.refuse_old_code(
                what, changed, accept=accept_old_code, otherwise=otherwise
            )
        return row, drawn
    recording = record(setting, budget.length(family), budget)
    row, drawn = numbers(recording, family), lines(recording, family)
    kept = {"of": words, "code": _code(), "numbers": row, "lines": drawn}
    folder.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(kept, ensure_ascii=False).encode())
    return row, drawn


def _run(console: rich.console.Console) -> int:
    machine.prepare()
    name = _BUDGET.value
    command = [*command_line.started_as(__name__), "--budget", name]
    if _RESULTS.value != "results":
        command += ["--results", _RESULTS.value]
    command += ["--accept-old-code"] * _ACCEPT_OLD_CODE.value
    interruption = run.Interruption(console, command)
    folder = pathlib.Path(_RESULTS.value) / "alignment"
    if name != "standard":
        folder /= name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _work(console, name, folder, interruption)
    except OSError as error:
        raise run.unfinished(error, interruption.command) from None


def _work(
    console: rich.console.Console,
    name: str,
    folder: pathlib.Path,
    interruption: run.Interruption,
) -> int:
    """Records what is not recorded yet, and writes table, numbers and figure.

    Args:
      console: where to say what happens.
      name: of the budget.
      folder: for the results.
      interruption: stops it after a setting.

    Returns:
      The exit code.
    """
    budget = BUDGETS[name]
    kept = pathlib.Path("runs/alignment") / name
    rows, drawn = [], []
    for family, settings in FAMILIES.items():
        for setting in settings:
            screen.say(console, f"recording {setting.name}")
            accept = _ACCEPT_OLD_CODE.value
            row, found = observe(setting, family, budget, kept, accept_old_code=accept)
            rows.append(row)
            drawn += found
            if interruption.signal:
                interruption.say("Interrupted; what was recorded is kept. To go on:")
                return 128 + interruption.signal
    results.write_rows(folder / "alignment.csv", drawn)
    results.write_by_name(folder / "alignment.json", rows)
    text = page(rows, budget)
    files.write_text(folder / "alignment.md", text)
    screen.say(console, text)
    pictures.show(console, "alignment", folder)
    return 0


parse = command_line.parser(__name__)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    errors = (machine.MachineError, store.RunFolderError, OSError)
    return command_line.exit_code(_run, errors, command_line.program(__name__))
