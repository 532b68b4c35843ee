"""A person's own arrays as samples: read, checked, divided, and aligned at their ends.

Most people's arrays are batch-first and padded at the end. `Records` are such arrays,
checked. `samples` moves the padding before the sequences, where `types.Batch` has it.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax import losses, types

_FORMS = "a fraction between 0 and 1, (inputs, labels) or (inputs, labels, lengths)"

# What the labels of these losses are, with the axes of arrays that are batch-first.
_LABELS = {
    losses.cross_entropy: ("cross_entropy", "integer classes [N]"),
    losses.squared_error: ("squared_error", "real values [N, Y]"),
    losses.cross_entropy_every_step: (
        "cross_entropy_every_step",
        "integer classes [N, T]",
    ),
    losses.binary_cross_entropy_every_step: (
        "binary_cross_entropy_every_step",
        "0 or 1 [N, T, Y]",
    ),
}
_CLASSES = (losses.cross_entropy, losses.cross_entropy_every_step)
_REALS = (losses.squared_error, losses.binary_cross_entropy_every_step)


class Samples(NamedTuple):
    """A fixed set of samples.

    Attributes:
      size: how many there are.
      take: `(indices [B]) -> Batch`, for indices from 0 to `size` - 1; may be traced.

    Example:
      >>> inputs, labels = jnp.arange(12).reshape(4, 3), jnp.array([0, 1, 0, 1])
      >>> samples = lra_jax.Samples(
      ...     size=4, take=lambda i: lra_jax.Batch(inputs[i].T, labels[i])
      ... )
      >>> samples.take(jnp.array([0, 2])).inputs.tolist()
      [[0, 6], [1, 7], [2, 8]]
    """

    size: int
    take: Callable[[Any], types.Batch]


class Records(NamedTuple):
    """Samples of one part of the data, batch-first and padded at the end.

    Attributes:
      inputs: `[N, T]` integers, or `[N, T, X]` real numbers or small integers.
      labels: `[N]` or `[N, T]` int32, or real `[N, Y]` or `[N, T, Y]`.
      lengths: `[N]` int32, 1 to T; None is T for all.
    """

    inputs: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray | None

    def part(self, indices: np.ndarray) -> Records:
        """The samples of these indices."""
        lengths = None if self.lengths is None else self.lengths[indices]
        return Records(self.inputs[indices], self.labels[indices], lengths)

    @property
    def inside(self) -> np.ndarray:
        """`[N, T]`: true at the steps of a sequence, false where it is padded."""
        count, seq_len = self.inputs.shape[:2]
        if self.lengths is None:
            return np.ones((count, seq_len), bool)
        return np.arange(seq_len) < self.lengths[:, None]


# Reading.


def read(
    inputs: Any,
    labels: Any,
    lengths: Any = None,
    *,
    batch_first: bool,
    output_loss: types.OutputLoss | None,
    where: str = "",
) -> tuple[Records, types.OutputLoss]:
    """Arrays as records, and the loss that their labels are for.

    Args:
      inputs: `[N, T]` or `[N, T, X]`; the first two axes are swapped without
        `batch_first`.
      labels: see `Task.from_arrays`.
      lengths: `[N]`, or None.
      batch_first: whether N is the first axis.
      output_loss: None chooses one by the labels.
      where: the part of the data, for messages, with a space after it.

    Raises:
      ValueError: an argument is not what is expected.
    """
    if not isinstance(batch_first, bool | np.bool_):
        raise ValueError(f"batch_first: expected True or False, got {batch_first!r}")
    if not isinstance(output_loss, types.OutputLoss | None):
        raise ValueError(
            f"output_loss: expected an OutputLoss or None, got {output_loss!r}"
        )
    x = _read_inputs(f"{where}inputs", inputs, batch_first)
    count, seq_len = x.shape[:2]
    steps = None if lengths is None else _read_lengths(f"{where}lengths", lengths, x)
    axes = dict(zip("NTX", x.shape, strict=False))
    if not batch_first:
        axes = {name: axes[name] for name in ("T", "N", *"X"[: x.ndim - 2])}
    reading = (
        f"{where}inputs are read as "
        f"[{', '.join(f'{name} = {size}' for name, size in axes.items())}] "
        f"because batch_first={batch_first}"
    )
    y = _array(f"{where}labels", labels)
    if y.dtype == bool:
        raise ValueError(
            f"{where}labels: expected integers or real numbers, got bool {y.shape}; "
            f"classes 0 and 1 are labels.astype(int)"
        )
    try:
        y, loss = _read_labels(y, count, seq_len, batch_first, output_loss)
    except ValueError as error:
        hint = ""
        if y.shape[:1] == (seq_len,) != (count,):
            hint = (
                f"; with batch_first={not batch_first} they would be read with "
                f"N = {seq_len}, T = {count}"
            )
        raise ValueError(f"{where}labels: {error}; {reading}{hint}") from None
    records = Records(x, y, steps)
    _check_inputs(f"{where}inputs", records)
    return _check_labels(f"{where}labels", records, loss), loss


def _array(name: str, values: Any) -> np.ndarray:
    """Values as an array of integers, real numbers or truth values."""
    if np.ma.is_masked(values):
        raise ValueError(
            f"{name}: expected no masked values; for sequences of different lengths "
            f"give lengths"
        )
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{name}: expected an array, or lists of equal lengths; pad shorter "
            f"sequences at their ends and give lengths; NumPy says: {error}"
        ) from None
    if array.dtype == object:
        raise ValueError(
            f"{name}: expected numbers, got an array of objects {array.shape}; pad "
            f"shorter sequences at their ends and give lengths"
        )
    number = jnp.issubdtype(array.dtype, jnp.integer) or _is_real(array)
    if not number and array.dtype != bool:
        raise ValueError(
            f"{name}: expected numbers, got {array.dtype} {array.shape}"
            + "; names are numbered by np.unique(names, return_inverse=True)[1]"
            * (array.dtype.kind in "SUT")
        )
    return array


def _is_real(array: np.ndarray) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def _is_integer(array: np.ndarray) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.integer))


def _reals(array: np.ndarray) -> np.ndarray:
    """Of JAX's default type of real numbers; what is too large for it is infinite."""
    with np.errstate(over="ignore"):
        return array.astype(jnp.result_type(float))


