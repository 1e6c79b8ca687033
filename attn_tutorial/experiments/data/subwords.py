"""Subwords: frequent strings of bytes, found by joining the commonest pair (BPE).

Byte-pair encoding (Sennrich et al., 2016) on bytes, so that nothing is unknown. Words
keep the space before them, and a text is its tokens one after the other.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from attn_tutorial.checks import check_count

__all__ = ["MARK", "PAD", "Subwords"]

PAD, MARK = 0, 1  # filling, and the start or end of a text
FIRST = 2  # token of byte 0
PIECES = re.compile(r" ?[^\W\d_]+| ?\d| ?[^\w\s]+| ?_+|\s+")

Pair = tuple[int, int]


class Subwords:
    """A vocabulary of bytes and joined bytes, learned from texts.

    Args:
        texts: What to learn from.
        size: Tokens at most, the 256 bytes, ``PAD`` and ``MARK`` among them.

    Example:
        >>> subwords = Subwords(["low lower lowest"], size=262)
        >>> [subwords.decode([token]) for token in subwords.encode("low lows")]
        ['low', ' low', 's']
        >>> subwords.decode(subwords.encode("größer"))
        'größer'
    """

    def __init__(self, texts: Iterable[str], size: int) -> None:
        check_count("size", size, least=FIRST + 256)
        counts = Counter(piece for text in texts for piece in PIECES.findall(text))
        merges = _learn(counts, size - FIRST - 256)
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.bytes = [b"", b""] + [bytes([b]) for b in range(256)]
        for a, b in merges:
            self.bytes.append(self.bytes[a] + self.bytes[b])
        self._known: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self.bytes)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text."""
        return [token for piece in PIECES.findall(text) for token in self._piece(piece)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; bytes that are no letter become a question mark."""
        return b"".join(self.bytes[t] for t in tokens).decode(errors="replace")

    def _piece(self, piece: str) -> list[int]:
        """Tokens of a word: the pair that was joined first is joined first."""
        if piece not in self._known:
            tokens = _as_bytes(piece)
            while known := [p for p in pairwise(tokens) if p in self.ranks]:
                pair = min(known, key=self.ranks.get)
                tokens = _joined(tokens, pair, FIRST + 256 + self.ranks[pair])
            self._known[piece] = tokens
        return self._known[piece]


def _as_bytes(piece: str) -> list[int]:
    return [FIRST + byte for byte in piece.encode()]


def _joined(tokens: Sequence[int], pair: Pair, new: int) -> list[int]:
    """Replace every occurrence of a pair, from the left, by a new token.

    Example:
        >>> _joined([7, 7, 7, 8], (7, 7), 9)
        [9, 7, 8]
    """
    found, i = [], 0
    while i < len(tokens):
        here = tuple(tokens[i : i + 2]) == pair
        found.append(new if here else tokens[i])
        i += 2 if here else 1
    return found


def _learn(counts: Counter[str], number: int) -> list[Pair]:
    """Pairs to join, the commonest first; the first found wins among equals."""
    words, weights = [_as_bytes(piece) for piece in counts], list(counts.values())
    pairs: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)

    def count(word: int, sign: int) -> None:
        for pair in pairwise(words[word]):
            pairs[pair] += sign * weights[word]
            where[pair].add(word)

    for word in range(len(words)):
        count(word, 1)
    merges: list[Pair] = []
    while len(merges) < number and pairs:
        best = max(pairs, key=pairs.get)
        if pairs[best] < 2:
            break
        for word in sorted(where.pop(best)):
            count(word, -1)
            words[word] = _joined(words[word], best, FIRST + 256 + len(merges))
            count(word, 1)
        del pairs[best]
        merges.append(best)
    return merges
