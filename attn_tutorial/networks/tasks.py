"""Small data sets whose right answer is known, drawn from a seeded generator."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from attn_tutorial.checks import check_count

__all__ = [
    "ENGLISH",
    "FRENCH",
    "IGNORE",
    "PAD",
    "START",
    "decode",
    "encode",
    "latch",
    "latch_distance",
    "reverse",
    "sentence_pairs",
    "translation",
]

IGNORE = -100  # a target that the loss and the accuracy leave out
PAD, START, END = "<pad>", "<start>", "."

# English, French, gender.
NOUNS = (
    ("cat", "chat", "m"),
    ("dog", "chien", "m"),
    ("horse", "cheval", "m"),
    ("boy", "garçon", "m"),
    ("train", "train", "m"),
    ("girl", "fille", "f"),
    ("woman", "femme", "f"),
    ("cow", "vache", "f"),
    ("mouse", "souris", "f"),
    ("car", "voiture", "f"),
)
# English, French for a masculine and for a feminine noun.
BEFORE_THE_NOUN = (
    ("small", "petit", "petite"),
    ("big", "grand", "grande"),
    ("new", "nouveau", "nouvelle"),
    ("pretty", "joli", "jolie"),
)
AFTER_THE_NOUN = (
    ("red", "rouge", "rouge"),
    ("green", "vert", "verte"),
    ("black", "noir", "noire"),
    ("white", "blanc", "blanche"),
    ("calm", "calme", "calme"),
    ("strange", "étrange", "étrange"),
)
DETERMINERS = (("the", "le", "la"), ("a", "un", "une"))
VERBS = (
    ("sees", "voit"),
    ("follows", "suit"),
    ("watches", "regarde"),
    ("hears", "entend"),
    ("finds", "trouve"),
    ("likes", "aime"),
)


def reverse(
    batch: int, length: int, num_symbols: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Random symbols, to be named in the opposite order.

    Returns:
        Inputs and targets, both of shape (batch, length): target i is input n - 1 - i.

    Example:
        >>> x, y = reverse(1, 5, 10, Generator().manual_seed(0))
        >>> x.tolist(), y.tolist()
        ([[4, 9, 3, 0, 3]], [[3, 0, 3, 9, 4]])
    """
    check_count("num_symbols", num_symbols, least=1)
    symbols = torch.randint(num_symbols, (batch, length), generator=generator)
    return symbols, symbols.flip(-1)


def latch(
    batch: int,
    length: int,
    generator: Generator,
    *,
    num_values: int = 8,
    num_noise: int = 4,
    max_gap: int = 80,
) -> tuple[Tensor, Tensor]:
    """Name, at every position, the most recent value token.

    Tokens below ``num_values`` are values, the others are noise. From one value to
    the next there are 1 to ``max_gap`` steps, all equally likely.

    Returns:
        Inputs and targets, both of shape (batch, length); targets before the first
        value are ``IGNORE``.
    """
    check_count("max_gap", max_gap, least=1)
    shape = (batch, length)
    gaps = torch.randint(1, max_gap + 1, shape, generator=generator)
    places = (gaps.cumsum(-1) - 1).clamp(max=length)  # beyond the end: column n
    is_value = torch.zeros(batch, length + 1, dtype=torch.bool)
    is_value = is_value.scatter(-1, places, True)[:, :length]
    values = torch.randint(num_values, shape, generator=generator)
    noise = num_values + torch.randint(num_noise, shape, generator=generator)
    inputs = torch.where(is_value, values, noise)
    distance = latch_distance(inputs, num_values)
    recent = torch.arange(length) - distance.clamp(min=0)
    return inputs, inputs.gather(-1, recent).masked_fill(distance < 0, IGNORE)


def latch_distance(inputs: Tensor, num_values: int = 8) -> Tensor:
    """Steps back to the most recent value, shape (batch, length); -1 if there is none.

    Example:
        >>> latch_distance(torch.tensor([[9, 3, 8, 8, 5]]))
        tensor([[-1,  0,  1,  2,  0]])
    """
    position = torch.arange(inputs.shape[-1])
    is_value = inputs < num_values
    last = torch.where(is_value, position, -1).cummax(-1).values
    return torch.where(last < 0, -1, position - last)