def _read_inputs(name: str, inputs: Any, batch_first: bool) -> np.ndarray:
    """`[N, T]` integers, or `[N, T, X]` integers or real numbers."""
    x = _array(name, inputs)
    if not (x.ndim == 3 or (x.ndim == 2 and _is_integer(x))):
        first = "N, T" if batch_first else "T, N"
        hint = ""
        if x.ndim == 2:
            hint = (
                f"; symbols are integers, {name}.astype(int), and one number at each "
                f"step is {name}[:, :, None]"
            ).replace(name, "inputs")
        raise ValueError(
            f"{name}: expected [{first}] symbols or [{first}, X] numbers with "
            f"batch_first={batch_first}, got {x.dtype} {x.shape}{hint}"
        )
    if 0 in x.shape:
        raise ValueError(f"{name}: expected no empty axis, got {x.dtype} {x.shape}")
    if not batch_first:
        x = np.swapaxes(x, 0, 1)
    small = _is_integer(x) and x.dtype.itemsize <= 2
    # Small integers are converted when a batch of them is taken.
    return x if x.ndim == 2 or small else _reals(x)


def _read_lengths(name: str, lengths: Any, inputs: np.ndarray) -> np.ndarray:
    """`[N]` int32."""
    count, seq_len = inputs.shape[:2]
    found = _array(name, lengths)
    expected = f"{name}: expected integers [N] = ({count},) from 1 to T = {seq_len}"
    if found.shape != (count,) or not _is_integer(found):
        raise ValueError(f"{expected}, got {found.dtype} {found.shape}")
    wrong = (found < 1) | (found > seq_len)
    if wrong.any():
        raise ValueError(f"{expected}, got {found[wrong][0]} {_place(wrong)}")
    return found.astype(np.int32)


