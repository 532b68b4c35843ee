"""Bad configs by the hundred: each is one readable screen and exit code 2, at once."""

import itertools
import json
import random
import string
import subprocess
import sys
from collections import Counter
from typing import NamedTuple

import pytest
from absl import flags
from test_config import GOOD

from lra_jax import RULES, TASKS
from lra_jax.lab import config as config_lib
from lra_jax.lab import grid
from lra_jax.lab.config import arguments as arguments_lib
from lra_jax.lab.config.optimizers import OPTIMIZERS

# Functions that a command may call before it answers, those in C included. Most cases take
# some thousand, the largest lists of seeds 300,000.
MAX_CALLS = 1_000_000
MAX_LINES, MAX_WIDTH = 40, 200

TOP, GRID = GOOD.split("[grid]")
SIZES = (
    "seq_len", "hidden_size", "batch_size", "max_steps", "eval_every", "num_validation",
)  # fmt: skip
NUMBERS = ("lr", "gamma", "lambda", "c0", "c1")
CHOICES = ("local_loss", "reduction", "normalization", "refinement")
NAMES = {"task": TASKS, "rule": RULES, "optimizer": OPTIMIZERS}
ANSI = ("\x1b[31m", "\x1b]0;owned\x07", "\x9b2J", "\u202e", "\x00", "\r", "\n", "\x7f")


class Case(NamedTuple):
    """What is wrong, and what the message must say of it.

    Attributes:
      data: the file; None if there is none.
      says: text of the message, most often the key.
      overrides: values of `--set`.
      name: of the file.
      sure: whether it is bad for certain; otherwise, a case that is accepted is no
        case at all.
    """

    data: bytes | None
    says: str = ""
    overrides: tuple[str, ...] = ()
    name: str = "my.toml"
    sure: bool = True


def config(top="", table="", says="", overrides=()):
    """`GOOD` with other lines; a line here takes the place of GOOD's for its key."""

    def merge(old, new):
        keys = [line.partition("=")[0] for line in new.splitlines()]
        kept = [x for x in old.splitlines() if x.partition("=")[0] not in keys]
        return "\n".join([*kept, new]) + "\n"

    text = merge(TOP, top) + "[grid]" + merge(GRID, table)
    return Case(text.encode(), says, tuple(overrides))


def place(rng, key, value):
    """A setting at the top level or in the grid, where it may stand in both."""
    in_table = key in config_lib.AXES and rng.random() < 0.5
    in_table |= key not in config_lib.Config.__dataclass_fields__
    line = f"{key} = {value}"
    return config(table=line, says=key) if in_table else config(top=line, says=key)


def quoted(text):
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def letters(rng, least=1, most=12):
    count = rng.randint(least, most)
    return "".join(rng.choices(string.ascii_lowercase + "_", k=count))


def huge(rng):
    """A number that no integer or float of a machine holds."""
    digits = rng.choice([40, 310, 400, 980]) + rng.randint(0, 9)
    return rng.choice(["9" * digits, "0x" + "f" * (20 * digits)])


def axis(rng, size):
    return str(sorted(rng.sample(range(1, 100 * size), size)))


def random_bytes(rng):
    return Case(rng.randbytes(rng.randint(0, 400)))


def random_text(rng):
    alphabet = rng.choice(
        [string.printable, "[]{}=.,'\"#\n \\u0aé", "äγ→\u202e🙂=[]\n"]
    )
    return Case("".join(rng.choices(alphabet, k=rng.randint(1, 200))).encode())


def truncated(rng):
    return Case(GOOD.encode()[: rng.randrange(len(GOOD))], sure=False)


def flipped(rng):
    data = bytearray(GOOD.encode())
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return Case(bytes(data), sure=False)


def shuffled(rng):
    lines = GOOD.splitlines()
    a, b = (rng.randrange(len(lines)) for _ in range(2))
    lines[a] = lines[a][: rng.randrange(20)] + lines[b]
    return Case("\n".join(lines).encode(), sure=False)


