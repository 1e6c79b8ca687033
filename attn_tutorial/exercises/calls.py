"""Calls of somebody's function: what came out, whether it is right, and how to say it.

An outcome is a value or a fault. Faults are exceptions, a time limit that was passed,
and arguments that were changed.
"""

from __future__ import annotations

import copy
import inspect
import io
import math
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass

import torch
from torch import Tensor

from attn_tutorial.exercises.languages import say
from attn_tutorial.exercises.limits import PATIENCE, TooLong, TooSlow, within

__all__ = [
    "LONGEST",
    "Fault",
    "described",
    "difference",
    "outcome",
    "plain",
    "same",
    "written",
]

BEYOND = 2**1000
LONGEST = 1000  # items of a list, characters of a text
FILE = "<answer>"  # what a grader compiles cells as; notebooks have names of their own


@dataclass(frozen=True)
class Fault:
    """No value came out.

    Attributes:
        kind: "error", "slow" or "changed".
        text: What happened, in words.
    """

    kind: str
    text: str


class _Bounded(io.StringIO):
    """Takes what a function prints, and forgets all but the first 10,000 characters."""

    def write(self, text: str) -> int:
        if self.tell() < 10_000:
            super().write(text[:10_000])
        return len(text)


def outcome(function: Callable, arguments: tuple, seconds: float) -> object:
    """Call a function on copies of the arguments; return its value, or a ``Fault``.

    It may compute for so many seconds, and ``PATIENCE`` times as long by the clock.
    """
    given = copy.deepcopy(arguments)
    try:
        with redirect_stdout(_Bounded()), within(seconds):
            value = function(*given)
    except TooLong:
        text = (
            "no answer within {wall:g} s, and less than {seconds:g} s of them were "
            "spent computing: does it sleep, or wait for something? If not, this "
            "machine is busy, and you should try again"
        )
        return Fault("slow", say(text, seconds=seconds, wall=PATIENCE * seconds))
    except TooSlow:
        text = "no answer after {seconds:g} s of computing: a loop that never ends?"
        return Fault("slow", say(text, seconds=seconds))
    except (Exception, SystemExit) as error:
        return Fault("error", _told(error))
    if not same(given, arguments, 0.0):
        return Fault("changed", say("changes its input; work on a copy"))
    return value


def _told(error: BaseException) -> str:
    first = (str(error).splitlines() or [""])[0][:200]
    name = f"{type(error).__name__}: {first}" if first else type(error).__name__
    lines = traceback.extract_tb(error.__traceback__)
    theirs = [line for line in lines if "attn_tutorial/exercises" not in line.filename]
    source = theirs[-1].line if theirs else None
    return say("{error} (in: {source})", error=name, source=source) if source else name


