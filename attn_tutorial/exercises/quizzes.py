"""The quiz of a chapter as Markdown that needs no script.

Each option is a ``details`` element: opening it is choosing it, by mouse, by keyboard
or by screen reader, and what it holds is the word on that option.
"""

from __future__ import annotations

import re

from attn_tutorial.exercises.collection import quiz
from attn_tutorial.exercises.exercise import Option, Question

__all__ = ["in_html", "quiz_markdown"]

SIGNS = {
    r"\cdot": "·",
    r"\times": "×",
    r"\le": "≤",
    r"\ge": "≥",
    r"\beta": "β",
    r"\sigma": "σ",
    r"\,": " ",
}


def quiz_markdown(chapter: str) -> str:
    """The section "Check yourself" of a chapter.

    Raises:
        KeyError: If there is no such chapter.
    """
    head = "## Check yourself\n\nOpen the answer that you would give."
    asked = (_question(q, n) for n, q in enumerate(quiz(chapter), start=1))
    return "\n\n".join([head, *asked])


def _question(question: Question, number: int) -> str:
    options = "\n\n".join(map(_option, question.options))
    return f"**{number}.** {question.text}\n\n{options}"


def _option(option: Option) -> str:
    kind = "choice right" if option.right else "choice"
    verdict = "Right." if option.right else "No."
    summary = f'<details class="{kind}"><summary>{in_html(option.text)}</summary>'
    return f"{summary}\n\n{verdict} {option.feedback}\n\n</details>"


def in_html(text: str) -> str:
    """A short text with code and simple formulas as HTML: Markdown stops in a summary.

    Example:
        >>> in_html("`k` has $n^2$ rows, at most")
        'k has n<sup>2</sup> rows, at most'
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = text.replace("`", "")
    return re.sub(r"\$([^$]+)\$", lambda match: _formula(match[1]), text)


def _formula(text: str) -> str:
    for sign, letter in SIGNS.items():
        text = re.sub(re.escape(sign) + r"(?![a-z])", letter, text)
    text = re.sub(r"\\text\{([^}]*)\}", r"\1", text)
    return re.sub(r"\^(?:\{([^}]*)\}|(\d))", r"<sup>\1\2</sup>", text)