def nested(rng):
    depth = rng.choice([3, 50, 150, 300, 700, 3000, 50_000]) + rng.randint(0, 9)
    key = rng.choice(["gamma", "lr", "local_loss", "rule", letters(rng)])
    dotted = ".".join(["a"] * min(depth, 3000))
    return rng.choice(
        [
            config(table=f"{key} = " + "[" * depth + "]" * depth),
            config(table=f"{key} = " + "[" * depth),
            config(table=f"{key} = " + "{a = " * depth + "1" + "}" * depth),
            config(top=f"qask.{dotted} = 1"),
            config(table=f"momentum.{dotted} = 1"),
            config(table=f"[grid.lambda_.{dotted}]"),
            config(overrides=[f"grid.{key}=" + "[" * depth + "]" * depth]),
        ]
    )


def wrong_type(rng):
    value = rng.choice([
        "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", "{}", "{a = 1}", "nan", "-nan",
        "[[1, 2], [3]]", '["x", ["y"]]', "[{a = [1]}]", "-inf", "[nan]", "[1979-05-27]",
        f'"{letters(rng)}"', f"[{rng.randint(1, 9)}.5, true]", "[true, false]", "-1",
    ])  # fmt: skip
    keys = [
        k for k in config_lib.Config.__dataclass_fields__ if k not in ("grid", "name")
    ]
    return place(rng, rng.choice([*keys, *NUMBERS, *CHOICES]), value)


def bad_size(rng):
    value = rng.choice([
        0, -1, -rng.randint(1, 2**40), 2**31, 2**31 + rng.randint(0, 2**20), 2**63, 2**64,
        10**18, f"-{'9' * rng.randint(1, 990)}", huge(rng), huge(rng), rng.uniform(1, 9),
        "1e300", "true", "10.0",
    ])  # fmt: skip
    return place(rng, rng.choice(SIZES), value)


def many_digits(rng):
    digits = "1" * rng.choice([1000, 4301, 9999, 100_000]) + str(rng.randint(1, 99))
    key = rng.choice([*SIZES, *NUMBERS])
    value = rng.choice([digits, f"-{digits}", f"0.{digits}", f"[1, {digits}]"])
    return place(rng, key, value)._replace(says="digits or more (at line")


def too_much_memory(rng):
    size = rng.randint(10**9, 2**31 - 1)
    key = rng.choice(["seq_len", "hidden_size", "batch_size"])
    return place(rng, key, size)


def bad_number(rng):
    value = rng.choice([
        "nan", "+nan", "inf", "-inf", "1e999", "-1e-9", "1e39", "3.5e38", f"-{rng.random()}",
        f"{rng.random()}e{rng.randint(40, 400)}", huge(rng), f'"{rng.random()}"', "true",
    ])  # fmt: skip
    values = rng.choice([value, f"[{value}]", f"[0.25, {value}]", f"[{value}, 0.25]"])
    key = rng.choice(NUMBERS)
    return config(table=f"{key} = {values}", says=key)


def at_least_one(rng):
    key, value = rng.choice(["momentum", "b1", "b2", "decay"]), rng.uniform(1, 99)
    names = {"momentum": "momentum", "decay": "rmsprop"}
    name = names.get(key, "adam")
    return config(table=f'optimizer = "{name}"\n{key} = {value}', says=key)


def unknown_near(rng):
    known = [*arguments_lib.all_arguments(), *config_lib.Config.__dataclass_fields__]
    old = rng.choice(known)
    at = rng.randrange(len(old))
    key = rng.choice(
        [old[:at] + letters(rng, 1, 1) + old[at:], old[:at] + old[at + 1 :], old + "s"]
    )
    if key in known or not key:
        return unknown_near(rng)
    line = f"{key} = {rng.randint(0, 9)}"
    return (
        config(top=line, says=key)
        if rng.random() < 0.5
        else config(table=line, says=key)
    )


def unknown_far(rng):
    word = "q" + letters(rng)
    odd = rng.choice([*ANSI, "", " ", ".", "..", "é", "🙂", "=", "#", "/", '"', "\\"])
    key = rng.choice([word + odd, odd + word, word * 500, odd + word + odd * 500])
    line = f"{quoted(key)} = {rng.choice(['1', '[]', quoted(odd * 49)])}"
    says = "dots" if key.count(".") > 99 else word[:4]
    return (
        config(top=line, says=says)
        if rng.random() < 0.5
        else config(table=line, says=says)
    )


