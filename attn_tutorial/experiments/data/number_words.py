"""Numbers in English and German words: as many sentence pairs as one wants.

Small as it is, the pair has what makes translation hard: German joins what English
separates, and says the ones before the tens: 21 is "einundzwanzig".
"""

from __future__ import annotations

from collections.abc import Callable

from attn_tutorial.checks import check_count

__all__ = ["english", "german"]

LIMIT = 10**9
ENGLISH_ONES = """zero one two three four five six seven eight nine ten eleven twelve
    thirteen fourteen fifteen sixteen seventeen eighteen nineteen""".split()
ENGLISH_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
GERMAN_ONES = """null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf
    dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn""".split()
GERMAN_TENS = """zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig
    neunzig""".split()


def english(number: int) -> str:
    """Write a number below 10^9 in English words.

    Example:
        >>> english(12_345)
        'twelve thousand three hundred forty-five'
    """
    if _checked(number) < 100:
        tens, ones = divmod(number, 10)
        if tens < 2:
            return ENGLISH_ONES[number]
        return ENGLISH_TENS[tens - 2] + (f"-{ENGLISH_ONES[ones]}" if ones else "")
    scales = ((10**6, " million"), (1000, " thousand"), (100, " hundred"))
    return _by_scale(number, scales, english, " ")


def german(number: int) -> str:
    """Write a number below 10^9 in German words.

    Example:
        >>> german(12_345), german(1_000_001)
        ('zwölftausenddreihundertfünfundvierzig', 'eine Million eins')
    """
    millions, rest = divmod(_checked(number), 10**6)
    if not millions:
        return "eins" if number == 1 else _joined(number, last=True)
    count = "eine Million" if millions == 1 else f"{_joined(millions)} Millionen"
    return f"{count} {german(rest)}" if rest else count


def _joined(number: int, last: bool = False) -> str:
    """A German number below a million, one word; "eins" only where nothing follows."""
    if number < 100:
        tens, ones = divmod(number, 10)
        if tens < 2:
            return "eins" if last and number == 1 else GERMAN_ONES[number]
        return (f"{GERMAN_ONES[ones]}und" if ones else "") + GERMAN_TENS[tens - 2]
    scales = ((1000, "tausend"), (100, "hundert"))
    return _by_scale(number, scales, _joined, "", last=last)


def _by_scale(
    number: int,
    scales: tuple[tuple[int, str], ...],
    write: Callable[..., str],
    between: str,
    **ending: bool,
) -> str:
    """Name how many of the largest scale there are, then the rest."""
    size, name = next(scale for scale in scales if scale[0] <= number)
    count, rest = divmod(number, size)
    words = write(count) + name
    return words + between + write(rest, **ending) if rest else words


def _checked(number: int) -> int:
    if check_count("number", number, least=0) >= LIMIT:
        raise ValueError(f"number must be below 10^9, got {number}")
    return number