def _read_labels(
    y: np.ndarray,
    count: int,
    seq_len: int,
    batch_first: bool,
    output_loss: types.OutputLoss | None,
) -> tuple[np.ndarray, types.OutputLoss]:
    """Labels, batch-first, and the loss that they are for.

    Raises:
      ValueError: what was expected, got, and may have been meant.
    """
    steps = (count, seq_len) if batch_first else (seq_len, count)
    names = "N, T" if batch_first else "T, N"
    got = f"got {y.dtype} {y.shape}"
    integer = _is_integer(y)
    loss = output_loss
    if loss is None:
        if integer and y.shape == (count,):
            loss = losses.cross_entropy
        elif integer and y.shape == steps:
            if seq_len > 1 and _is_one_hot(y):
                raise ValueError(
                    f"{got}: for one-hot classes give labels.argmax(axis=1), for "
                    f"classes of every step output_loss="
                    f"lra_jax.cross_entropy_every_step"
                )
            loss = losses.cross_entropy_every_step
        elif not integer and y.ndim == 2 and y.shape == steps != (count, 1):
            raise ValueError(
                f"{got}: for classes of every step give labels.astype(int), for "
                f"values [N, Y] of the last step output_loss=lra_jax.squared_error"
            )
        elif not integer and y.ndim == 2 and len(y) == count:
            loss = losses.squared_error
        elif not integer and y.ndim == 3 and y.shape[:2] == steps:
            loss = losses.binary_cross_entropy_every_step
        else:
            raise ValueError(
                f"expected N = {count} integer classes, real values [N, Y], or labels "
                f"of every step [{names}] = {steps}, {got}{_meant(y, steps, count)}"
            )
    fits = {
        losses.cross_entropy: integer and y.shape == (count,),
        losses.squared_error: y.ndim == 2 and len(y) == count,
        losses.cross_entropy_every_step: integer and y.shape == steps,
        losses.binary_cross_entropy_every_step: y.ndim == 3 and y.shape[:2] == steps,
    }
    leading = y.shape[:2] == steps if loss.every_step else y.shape[:1] == (count,)
    if not fits.get(loss, leading) or 0 in y.shape:
        axes = names if loss.every_step else "N"
        name, expected = _LABELS.get(loss, ("output_loss", f"values [{axes}, ...]"))
        raise ValueError(
            f"expected {expected.replace('N, T', names)} of N = {count}"
            f"{f' and T = {seq_len}' if loss.every_step else ''} for {name}, "
            f"{got}{_meant(y, steps, count)}"
        )
    if not integer or loss in _REALS:
        y = _reals(y)
    return (y if batch_first or not loss.every_step else np.swapaxes(y, 0, 1)), loss


def _is_one_hot(y: np.ndarray) -> bool:
    return bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())


def _meant(y: np.ndarray, steps: tuple[int, int], count: int) -> str:
    """What labels of another shape may be, as the end of a message."""
    if y.shape[:2] == steps[::-1] != steps:
        return "; labels of every step have the first two axes of inputs"
    if y.shape == (count,):
        return "; classes are labels.astype(int), and Y = 1 value is labels[:, None]"
    if y.shape == (count, 1) and _is_integer(y):
        return "; classes are labels[:, 0]"
    if y.ndim == 2 and len(y) == count and _is_integer(y):
        return "; one-hot classes are labels.argmax(axis=1)"
    return ""


def _place(wrong: np.ndarray) -> str:
    """Where the first true value of `[N, ...]` is."""
    sample, *rest = np.argwhere(wrong)[0]
    return f"at sample {sample}" + (f", step {rest[0]}" if rest else "")


def _check_inputs(name: str, records: Records) -> None:
    """Raises a ValueError for a value that is no input."""
    x, inside = records.inputs, records.inside
    if x.ndim == 2:
        wrong = ((x < 0) | (x >= 2**31)) & inside
        expected = "symbols from 0 to 2³¹ - 1"
    else:
        wrong = np.logical_and(~np.isfinite(x).all(axis=2), inside)
        expected = f"finite {x.dtype} numbers"
    if wrong.any():
        first = x[tuple(np.argwhere(wrong)[0])]
        value = first if x.ndim == 2 else first[~np.isfinite(first)][0]
        raise ValueError(f"{name}: expected {expected}, got {value} {_place(wrong)}")