def unknown_choice(rng):
    key = rng.choice([*NAMES, *CHOICES, "dtype", "matmul_precision"])
    near = rng.choice([*RULES, *TASKS, *OPTIMIZERS, "mse", "float32"])
    at = rng.randrange(len(near))
    word = rng.choice(["", near[:at] + "x" + near[at:], letters(rng), "x" * 10_000])
    word += rng.choice(["", "", *ANSI])
    return place(rng, key, quoted(word + "~"))


def repeated(rng):
    key = rng.choice(NUMBERS)
    value = rng.randint(1, 999)
    values = rng.choice(["[{0}, {0}.0]", "[{0}, 0, {0}]", "[0.5, {0}, {0}e0]"])
    other = rng.choice(list(CHOICES))
    return rng.choice(
        [
            config(table=f"{key} = {values.format(value)}", says=key),
            config(table=f"seq_len = [{value + 9}, {value + 9}]", says="seq_len"),
            config(top=f"seeds = [{value}, {value}]", says="seeds"),
            config(table=f'rule = ["tptt", "tptt"] # {value}', says="rule"),
            config(table=f"{other} = 1\n{other} = {value}"),
            Case(f"{GOOD}\n[grid]\ngamma = {value}".encode()),
        ]
    )


def empty(rng):
    key = rng.choice([*NUMBERS, *CHOICES, *config_lib.AXES, "seeds"])
    space = " " * rng.randint(0, 30)
    if key == "seeds":
        return config(top=f"seeds = [{space}]", says=key)
    return config(table=f"{key} = [{space}]", says=key)


def too_many_members(rng):
    keys = NUMBERS[:3] if rng.random() < 0.5 else (*NUMBERS, "num_refinements")
    table = "\n".join(f"{key} = {axis(rng, 1000)}" for key in keys)
    table += "\nnum_refinements = 1" * (len(keys) == 3)
    count = f"{1000 ** len(keys):,} members; at most 1,000,000"
    return config(top="seeds = [1]", table=table, says=count)


def seed_list(rng):
    count = rng.choice([10, 1000, 15_000])
    seeds = rng.sample(range(2**32), count)
    seeds[rng.randrange(count)] = rng.choice(
        [-1, 2**32, 0.5, "x", 10**50, [1], seeds[0] + 0.0]
    )
    return config(top=f"seeds = {json.dumps(seeds)}", says="seeds")


def wrong_grid(rng):
    x, word = rng.randint(0, 9999), letters(rng)
    value = rng.choice([
        f"{x}", f"{x}.5", f'"{word}"', "true", "1979-05-27", f"[{x}]", "nan", f"[[{x}]]",
        f"[{{lr = {x}}}, {x}]", f'["{word}"]', "[[{lr = 1}]]",
    ])  # fmt: skip
    return Case(f"{TOP}grid = {value}\n".encode(), "grid")


def mixed_rules(rng):
    without = [
        name
        for name in sorted(RULES)
        if "gamma" not in arguments_lib.arguments_of(RULES[name])
    ]
    rules = ["lra_diff", *rng.sample(without, rng.randint(1, len(without)))]
    rng.shuffle(rules)
    value = rng.randint(1, 10**6)
    table = f"rule = {json.dumps(rules)}\ngamma = {value}"
    return config(table=table, says="grid.gamma")


def bad_name(rng):
    word, odd = letters(rng), rng.choice(ANSI)
    text = rng.choice([
        "..", ".", "...", "", " ", " . ", "/", "a/b", "../../etc", "/etc/passwd", odd,
        word + odd, f"{word}/{word}", "x" * 10_000, "é" * 130, "x" * rng.randint(256, 9999),
    ])  # fmt: skip
    return config(top=f"name = {quoted(text)}", says="name")


def short_sequence(rng):
    task = rng.choice([name for name, task in TASKS.items() if task.min_seq_len > 1])
    value = rng.choice([rng.randint(1, 9), f"[{rng.randint(1, 9)}, 30]"])
    lines = f'task = "{task}"\nseq_len = {value}'
    if isinstance(value, int) and rng.random() < 0.5:
        return config(top=lines, says="seq_len")
    return config(table=lines, says="seq_len")