def noun_phrases() -> list[tuple[str, str]]:
    """Every determiner with every adjective (or none) and noun, in both languages.

    French puts some adjectives before the noun and most of them after it; the
    determiner and the adjective follow the gender of the noun.

    Example:
        >>> phrases = dict(noun_phrases())
        >>> phrases["the red car"], phrases["a small car"], phrases["the car"]
        ('la voiture rouge', 'une petite voiture', 'la voiture')
    """
    phrases = []
    for noun, nom, gender in NOUNS:
        form = 1 if gender == "m" else 2  # column of the French word
        for determiner in DETERMINERS:
            the, le = determiner[0], determiner[form]
            phrases.append((f"{the} {noun}", f"{le} {nom}"))
            for adjective in BEFORE_THE_NOUN:
                english = f"{the} {adjective[0]} {noun}"
                phrases.append((english, f"{le} {adjective[form]} {nom}"))
            for adjective in AFTER_THE_NOUN:
                english = f"{the} {adjective[0]} {noun}"
                phrases.append((english, f"{le} {nom} {adjective[form]}"))
    return phrases


def sentence_pairs(
    count: int, generator: Generator, *, without: str = ""
) -> list[tuple[str, str]]:
    """Random English sentences with their French translations.

    Args:
        count: Number of pairs.
        generator: Source of randomness.
        without: Leave out noun phrases that contain this English text.

    Example:
        >>> pairs = sentence_pairs(5, Generator().manual_seed(3))
        >>> pairs[0]
        ('the white cat follows the green cow .', 'le chat blanc suit la vache verte .')
    """
    phrases = [p for p in noun_phrases() if not (without and without in p[0])]
    sizes = torch.tensor([len(phrases), len(VERBS), len(phrases)])
    draws = torch.randint(2**31, (count, 3), generator=generator) % sizes
    pairs = []
    for subject, verb, thing in draws.tolist():
        parts = (phrases[subject], VERBS[verb], phrases[thing], (END, END))
        pairs.append(tuple(" ".join(words) for words in zip(*parts, strict=True)))
    return pairs


def _vocabulary(language: int) -> tuple[str, ...]:
    texts = [pair[language] for pair in noun_phrases() + list(VERBS)]
    words = sorted({word for text in texts for word in text.split()})
    return (PAD, START, END, *words)


ENGLISH, FRENCH = _vocabulary(0), _vocabulary(1)


def encode(sentences: list[str], vocabulary: tuple[str, ...]) -> Tensor:
    """Look words up: integers, shape (batch, longest), filled up with ``PAD``.

    Raises:
        ValueError: If a word is not in the vocabulary.

    Example:
        >>> encode(["the cat .", "."], ENGLISH).tolist()
        [[26, 9, 2], [2, 0, 0]]
    """
    number = {word: i for i, word in enumerate(vocabulary)}
    rows = []
    for sentence in sentences:
        words = sentence.split()
        unknown = [word for word in words if word not in number]
        if unknown:
            raise ValueError(f"sentences hold unknown words {unknown}")
        rows.append(torch.tensor([number[word] for word in words], dtype=torch.long))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def decode(tokens: Tensor, vocabulary: tuple[str, ...]) -> list[str]:
    """Write tokens out as sentences, each up to its first full stop.

    Example:
        >>> decode(torch.tensor([[26, 9, 2, 9], [26, 9, 0, 0]]), ENGLISH)
        ['the cat .', 'the cat']
    """
    sentences = []
    for row in tokens.tolist():
        words = " ".join(vocabulary[i] for i in row if vocabulary[i] != PAD)
        sentence, stop, _ = words.partition(f" {END}")
        sentences.append(sentence + stop)
    return sentences


def translation(
    batch: int, generator: Generator, *, without: str = ""
) -> tuple[Tensor, Tensor, Tensor]:
    """Sentence pairs as tokens, for a model that predicts the next French word.

    Returns:
        English (batch, n), French shifted by ``START`` (batch, n), and French as the
        target (batch, n), with ``IGNORE`` where a shorter sentence is filled up.
    """
    pairs = sentence_pairs(batch, generator, without=without)
    source = encode([english for english, _ in pairs], ENGLISH)
    target = encode([french for _, french in pairs], FRENCH)
    start = target.new_full((batch, 1), FRENCH.index(START))
    shifted = torch.cat([start, target[:, :-1]], 1)
    return source, shifted, target.masked_fill(target == FRENCH.index(PAD), IGNORE)