def _check_labels(name: str, records: Records, loss: types.OutputLoss) -> Records:
    """Checks the values of labels; those where a sequence is padded ask nothing.

    Raises:
      ValueError: a value is no label.
    """
    y = records.labels
    if loss.every_step:
        inside = records.inside.reshape(records.inside.shape + (1,) * (y.ndim - 2))
        # An unsigned number that is too large stays so.
        signed = np.minimum(y, y.dtype.type(2**31)) if y.dtype == np.uint64 else y
        signed = signed.astype(np.int64) if _is_integer(y) else y
        y = np.where(inside, signed, signed.dtype.type(-1))
    if _is_integer(y):
        least = -(2**31) if loss is not losses.cross_entropy else 0
        wrong = (y < least) | (y >= 2**31)
        expected = "classes from 0 to 2³¹ - 1" if least == 0 else "int32"
    else:
        wrong = ~np.isfinite(y) & (loss in _REALS)
        expected = f"finite {y.dtype} numbers"
    if loss is losses.binary_cross_entropy_every_step and not wrong.any():
        nothing = (y < 0).all(axis=2, keepdims=True)
        wrong = ~((y == 0) | (y == 1) | nothing)
        expected = "0 or 1, or all Y below 0 at a step that asks nothing"
    if wrong.any():
        value = y[tuple(np.argwhere(wrong)[0])]
        axes = wrong.shape[: 1 + loss.every_step]
        at = np.logical_or.reduce(wrong.reshape(*axes, -1), axis=-1)
        raise ValueError(f"{name}: expected {expected}, got {value} {_place(at)}")
    if loss.every_step and (y < 0).all():
        raise ValueError(f"{name}: expected some of at least 0, all are below")
    return records._replace(labels=y.astype(np.int32) if _is_integer(y) else y)


# Sizes.


def _input_size(parts: dict[str, Records], given: int | None) -> int:
    """X: the axis of real numbers, or one more than the largest symbol.

    Args:
      parts: by what messages have before `inputs`: "" for those to train on.
      given: what the caller says.

    Raises:
      ValueError: parts are of different kinds, or `given` does not fit.
    """
    first = parts[""].inputs
    kind = "[N, T] symbols" if first.ndim == 2 else f"[N, T, X = {first.shape[2]}]"
    for where, records in parts.items():
        x = records.inputs
        if x.shape[2:] != first.shape[2:]:
            raise ValueError(
                f"{where}inputs: expected {kind} as in inputs, got {x.dtype}, "
                f"batch-first {x.shape}"
            )
    if first.ndim == 3:
        return _checked("input_size", "inputs", first.shape[2], given)
    highest = {
        f"{where}inputs": np.where(r.inside, r.inputs, 0) for where, r in parts.items()
    }
    return _num_values("input_size", "symbols", highest, given)


def _output_size(
    parts: dict[str, Records], loss: types.OutputLoss, given: int | None
) -> int:
    """Y: the last axis of real labels, or one more than the largest class.

    Args:
      parts: see `_input_size`.
      loss: the task's.
      given: what the caller says.

    Raises:
      ValueError: parts are of different kinds, or `given` does not fit.
    """
    first = parts[""].labels
    axes = 1 + loss.every_step
    for where, records in parts.items():
        if records.labels.shape[axes:] != first.shape[axes:]:
            raise ValueError(
                f"{where}labels: expected {first.shape[axes:]} for each label as in "
                f"labels, got {records.labels.shape[axes:]}"
            )
    if loss in _CLASSES or (loss not in _LABELS and _is_classes(first, axes)):
        labels = {f"{where}labels": r.labels for where, r in parts.items()}
        return _num_values("output_size", "classes", labels, given)
    if loss in _LABELS:
        return _checked("output_size", "labels", first.shape[-1], given)
    if given is None and first.ndim != axes + 1:
        raise ValueError("output_size: expected Y for an output_loss of your own")
    return _positive("output_size", first.shape[-1] if given is None else given)