def plain(value: object) -> object:
    """Numbers of any library as Python's, lists as tuples, tensors on the processor.

    A whole number beyond all floats becomes infinite, so that it can be compared.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, int) and abs(value) >= BEYOND:
        return math.inf if value > 0 else -math.inf
    if isinstance(value, range):
        return tuple(value[: LONGEST + 1])
    if isinstance(value, list | tuple):
        return tuple(plain(part) for part in value)
    if hasattr(value, "dtype") and hasattr(value, "item"):  # NumPy's
        return plain(value.item()) if value.ndim == 0 else plain(value.tolist())
    return value


def _alike(got: object, want: object) -> tuple[object, object]:
    """Both in plain form; a tensor of no axes is a number where a number came."""
    got, want = plain(got), plain(want)
    if isinstance(want, Tensor) and want.ndim == 0 and isinstance(got, int | float):
        want = want.item()
    return got, want


def same(got: object, want: object, tolerance: float) -> bool:
    """Whether two outcomes are equal: values within a tolerance, and types that fit.

    A tensor of one number may stand for the number and the number for it, a list for a
    tuple, and ``torch.tensor([])`` for any tensor without entries.
    """
    got, want = _alike(got, want)
    if isinstance(got, Fault) or isinstance(want, Fault):
        kinds = [x.kind if isinstance(x, Fault) else None for x in (got, want)]
        return kinds[0] == kinds[1]
    if isinstance(want, Tensor):
        return isinstance(got, Tensor) and _same_tensors(got, want, tolerance)
    if isinstance(got, Tensor) and got.ndim <= 1 and not isinstance(want, str):
        got = plain(got.tolist())
    if isinstance(want, tuple):
        return (
            isinstance(got, tuple)
            and len(got) == len(want)
            and all(same(a, b, tolerance) for a, b in zip(got, want, strict=True))
        )
    return _same_values(got, want, tolerance)


def _same_tensors(got: Tensor, want: Tensor, tolerance: float) -> bool:
    if want.numel() == 0 and got.shape == (0,):
        return True
    if got.shape != want.shape or got.dtype != want.dtype:
        return False
    if not want.is_floating_point():
        return torch.equal(got, want)
    return torch.allclose(got, want, rtol=tolerance, atol=tolerance, equal_nan=True)


def _same_values(got: object, want: object, tolerance: float) -> bool:
    if isinstance(want, bool) or isinstance(got, bool):
        return isinstance(got, bool) and got is want
    numbers = isinstance(got, int | float) and isinstance(want, int | float)
    if not numbers:
        return type(got) is type(want) and got == want
    if math.isnan(got) or math.isnan(want):
        return math.isnan(got) and math.isnan(want)
    return got == want or abs(got - want) <= tolerance * max(1.0, abs(want))


# In words.


def written(value: object) -> str:
    """A value as a reader would write it down, short."""
    value = plain(value)
    if isinstance(value, Tensor):
        if value.numel() > (9 if value.dtype == torch.bool else 4) or value.ndim > 2:
            return f"<{', '.join(map(str, value.shape))}>"
        return written(value.tolist())
    if isinstance(value, tuple):
        inside = ", ".join(map(written, value[:12])) + (", ..." * (len(value) > 12))
        return f"[{inside}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def described(name: str, function: Callable, arguments: tuple) -> str:
    """A call in words, such as "f(n=4, w=1)"."""
    names = inspect.signature(function).parameters
    pairs = zip(names, arguments, strict=False)
    return f"{name}({', '.join(f'{key}={written(value)}' for key, value in pairs)})"


def difference(got: object, want: object) -> str:
    """The first place where two outcomes differ, in words."""
    got, want = _alike(got, want)
    if isinstance(got, Fault):
        return got.text
    if isinstance(want, Tensor):
        return _tensor_difference(got, want)
    if isinstance(want, tuple) and any(isinstance(part, Tensor) for part in want):
        return _part_difference(got, want)
    if isinstance(got, type(want)) or isinstance(got, int | float | Tensor):
        return _gives(written(got), written(want))
    kind, given = type(got).__name__, written(got)
    return _gives(say("{given} (a {kind})", given=given, kind=kind), written(want))


def _gives(given: object, expected: object) -> str:
    return say("gives {given}, expected {expected}", given=given, expected=expected)


def _part_difference(got: object, want: tuple) -> str:
    if not isinstance(got, tuple) or len(got) != len(want):
        counts = {"count": len(want), "given": written(got)}
        return say("expected {count} things, got {given}", **counts)
    pairs = enumerate(zip(got, want, strict=True))
    place = next(i for i, pair in pairs if not same(*pair, 1e-5))
    found = difference(got[place], want[place])
    return say("part {place} of the result: {found}", place=place, found=found)


def _tensor_difference(got: object, want: Tensor) -> str:
    if isinstance(got, tuple) and any(isinstance(part, Tensor) for part in got):
        return say("gives {count} things, expected one tensor", count=len(got))
    if isinstance(got, tuple):
        return say("gives a list or an array of NumPy, expected a tensor")
    if not isinstance(got, Tensor):
        return _gives(written(got), say("a tensor"))
    if got.shape != want.shape:
        return _gives(say("shape {shape}", shape=tuple(got.shape)), tuple(want.shape))
    if got.dtype != want.dtype:
        return _gives(got.dtype, want.dtype)
    if want.dtype == torch.bool and want.ndim == 2:
        return _row_difference(got, want)
    wrong = ~torch.isclose(got.double(), want.double(), rtol=1e-5, atol=1e-5)
    place = tuple(wrong.nonzero()[0].tolist()) if wrong.any() else (0,) * want.ndim
    index = ", ".join(map(str, place))
    where = say("entry {index}", index=index) if place else say("the result")
    values = {"given": written(got[place].item())}
    values["expected"] = written(want[place].item())
    return say("{where} is {given}, expected {expected}", where=where, **values)


def _row_difference(got: Tensor, want: Tensor) -> str:
    row = int((got != want).any(-1).nonzero()[0])
    mine, right = (keep[row].nonzero().flatten().tolist() for keep in (got, want))
    sees = ", ".join(map(str, mine)) or say("nothing")
    expected = ", ".join(map(str, right)) or say("nothing")
    text = "position {row} sees {sees}, expected {expected}"
    return say(text, row=row, sees=sees, expected=expected)
