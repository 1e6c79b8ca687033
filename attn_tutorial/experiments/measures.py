"""How good a text is: distances to the right one, marks found, words repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

__all__ = ["chrf", "edit_distance", "error_rate", "marks_f1", "repeated"]

Span = tuple[int, int, Hashable]


def edit_distance(found: Sequence, wanted: Sequence) -> int:
    """Fewest insertions, deletions and replacements that turn one into the other.

    Example:
        >>> edit_distance("kitten", "sitting")
        3
    """
    row = list(range(len(wanted) + 1))
    for i, a in enumerate(found, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(wanted, 1):
            above, row[j] = row[j], min(above + (a != b), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def error_rate(found: Iterable[Sequence], wanted: Sequence[Sequence]) -> float:
    """Edit distance over the length of what is wanted, over all texts together.

    Of letters this is the letter error rate, of words the word error rate. It exceeds
    1 where much is written that is not wanted.

    Example:
        >>> error_rate(["abc", "x"], ["abd", "y"])
        0.5
    """
    mistakes = sum(map(edit_distance, found, wanted))
    return mistakes / sum(map(len, wanted))


def chrf(found: Sequence[str], wanted: Sequence[str], longest: int = 6) -> float:
    """Character n-gram F-score, between 0 and 1 (Popović, 2015).

    Precision and recall of the n-grams of letters without spaces, counted over all
    texts and averaged over n = 1 ... 6; recall weighs twice as much.

    Example:
        >>> chrf(["das Haus"], ["das Haus"]), chrf(["x"], ["das Haus"])
        (1.0, 0.0)
    """
    orders = [_matches(found, wanted, n) for n in range(1, longest + 1)]
    orders = [order for order in orders if order[1] and order[2]]
    if not orders:
        return 0.0
    precision = sum(same / written for same, written, _ in orders) / len(orders)
    recall = sum(same / right for same, _, right in orders) / len(orders)
    if not precision + recall:
        return 0.0
    return 5 * precision * recall / (4 * precision + recall)


def _matches(found: Sequence[str], wanted: Sequence[str], n: int) -> tuple[int, ...]:
    """How many n-grams two lists of texts share, and how many each has."""
    totals = [0, 0, 0]
    for pair in zip(found, wanted, strict=True):
        a, b = (Counter(_grams("".join(text.split()), n)) for text in pair)
        for i, grams in enumerate((a & b, a, b)):
            totals[i] += grams.total()
    return tuple(totals)


def _grams(text: Sequence, n: int) -> list:
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def marks_f1(found: Sequence[set[Span]], wanted: Sequence[set[Span]]) -> float:
    """F-score of marks, between 0 and 1: right is one whose both ends and kind are.

    2 * right / (found + wanted), over all texts together; 1 if there is nothing to
    find and nothing was found.

    Example:
        >>> marks_f1([{(0, 4, "menu"), (6, 9, "key")}], [{(0, 4, "menu")}])
        0.6666666666666666
    """
    right = sum(len(a & b) for a, b in zip(found, wanted, strict=True))
    total = sum(map(len, found)) + sum(map(len, wanted))
    return 2 * right / total if total else 1.0


def repeated(text: Sequence, n: int) -> float:
    """Share of a text's n-grams that occurred earlier in it.

    Example:
        >>> repeated("abcabc", 3)
        0.25
    """
    grams = _grams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
