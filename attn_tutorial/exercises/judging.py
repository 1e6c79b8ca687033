"""From an answer to a verdict that names the mistake.

Each kind of part has its judge. A judge says whether the answer is right, and if it is
not, which known mistake it is, or what the smallest example is on which it fails.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass

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
    Option,
    Part,
    Several,
)
from attn_tutorial.exercises.languages import say
from attn_tutorial.exercises.limits import CALL_SECONDS
from attn_tutorial.exercises.recognition import recognised

__all__ = ["Report", "Verdict", "judge", "judge_outcomes", "judge_part"]

RETURNS_NONE = "not answered yet: it returns None"


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
            return _labelled(self.id, say("right. {because}", because=self.because))
        if all(finding.passed is None for finding in self.findings):
            what = _waits(self.findings)
            return say("{id} is not answered yet: {what}.", id=self.id, what=what)
        if len(self.findings) == 1:
            return _labelled(self.id, self.findings[0].text)
        lines = (f"  {_labelled(f.name, f.text)}" for f in self.findings)
        return "\n".join([_labelled(self.id, "").rstrip(), *lines])


def _labelled(name: str, text: str) -> str:
    return say("{name}: {text}", name=name, text=text)


def _waits(findings: tuple[Verdict, ...]) -> str:
    """What to do about an exercise without any answer."""
    empty = [f.name for f in findings if f.text == say(RETURNS_NONE)]
    if empty:
        return say("{name} returns None", name=empty[0])
    return say("put your answer in place of the dots")


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
    return Report(exercise.id, tuple(findings), say(exercise.because))


def judge_part(part: Part, answer: object, seed: int = 0) -> Verdict:
    """Judge the answer to one part; the seed draws the cases for functions."""
    if answer is ...:
        return Verdict(part.name, None, say("not answered yet"))
    return JUDGES[type(part)](part, answer, seed)


def _passed(part: Part) -> Verdict:
    return Verdict(part.name, True, say("right"))


def _failed(part: Part, text: str, mistake: str | None = None) -> Verdict:
    return Verdict(part.name, False, text, mistake)


# Numbers.


def _judge_number(part: Number, answer: object, seed: int) -> Verdict:
    number = _number(answer)
    if number is None:
        return _failed(part, say("not a number: {answer}", answer=written(answer)))
    if _near(number, part.value, part.within):
        return _passed(part)
    for value, text in part.wrong.items():
        if _near(number, value, part.within):
            return _failed(part, _not(number, say(text)), text)
    return _failed(part, _not(number, _comparison(number, part.value)))


def _not(answer: object, why: str) -> str:
    return say("not {answer}. {why}", answer=written(answer), why=why)


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
        return say("It is not a number at all.")
    for ratio, text in RATIOS.items():
        if value and _near(number, ratio * value, 0.0):
            return say(text)
    if isinstance(value, int) and abs(number - value) == 1:
        return say("It is off by one.")
    return say("It is too small.") if number < value else say("It is too large.")


# Items.


def _judge_items(part: Items, answer: object, seed: int) -> Verdict:
    got = plain(answer.tolist() if isinstance(answer, Tensor) else answer)
    if isinstance(answer, set | frozenset):
        got = plain(sorted(answer))
    if not isinstance(got, tuple):
        return _failed(part, _no_list(answer))
    if same(got, part.value, part.within):
        return _passed(part)
    for value, text in part.wrong.items():
        if same(got, value, part.within):
            return _failed(part, _not(got, say(text)), text)
    return _failed(part, _first_wrong(got, part))


def _no_list(answer: object) -> str:
    return say("a list was asked for, got {answer}", answer=written(answer))


def _first_wrong(got: tuple, part: Items) -> str:
    if len(got) != len(part.value):
        counts = {"count": len(part.value), "given": len(got)}
        return say("there are {count} of them, not {given}", **counts)
    pairs = enumerate(zip(got, part.value, strict=True))
    place = next(i for i, pair in pairs if not same(*pair, part.within))
    again = say("Look again at place {place} (counted from 0).", place=place)
    return _not(got, again)


def _judge_example(part: Example, answer: object, seed: int) -> Verdict:
    got = plain(answer.tolist() if isinstance(answer, Tensor) else answer)
    if not isinstance(got, tuple):
        return _failed(part, _no_list(answer))
    fault = part.fault(got)
    if fault is None:
        return _passed(part)
    return _failed(part, say("not {answer}: {fault}", answer=written(got), fault=fault))


# Choices.


def _judge_choice(part: Choice, answer: object, seed: int) -> Verdict:
    letter = answer.strip(" ().").lower() if _is_text(answer) else None
    chosen = part.lettered.get(letter)
    if chosen is None:
        letters = ", ".join(part.lettered)
        given = {"letters": letters, "answer": written(answer)}
        return _failed(part, say("choose one of {letters}; got {answer}", **given))
    if chosen.right:
        return _passed(part)
    return _failed(part, _not_letter(answer, chosen), chosen.text)


def _judge_several(part: Several, answer: object, seed: int) -> Verdict:
    letters = _letters(answer)
    if letters is None or not letters <= part.lettered.keys():
        known = ", ".join(part.lettered)
        given = {"letters": known, "answer": written(answer)}
        return _failed(part, say("name some of {letters}; got {answer}", **given))
    for letter in sorted(letters):
        option = part.lettered[letter]
        if not option.right:
            return _failed(part, _not_letter(letter, option), option.text)
    missing = sum(option.right for option in part.options) - len(letters)
    if missing:
        text = say("what you name holds, and {missing} more", missing=missing)
        return _failed(part, text)
    return _passed(part)


def _not_letter(letter: str, option: Option) -> str:
    return say("not ({letter}). {why}", letter=letter, why=say(option.feedback))


def _is_text(answer: object) -> bool:
    return isinstance(answer, str)


def _letters(answer: object) -> set[str] | None:
    if not isinstance(answer, str | list | tuple | set | frozenset):
        return None
    letters = [str(letter).strip(" ().,").lower() for letter in answer]
    return {letter for letter in letters if letter}


# Functions.


def _judge_function(part: Function, answer: object, seed: int) -> Verdict:
    if not callable(answer):
        names = ", ".join(inspect.signature(part.reference).parameters)
        text = "a function of {names} was asked for, got {answer}"
        return _failed(part, say(text, names=names, answer=written(answer)))
    outcomes = []
    for arguments in part.cases(seed):
        outcomes.append(outcome(answer, arguments, CALL_SECONDS))
        if isinstance(outcomes[-1], Fault) and outcomes[-1].kind == "slow":
            break
    return judge_outcomes(part, outcomes, seed)


def judge_outcomes(part: Function, outcomes: list[object], seed: int) -> Verdict:
    """Judge what a function returned for the cases of a seed, in their order.

    Args:
        part: The part that asks for it.
        outcomes: A value or a ``Fault`` for each case; fewer if the last was too slow.
        seed: The seed that drew the cases.

    Raises:
        ValueError: If outcomes are missing, or too many.
    """
    outcomes = [plain(value) for value in outcomes]
    cases = _answered(list(part.cases(seed)), outcomes)
    if all(value is None or value is ... for value in outcomes):
        return Verdict(part.name, None, say(RETURNS_NONE))
    expected = [plain(part.reference(*arguments)) for arguments in cases]
    fits = [
        same(value, want, part.tolerance)
        for value, want in zip(outcomes, expected, strict=True)
    ]
    if all(fits):
        return _passed(part)
    first = fits.index(False)
    call = described(part.name, part.reference, cases[first])
    example = _labelled(call, difference(outcomes[first], expected[first]))
    mistake = recognised(part, cases, outcomes, expected)
    if mistake is None:
        text = "not right. The smallest example: {example}."
        return _failed(part, say(text, example=example))
    name, text = mistake
    text = say("{mistake} {example}.", mistake=say(text), example=example)
    return _failed(part, text, name)


def _answered(cases: list[tuple], outcomes: list[object]) -> list[tuple]:
    """The cases that were called; a submission that left some out is not believed."""
    last = outcomes[-1] if outcomes else None
    stopped = isinstance(last, Fault) and last.kind == "slow"
    if len(outcomes) > len(cases) or (len(outcomes) < len(cases) and not stopped):
        raise ValueError(f"{len(outcomes)} results for {len(cases)} calls")
    return cases[: len(outcomes)]


JUDGES = {
    Number: _judge_number,
    Items: _judge_items,
    Example: _judge_example,
    Choice: _judge_choice,
    Several: _judge_several,
    Function: _judge_function,
    Formula: _judge_function,
}