def _is_classes(labels: np.ndarray, axes: int) -> bool:
    return labels.ndim == axes and _is_integer(labels)


def _positive(name: str, value: Any) -> int:
    integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not integer or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")
    return int(value)


def _checked(name: str, arrays: str, size: int, given: int | None) -> int:
    if given is not None and _positive(name, given) != size:
        raise ValueError(f"{name}: the last axis of {arrays} is {size}, got {given}")
    return size


def _num_values(
    name: str, what: str, arrays: dict[str, np.ndarray], given: int | None
) -> int:
    """One more than the largest value, or what is given if it is no less."""
    if given is None:
        return max(int(x.max()) for x in arrays.values()) + 1
    size = _positive(name, given)
    for array, x in arrays.items():
        wrong = np.greater_equal(x, size)
        if wrong.any():
            raise ValueError(
                f"{array}: expected {what} from 0 to {size - 1} with {name}={size}, "
                f"got {x[wrong][0]} {_place(wrong)}"
            )
    return size


def _seq_len(parts: dict[str, Records]) -> int:
    """T of the task: the most steps that the arrays of a part have.

    Raises:
      ValueError: T differs, and neither part has lengths.
    """
    first = parts[""]
    length = first.inputs.shape[1]
    for where, records in parts.items():
        found = records.inputs.shape[1]
        if found != length and records.lengths is None and first.lengths is None:
            raise ValueError(
                f"{where}inputs: expected T = {length} as in inputs, got {found}; "
                f"sequences of different lengths need lengths"
            )
    return max(records.inputs.shape[1] for records in parts.values())


# Dividing.