def no_file(rng):
    odd = rng.choice(["", "é", "\x1b[31m", "\n", "\udcff", "\u202e"])
    name = rng.choice([letters(rng), letters(rng, 300, 9000), f"no/{letters(rng)}"])
    return Case(None, says="cannot be read", name=f"{name}{odd}.toml")


def folder(rng):
    return Case(None, says="directory", name=letters(rng) + "/")


def odd_file_name(rng):
    name = letters(rng) + rng.choice(["\x1b[31m", "\n", "\udcff", "\u202e", "\t"])
    return Case(f"x = {rng.random()}".encode(), says="x =", name=name + ".toml")


def bad_override(rng):
    word, x = "q" + letters(rng), rng.randint(1, 99)
    odd = rng.choice([c for c in ANSI if c != "\x00"])
    text = rng.choice([
        word, f"={word}", f"{word}=1", f"grid.{word}=", f".{word}=1", f"grid..{word}=1",
        f"grid.{x}.gamma=1", f"grid.0.{word}.gamma=1", "grid=3", "==", "grid.-1.gamma=1",
        "grid.².gamma=1", f"grid.{'9' * 5000}.gamma=1", f"{word}{odd}=1", "grid.=1",
        f"grid.gamma={odd}", f"grid.gamma={huge(rng)}", f"seq_len={huge(rng)}", "task=",
        f"seq_len=12\nhidden_size={x}", f"grid.gamma=[{word}", f"task={odd}{word}",
        f"name=a/{word}", f"lr={x}", f"rule.lr={word}", f"grid.gamma=-{x}", "\udcff=1",
    ])  # fmt: skip
    return config(overrides=[text], says=word if word in text else "")


def many_problems(rng):
    count = rng.choice([30, 8000 + rng.randint(0, 99)])
    words = [f"q{letters(rng)}{i}" for i in range(count)]
    lines = "\n".join(f"{word} = [1, 2]" for word in words)
    numbers = [rng.random() for _ in range(count)]
    return rng.choice(
        [
            config(top=lines, says=words[0]),
            config(table=lines, says=words[0]),
            config(table=f"gamma = {json.dumps(words)}", says="gamma"),
            config(table=f"gamma = [{'[], ' * 7 * count}]", says="gamma"),
            config(table=f"gamma = {[*range(4 * count), 0]}", says="gamma"),
            config(table=f"rule = {json.dumps(words)}", says="rule"),
            config(table=f"rule = {json.dumps(['bptt'] * count)}", says="rule"),
            config(table=f"hidden_size = {numbers}", says="hidden_size"),
            Case((TOP + "[[grid]]\n" * count).encode(), "grid"),
            config(overrides=[f"{word}=1" for word in words[:500]], says=words[0]),
        ]
    )


def big_file(rng):
    size = rng.randint(2**20, 2**22)
    fill = rng.choice(
        ["#" * size, f"x = '{'y' * size}'", f"x = [{'1, ' * (size // 3)}]"]
    )
    return Case(f"{GOOD}\n{fill}".encode(), "KiB")


KINDS = (
    random_bytes, random_text, truncated, flipped, shuffled, nested, wrong_type, bad_size,
    too_much_memory, many_digits, bad_number, at_least_one, unknown_near, unknown_far, unknown_choice,
    repeated, empty, too_many_members, seed_list, wrong_grid, mixed_rules, bad_name,
    short_sequence, no_file, folder, odd_file_name, bad_override, many_problems, big_file,
)  # fmt: skip
RARE = {big_file: 3, many_problems: 40, too_many_members: 12, seed_list: 12}


class AcceptedError(Exception):
    """The program took a config that it should have refused."""


def run(folder, case, capsys):
    """Exit code, stdout and stderr of the command, in this process."""
    path = folder / case.name
    if case.data is not None:
        path.write_bytes(case.data)
    elif case.name.endswith("/"):
        path.mkdir(exist_ok=True)
    words = ["grid", "--config", str(path)]
    for override in case.overrides:
        words += ["--set", override]
    for name in ("config", "set"):
        flags.FLAGS[name].unparse()
    capsys.readouterr()
    try:
        code = grid.main(grid.parse(words))
    except SystemExit as error:
        code = error.code
    return code, *capsys.readouterr()


