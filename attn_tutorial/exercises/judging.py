"""From an answer to a verdict that names the mistake.

Each kind of part has its judge. A judge says whether the answer is right, and if it is
not, which known mistake it is, or what the smallest example is on which it fails.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attn_tutorial.exercises.calls import (
    Fault,
    described,
    difference,
    outcome,
    plain,
    same,
    written,
)
from attn_tutorial.exercises.exercise import (
    Choice,
    Example,
    Exercise,
    Formula,
    Function,
    Items,
    Number,
    Part,
    Several,
)

__all__ = ["Report", "Verdict", "judge", "judge_outcomes", "judge_part"]

RETURNS_NONE = "returns None"
SECONDS = 2.0  # for one call of somebody's function


@dataclass(frozen=True)
class Verdict:
    """What is said of one part of an answer.

    Attributes:
        name: The part's name.
        passed: Whether it is right; None if there is no answer yet.
        text: The verdict in words, with the mistake and the smallest example.
        mistake: The name of the known mistake, if it is one.
    """

    name: str
    passed: bool | None
    text: str
    mistake: str | None = None


@dataclass(frozen=True)
class Report:
    """What is said of an answer; prints as text."""

    id: str
    findings: tuple[Verdict, ...]
    because: str

    @property
    def passed(self) -> bool:
        """Whether all parts are right."""
        return all(finding.passed for finding in self.findings)

    def __repr__(self) -> str:
        if self.passed:
            return f"{self.id}: right. {self.because}"
        if all(finding.passed is None for finding in self.findings):
            return f"{self.id} is not answered yet: {_waits(self.findings)}."
        if len(self.findings) == 1:
            return f"{self.id}: {self.findings[0].text}"
        lines = (f"  {finding.name}: {finding.text}" for finding in self.findings)
        return "\n".join([f"{self.id}:", *lines])


def _waits(findings: tuple[Verdict, ...]) -> str:
    """What to do about an exercise without any answer."""
    empty = [f.name for f in findings if f.text.endswith(RETURNS_NONE)]
    if empty:
        return f"{empty[0]} {RETURNS_NONE}"
    return "put your answer in place of the dots"


def judge(exercise: Exercise, answers: Mapping[str, object]) -> Report:
    """Judge the answers to all parts of an exercise.

    Args:
        exercise: What was asked.
        answers: Answers by the names of the parts; one that is missing or ``...`` is
            not answered yet.

    Raises:
        TypeError: If there is no part of a given name.
    """
    names = [part.name for part in exercise.parts]
    unknown = sorted(answers.keys() - set(names))
    if unknown:
        raise TypeError(
            f"{exercise.id} asks for {', '.join(names)}, got {', '.join(unknown)}"
        )
    findings = (judge_part(p, answers.get(p.name, ...)) for p in exercise.parts)
    return Report(exercise.id, tuple(findings), exercise.because)


def judge_part(part: Part, answer: object, seed: int = 0) -> Verdict:
    """Judge the answer to one part; the seed draws the cases for functions."""
    if answer is ...:
        return Verdict(part.name, None, "not answered yet")
    return JUDGES[type(part)](part, answer, seed)


def _passed(part: Part) -> Verdict:
    return Verdict(part.name, True, "right")


def _failed(part: Part, text: str, mistake: str | None = None) -> Verdict:
    return Verdict(part.name, False, text, mistake)


# Numbers.


def _judge_number(part: Number, answer: object, seed: int) -> Verdict:
    number = _number(answer)
    if number is None:
        return _failed(part, f"not a number: {written(answer)}")
    if _near(number, part.value, part.within):
        return _passed(part)
    for value, text in part.wrong.items():
        if _near(number, value, part.within):
            return _failed(part, f"not {written(number)}. {text}", text)
    return _failed(part, f"not {written(number)}. {_comparison(number, part.value)}")


def _number(answer: object) -> float | None:
    answer = plain(answer)
    if isinstance(answer, Tensor) and answer.numel() == 1:
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return None
    return answer


def _near(number: float, value: float, tolerance: float) -> bool:
    return abs(number - value) <= tolerance + 1e-9 * abs(value)


RATIOS = {
    2: "It is exactly twice the right value.",
    1 / 2: "It is exactly half of the right value.",
    4: "It is exactly four times the right value.",
    1 / 4: "It is exactly a quarter of the right value.",
    100: "A share was asked for, and this looks like percent.",
    -1: "The sign is wrong.",
}


def _comparison(number: float, value: float) -> str:
    if math.isnan(number):
        return "It is not a number at all."
    for ratio, text in RATIOS.items():
        if value and _near(number, ratio * value, 0.0):
            return text
    if isinstance(value, int) and abs(number - value) == 1:
        return "It is off by one."
    return "It is too small." if number < value else "It is too large."


# Items.


def _judge_items(part: Items, answer: object, seed: int) -> Verdict:
    got = plain(answer.tolist() if isinstance(answer, Tensor) else answer)
    if isinstance(answer, set | frozenset):
        got = plain(sorted(answer))
    if not isinstance(got, tuple):
        return _failed(part, f"a list was asked for, got {written(answer)}")
    if same(got, part.value, part.within):
        return _passed(part)
    for value, text in part.wrong.items():
        if same(got, value, part.within):
            return _failed(part, f"not {written(got)}. {text}", text)
    return _failed(part, _first_wrong(got, part))


def _first_wrong(got: tuple, part: Items) -> str:
    if len(got) != len(part.value):
        return f"there are {len(part.value)} of them, not {len(got)}"
    pairs = enumerate(zip(got, part.value, strict=True))
    place = next(i for i, pair in pairs if not same(*pair, part.within))
    return f"not {written(got)}. Look again at place {place} (counted from 0)."


def _judge_example(part: Example, answer: object, seed: int) -> Verdict:
    got = plain(answer.tolist() if isinstance(answer, Tensor) else answer)
    if not isinstance(got, tuple):
        return _failed(part, f"a list was asked for, got {written(answer)}")
    fault = part.fault(got)
    return _failed(part, f"not {written(got)}: {fault}") if fault else _passed(part)


# Choices.


def _judge_choice(part: Choice, answer: object, seed: int) -> Verdict:
    chosen = part.lettered.get(answer.strip().lower()) if _is_text(answer) else None
    if chosen is None:
        letters = ", ".join(part.lettered)
        return _failed(part, f"choose one of {letters}; got {written(answer)}")
    if chosen.right:
        return _passed(part)
    return _failed(part, f"not ({answer}). {chosen.feedback}", chosen.text)


def _judge_several(part: Several, answer: object, seed: int) -> Verdict:
    letters = _letters(answer)
    if letters is None or not letters <= part.lettered.keys():
        known = ", ".join(part.lettered)
        return _failed(part, f"name some of {known}; got {written(answer)}")
    for letter in sorted(letters):
        option = part.lettered[letter]
        if not option.right:
            return _failed(part, f"not ({letter}). {option.feedback}", option.text)
    missing = sum(option.right for option in part.options) - len(letters)
    if missing:
        return _failed(part, f"what you name holds, and {missing} more")
    return _passed(part)


def _is_text(answer: object) -> bool:
    return isinstance(answer, str)


def _letters(answer: object) -> set[str] | None:
    if not isinstance(answer, str | list | tuple | set | frozenset):
        return None
    letters = [str(letter).lower() for letter in answer]
    return {letter for letter in letters if letter not in " ,"}


# Functions.


def _judge_function(part: Function, answer: object, seed: int) -> Verdict:
    if not callable(answer):
        names = ", ".join(inspect.signature(part.reference).parameters)
        asked = f"a function of {names} was asked for"
        return _failed(part, f"{asked}, got {written(answer)}")
    outcomes = []
    for arguments in part.cases(seed):
        outcomes.append(outcome(answer, arguments, SECONDS))
        if isinstance(outcomes[-1], Fault) and outcomes[-1].kind == "slow":
            break
    return judge_outcomes(part, outcomes, seed)


def judge_outcomes(part: Function, outcomes: list[object], seed: int) -> Verdict:
    """Judge what a function returned for the cases of a seed, in their order.

    Args:
        part: The part that asks for it.
        outcomes: A value or a ``Fault`` for each case; fewer if it was stopped.
        seed: The seed that drew the cases.
    """
    outcomes = [plain(value) for value in outcomes]
    if all(value is None or value is ... for value in outcomes):
        return Verdict(part.name, None, f"not answered yet: it {RETURNS_NONE}")
    cases = list(part.cases(seed))[: len(outcomes)]
    expected = [plain(part.reference(*arguments)) for arguments in cases]
    fits = [
        same(value, want, part.tolerance)
        for value, want in zip(outcomes, expected, strict=True)
    ]
    if all(fits):
        return _passed(part)
    first = fits.index(False)
    example = (
        f"{described(part.name, part.reference, cases[first])}: "
        f"{difference(outcomes[first], expected[first])}"
    )
    mistake = _recognised(part, cases, outcomes, expected)
    if mistake is None:
        return _failed(part, f"not right. The smallest example: {example}.")
    name, text = mistake
    return _failed(part, f"{text} {example}.", name)


def _recognised(
    part: Function, cases: list, outcomes: list, expected: list
) -> tuple[str, str] | None:
    for mistake in part.mistakes:
        theirs = [outcome(mistake.function, case, SECONDS) for case in cases]
        if _agree(outcomes, theirs, part.tolerance):
            return mistake.name, mistake.text
    return _told_by_shape(outcomes, expected, part.tolerance)


def _agree(outcomes: list, others: list, tolerance: float) -> bool:
    pairs = zip(outcomes, others, strict=True)
    return all(same(a, b, tolerance) for a, b in pairs)


def _told_by_shape(
    outcomes: list, expected: list, tolerance: float
) -> tuple[str, str] | None:
    """Mistakes that any function can make."""
    for name, (text, change) in CHANGES.items():
        changed = [change(want) for want in expected]
        differ = not _agree(changed, expected, tolerance)
        if differ and _agree(outcomes, changed, tolerance):
            return name, text
    return None


def _of_tensors(change: Callable[[Tensor], Tensor]) -> Callable[[object], object]:
    return lambda x: change(x) if isinstance(x, Tensor) else x


def _transposed(x: Tensor) -> Tensor:
    return x.mT if x.ndim >= 2 else x


def _inverted(x: Tensor) -> Tensor:
    return ~x if x.dtype == torch.bool else x


CHANGES = {
    "transposed": (
        "This is the transpose: queries and keys have changed places.",
        _of_tensors(_transposed),
    ),
    "inverted": (
        "Keep and ignore are inverted: True means attend.",
        _of_tensors(_inverted),
    ),
    "integers": (
        "The mask has numbers where it should have truth values: use a comparison, "
        "or .bool().",
        _of_tensors(lambda x: x.long() if x.dtype == torch.bool else x),
    ),
    "floats": (
        "The mask has numbers where it should have truth values: use a comparison, "
        "or .bool().",
        _of_tensors(lambda x: x.float() if x.dtype == torch.bool else x),
    ),
    "negative": (
        "The sign is wrong everywhere.",
        _of_tensors(lambda x: -x if x.is_floating_point() else x),
    ),
    "single precision": (
        "The values are right and their precision is lost: the result must have the "
        "dtype of the input.",
        _of_tensors(lambda x: x.float() if x.dtype == torch.float64 else x),
    ),
}

JUDGES = {
    Number: _judge_number,
    Items: _judge_items,
    Example: _judge_example,
    Choice: _judge_choice,
    Several: _judge_several,
    Function: _judge_function,
    Formula: _judge_function,
}