def _is_fraction(name: str, value: Any) -> bool:
    """Whether a part is given by a fraction; otherwise by a tuple of arrays.

    Raises:
      ValueError: by neither.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if 0 < float(value) < 1:
            return True
    elif isinstance(value, tuple | list) and len(value) in (2, 3):
        return False
    got = repr(value)
    if not isinstance(value, numbers.Real | str | None):
        size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
        got = f"a {type(value).__name__}{size}"
    raise ValueError(f"{name}: expected {_FORMS}, got {got}")


def divide(
    records: Records, fractions: dict[str, float], seed: int, by_class: bool
) -> list[Records]:
    """Training, and a part for each fraction: always the same for a seed.

    A class with n samples gives fraction · n of them, rounded down or up, so that the
    whole part has as nearly fraction · N as can be. One sample of each class at least
    stays in training.

    Args:
      records: all of them.
      fractions: by the name of the part.
      seed: of the order.
      by_class: whether labels are classes `[N]`.

    Raises:
      ValueError: a part is empty, or `seed` is out of range.
    """
    integer = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not integer or not 0 <= seed < 2**32:
        raise ValueError(f"seed: expected an integer from 0 to 2³² - 1, got {seed!r}")
    count = len(records.inputs)
    classes = records.labels if by_class else np.zeros(count, np.int32)
    order = _order(count, int(seed))
    order = order[np.argsort(classes[order], kind="stable")]  # class after class
    counts = np.unique(classes, return_counts=True)[1]
    begin = np.cumsum(counts) - counts  # of what is left of each class, in `order`
    room = counts - 1
    left = count
    parts = []
    for name, fraction in fractions.items():
        number = round(fraction * count)
        left -= number
        said = f"{name}: a fraction of {fraction} of N = {count} samples"
        if number == 0:
            raise ValueError(f"{said} leaves it empty")
        if left <= 0:
            raise ValueError(f"{said} leaves no sample for training")
        taken = _shares(counts, fraction, number, room)
        if not taken.any():
            raise ValueError(f"{said} leaves it empty: its classes have too few each")
        runs = zip(begin, taken, strict=True)
        parts.append(np.concatenate([order[b : b + n] for b, n in runs]))
        begin, room = begin + taken, room - taken
    rest = np.setdiff1d(np.arange(count), np.concatenate([[], *parts]))
    return [records.part(np.sort(indices)) for indices in (rest, *parts)]


def _order(count: int, seed: int) -> np.ndarray:
    """A random order of `count` indices, by SplitMix64 of seed and index."""
    x = np.arange(count, dtype=np.uint64) + np.uint64(seed << 32)
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(x ^ (x >> np.uint64(31)), kind="stable")


def _shares(
    counts: np.ndarray, fraction: float, number: int, room: np.ndarray
) -> np.ndarray:
    """`number` in parts of fraction · counts each, rounded, and at most `room`."""
    exact = fraction * counts
    shares = np.minimum(np.floor(exact + 1e-9).astype(int), room)
    rest = exact - shares
    may = np.flatnonzero((rest > 1e-9) & (shares < room))
    may = may[np.argsort(-rest[may], kind="stable")]
    shares[may[: max(number - int(shares.sum()), 0)]] += 1
    return shares


def _check_held_out(
    name: str,
    given: Any,
    records: Records,
    other: str,
    other_given: Any,
    other_records: Records,
) -> None:
    """Refuses a part that is another one once more, or some samples of it.

    Args:
      name: of the part.
      given: its inputs, as the caller has them.
      records: the same, read.
      other: name of the part that it must not be.
      other_given: its inputs, as the caller has them.
      other_records: the same, read.

    Raises:
      ValueError: both share memory, are equal, or all samples of the part are among
        those of the other one, which are all different.
    """
    said = f"{name}: expected data that are held out, got "
    if given is other_given:
        raise ValueError(f"{said}the {other} inputs themselves")
    if _share_memory(np.asarray(given), np.asarray(other_given)):
        raise ValueError(f"{said}inputs that share memory with the {other} inputs")
    if np.array_equal(records.inputs, other_records.inputs):
        raise ValueError(f"{said}a copy of the {other} inputs")
    known = set(map(hash, _rows(other_records)))
    distinct = len(known) == len(other_records.inputs)
    if distinct and known.issuperset(map(hash, _rows(records))):
        raise ValueError(f"{said}samples that are all among the {other} samples")


def _share_memory(a: np.ndarray, b: np.ndarray) -> bool:
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return False


def _rows(records: Records) -> Iterator[bytes]:
    """Each sequence, without what it is padded with."""
    dtype = np.int32 if records.inputs.ndim == 2 else np.float32
    for index, x in enumerate(records.inputs):
        length = len(x) if records.lengths is None else records.lengths[index]
        yield x[:length].astype(dtype).tobytes()


# Samples.


class Parts(NamedTuple):
    """Arrays that are read and divided, and what is known of them.

    Attributes:
      training: to train on.
      validation: held out.
      test: held out as well; None where none was asked for.
      output_loss: E.
      input_size: X.
      output_size: Y.
      seq_len: T.
      chance: the share of the validation part that a constant answer gets right.
    """

    training: Samples
    validation: Samples
    test: Samples | None
    output_loss: types.OutputLoss
    input_size: int
    output_size: int
    seq_len: int
    chance: float


def parts(
    inputs: Any,
    labels: Any,
    lengths: Any,
    held_out: dict[str, Any],
    *,
    batch_first: bool,
    output_loss: types.OutputLoss | None,
    seed: int,
    input_size: int | None,
    output_size: int | None,
) -> Parts:
    """All that `Task.from_arrays` does, but for the task.

    Args:
      inputs: see `Task.from_arrays`, as for all others.
      labels: of all samples that are no arrays of `held_out`.
      lengths: or None.
      held_out: fractions or arrays of "validation", and of "test" if it is wanted.
      batch_first: whether N is the first axis.
      output_loss: None chooses one by the labels.
      seed: of the division.
      input_size: X, or None.
      output_size: Y, or None.

    Raises:
      ValueError: see `Task.from_arrays`.
    """
    whole, loss = read(
        inputs, labels, lengths, batch_first=batch_first, output_loss=output_loss
    )
    fractions = {n: float(x) for n, x in held_out.items() if _is_fraction(n, x)}
    given = {name: x for name, x in held_out.items() if name not in fractions}
    found = {
        name: read(*x, batch_first=batch_first, output_loss=loss, where=f"{name} ")[0]
        for name, x in given.items()
    }
    named = {"": whole} | {f"{name} ": records for name, records in found.items()}
    sizes = (
        _input_size(named, input_size),
        _output_size(named, loss, output_size),
        _seq_len(named),
    )
    others = {"training": (inputs, whole)}
    for name, records in found.items():
        mine = (given[name][0], records)
        for other, theirs in others.items():
            _check_held_out(name, *mine, other, *theirs)
        others[name] = mine
    training, *taken = divide(whole, fractions, seed, loss == losses.cross_entropy)
    found |= dict(zip(fractions, taken, strict=True))
    on_device = {name: samples(x, loss, sizes[2]) for name, x in found.items()}
    return Parts(
        samples(training, loss, sizes[2]),
        on_device["validation"],
        on_device.get("test"),
        loss,
        *sizes,
        chance=_chance(found["validation"], loss, training),
    )


def samples(records: Records, loss: types.OutputLoss, seq_len: int) -> Samples:
    """The records on the device, aligned at their ends.

    Args:
      records: of one part.
      loss: the task's.
      seq_len: T of the task, at least that of the records.
    """
    count, length = records.inputs.shape[:2]
    x, y, lengths = records
    start = None
    if lengths is not None or length < seq_len:
        lengths = np.full(count, length, np.int32) if lengths is None else lengths
        start = seq_len - lengths
        x = _align(x, start, seq_len, 0)
        y = _align(y, start, seq_len, -1) if loss.every_step else y
    dtype = jnp.int32 if x.ndim == 2 else jnp.result_type(float)
    if x.dtype.itemsize > 2:
        x = x.astype(dtype)
    inputs, labels = jnp.asarray(x), jnp.asarray(y)
    begin = None if start is None else jnp.asarray(start)

    def take(indices: Any) -> types.Batch:
        if not isinstance(indices, jax.Array):
            found = indices = np.asarray(indices)
            if not _is_integer(found):
                raise ValueError(f"indices: expected integers, got {found.dtype}")
            if ((found < 0) | (found >= count)).any():
                raise ValueError(
                    f"indices: expected 0 to {count - 1}, got {found.min()} to "
                    f"{found.max()}"
                )
        answers = labels[indices]
        return types.Batch(
            inputs=jnp.swapaxes(inputs[indices], 0, 1).astype(dtype),
            labels=jnp.swapaxes(answers, 0, 1) if loss.every_step else answers,
            start=None if begin is None else begin[indices],
        )

    return Samples(count, take)


def _align(x: np.ndarray, start: np.ndarray, seq_len: int, before: int) -> np.ndarray:
    """Sequences of `[N, T, ...]` that begin at step 0, so that they begin at `start`.

    Args:
      x: of steps 0 to `seq_len` - `start` - 1, and whatever after them.
      start: `[N]`.
      seq_len: T of what is returned.
      before: the value of the steps before `start`.
    """
    step = np.arange(seq_len) - start[:, None]  # [N, T], in x
    moved = x[np.arange(len(x))[:, None], np.maximum(step, 0)]
    empty = (step < 0).reshape(step.shape + (1,) * (x.ndim - 2))
    return np.where(empty, x.dtype.type(before), moved)


def _chance(records: Records, loss: types.OutputLoss, training: Records) -> float:
    """The share of samples that a constant answer gets right; 0 where none is known.

    The answer is the most frequent class, for `squared_error` the mean of the training
    labels, for `binary_cross_entropy_every_step` each output's more frequent value.
    """
    y = records.labels
    if loss in _CLASSES:
        most = np.bincount(y[y >= 0], minlength=1).argmax()
        right = (y == most) | (y < 0)
    elif loss is losses.squared_error:
        right = (y - training.labels.mean(axis=0)) ** 2 <= 0.04
    elif loss is losses.binary_cross_entropy_every_step:
        right = (y == ((y == 1).sum(axis=(0, 1)) > (y == 0).sum(axis=(0, 1)))) | (y < 0)
    else:
        return 0.0
    return float(right.reshape(len(y), -1).all(axis=1).mean())