class Work:
    """Counts the calls of functions within it."""

    def __init__(self):
        self.calls = 0

    def note(self, frame, event, argument):
        self.calls += event in ("call", "c_call")

    def __enter__(self):
        sys.setprofile(self.note)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)


def test_work_is_counted():
    with Work() as work:
        for _ in range(1000):
            len(())
    assert 1000 <= work.calls < 1010


def faults(case, code, out, err, calls):
    """What is wrong with the answer to a bad config."""
    lines = err.splitlines()
    tail = case.name.rstrip("/").removesuffix(".toml")[-20:]
    tail = "".join(c if c.isprintable() else repr(c)[1:-1] for c in tail)
    checks = {
        f"exit code {code}": code == 2,
        "something on stdout": out == "",
        "no message": len(lines) >= 2 and all(line.strip() for line in lines),
        "a traceback": "Traceback" not in err,
        f"{len(lines)} lines": len(lines) <= MAX_LINES,
        "a long line": max(map(len, lines), default=0) <= MAX_WIDTH,
        "raw characters": all(c.isprintable() or c == "\n" for c in err),
        "the file is not named": bool(lines) and tail in lines[0],
        f"{case.says!r} is not said": case.says in " ".join(err.split()),
        f"{calls:,} calls": calls < MAX_CALLS,
    }
    return [fault for fault, good in checks.items() if not good]


@pytest.mark.parametrize("num_cases", [140, pytest.param(1000, marks=pytest.mark.slow)])
def test_bad_configs_are_each_one_screen_and_exit_code_2(
    num_cases, tmp_path, capsys, monkeypatch
):
    real = config_lib.load

    def load(path, overrides):
        real(path, overrides)
        raise AcceptedError  # and nothing is trained

    monkeypatch.setattr(config_lib, "load", load)
    rng = random.Random(0)
    seen, count, found = set(), Counter(), []
    for kind in itertools.cycle(KINDS):
        if count.total() == num_cases:
            break
        if count[kind] == RARE.get(kind, num_cases):
            continue
        case = kind(rng)
        if case in seen:
            continue
        seen.add(case)
        try:
            with Work() as work:
                answer = run(tmp_path, case, capsys)
        except AcceptedError:
            if case.sure:
                found.append((kind.__name__, "accepted", case))
            else:
                continue
        except Exception as error:
            found.append((kind.__name__, type(error).__name__, str(error)[:100], case))
        else:
            wrong = faults(case, *answer, work.calls)
            if wrong:
                found.append((kind.__name__, *wrong, answer[2][:300], case))
        count[kind] += 1
    report = "\n".join(str(fault)[:700] for fault in found)
    assert not found, f"{len(found)} of {num_cases}:\n{report}"
    assert min(count.values()) >= 3, count


# Its stack is another one than pytest's, and so is how deep nesting may be.
SAMPLE = (
    nested,
    *(
        pytest.param(k, marks=pytest.mark.slow)
        for k in (random_bytes, unknown_far, bad_override, many_problems)
    ),
)


@pytest.mark.parametrize("kind", SAMPLE, ids=lambda kind: kind.__name__)
def test_the_command_answers_as_it_does_in_this_process(kind, tmp_path):
    case = kind(random.Random(0))
    path = tmp_path / case.name
    path.write_bytes(case.data)
    words = [word for text in case.overrides for word in ("--set", text)]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.grid", "--config", path, *words],
        capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    assert not faults(case, done.returncode, done.stdout, done.stderr, calls=0)


def test_an_endless_file_is_refused():
    with pytest.raises(config_lib.ConfigError, match="larger than 256 KiB"):
        config_lib.load("/dev/zero")


def test_a_member_that_a_large_machine_holds_is_allowed(tmp_path):
    large = config(top="seq_len = 100_000\nhidden_size = 4096\nbatch_size = 100")
    path = tmp_path / "my.toml"
    path.write_bytes(large.data)
    found = config_lib.load(path)
    assert (found.seq_len, found.hidden_size, found.batch_size) == (100_000, 4096, 100)
