"""What a paragraph and its translation must have in common, and what they then lack.

Formulas, code, targets of links and roles, and all numbers are the same in both, in any
order. A number may be written in words: "three" is 三 or 3, "131 thousand" is 13.1 万.
"""

from __future__ import annotations

import re
from collections import Counter

from markdown_it import MarkdownIt

__all__ = ["faults", "numbers"]

KINDS = {
    "formula": re.compile(r"\$\$?([^$]+)\$\$?"),
    "role": re.compile(r"(\{[\w:]+\}`(?:[^`<]*<)?[^`>]*)>?`"),
    "code": re.compile(r"(?<!\})`([^`]+)`"),
    "placeholder": re.compile(r"(\{\w*(?::\w+)?\})"),
    "link": re.compile(r"\]\(([^)\s]+)\)"),
    "tag": re.compile(r"(</?[a-z][^>]*>)"),
}
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
TIMES = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "千": 1e3, "万": 1e4}
TIMES |= {"百万": 1e6, "亿": 1e8}
WITH_UNIT = re.compile(
    rf"({NUMBER.pattern}) ?({'|'.join(sorted(TIMES, key=len)[::-1])})?"
)
ONES = "one two three four five six seven eight nine ten eleven twelve thirteen".split()
ONES += "fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
IN_WORDS = re.compile(
    rf"\b(?:({'|'.join(TENS)})(?:-({'|'.join(ONES[:9])}))?|({'|'.join(ONES)}|ones))\b",
    re.I,
)
DIGITS = "一二三四五六七八九"


def faults(source: str, translation: str) -> list[str]:
    """What is wrong with a translation, in words; empty if nothing is."""
    found = [fault for kind in KINDS for fault in _unequal(kind, source, translation)]
    words = _in_words(source)
    here, there = numbers(source), numbers(translation)
    for value in there - here:  # what English says in words may stand in digits
        there[value] = here[value] if value in words else there[value]
    found += _differences("number", here, there)
    missing = [value for value in words if value > 2 and not _says(translation, value)]
    found += [f"number in words: {value:g} is missing" for value in missing]
    return found + _unset(translation)


def _unequal(kind: str, source: str, translation: str) -> list[str]:
    here, there = (Counter(map(_target, _of(kind, x))) for x in (source, translation))
    return _differences(kind, here, there)


def _of(kind: str, text: str) -> list[str]:
    for other in list(KINDS)[: list(KINDS).index(kind)]:
        text = KINDS[other].sub(" ", text) if other != "link" else text
    return KINDS[kind].findall(text)


def _target(text: str) -> str:
    """A role without its words: both ``{doc}`words <page>``` and ``{doc}`page```."""
    role, _, rest = text.partition("`")
    return f"{role}`{rest.rpartition('<')[2]}" if text.startswith("{") else text


def _differences(kind: str, here: Counter, there: Counter) -> list[str]:
    lost = [f"{kind} {text!r} is missing" for text in (here - there).elements()]
    return lost + [f"{kind} {text!r} is added" for text in (there - here).elements()]


def _bare(text: str) -> str:
    """The words alone: no formulas, code, targets of links and roles, tags."""
    for kind in KINDS:
        text = KINDS[kind].sub(" ", text)
    return text


def numbers(text: str) -> Counter:
    """The values of the numbers in digits, outside of formulas, code and links."""
    pairs = WITH_UNIT.findall(_bare(text))
    return Counter(
        round(float(number.replace(",", "")) * TIMES.get(unit, 1), 9)
        for number, unit in pairs
    )


def _in_words(text: str) -> list[float]:
    """The values of English number words."""
    return [
        float((TENS.index(tens.lower()) + 2) * 10 if tens else 0)
        + (ONES.index((ones or more).lower().rstrip("s")) + 1 if ones or more else 0)
        for tens, ones, more in IN_WORDS.findall(_bare(text))
    ]


def _says(text: str, value: float) -> bool:
    tens, ones = divmod(int(value), 10)
    written = ("十" if tens == 1 else DIGITS[tens - 1] + "十") if tens else ""
    written += DIGITS[ones - 1] if ones else ""
    return written in text or numbers(text)[value] > 0


def _unset(translation: str) -> list[str]:
    """Stars that no reader should see: between Chinese letters ** may fail to open."""
    text = KINDS["formula"].sub("公式", translation)
    text = KINDS["role"].sub("名称", text)
    shown = MarkdownIt("commonmark").parseInline(text)[0].children
    text = " ".join(token.content for token in shown if token.type == "text")
    return ["emphasis is not set"] if re.search(r"\*\S|\S\*", text) else []
