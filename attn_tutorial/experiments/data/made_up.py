"""Made-up stand-ins for the data that packages hold: for tests, and for quick runs.

They have the form of the real data and nothing else of it. A few pages of help, and
sounds in which every letter is a tone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attn_tutorial.experiments.data.number_words import english, german

__all__ = ["RATE", "SECONDS", "lines", "pages", "sound"]

AREAS = ("scalc", "sdraw", "swriter")
EACH = 16  # pages of an area
WRITE = {"en-US": english, "de": german}
NAMES = ("open", "insert", "add", "rows", "key", "ends")
WORDS = {
    "en-US": ("Open", "Insert", "to add", "rows to", "The key", "ends"),
    "de": ("Öffnen Sie", "Einfügen", "mit", "Zeilen für", "Die Taste", "beendet"),
}
PAGE = """<h1 id="hd_1">{sheet} {number}</h1>
<p id="par_1" class="paragraph">{open} <span class="menuitem">{insert} -
{number}</span> {add} {more} {rows} <span class="emph">{sheet}</span>.</p>
<p id="par_2" class="paragraph">{key} <span hidden="true" class="MAC">Command</span
><span hidden="true" id="default_1"><span class="keycode">F{digit}</span></span> {ends}
<span class="literal">{code}</span> &amp; {more}.</p>"""
RATE = 8000  # samples a second
SECONDS = 0.08  # of a letter


def pages(language: str) -> dict[str, str]:
    """Pages of help in English ("en-US") or German ("de"), by name.

    Example:
        >>> len(pages("de")), list(pages("en-US"))[0]
        (48, 'scalc/1.html')
    """
    places = [(area, i) for area in AREAS for i in range(1, EACH + 1)]
    return {f"{area}/{i}.html": _page(language, area, i) for area, i in places}


def _page(language: str, area: str, i: int) -> str:
    """One page about a number that no other page is about."""
    number = 100 * AREAS.index(area) + i
    names = dict(zip(NAMES, WORDS[language], strict=True))
    names |= {"sheet": area[1:].title(), "digit": i, "code": f"{area}({number})"}
    write = WRITE[language]
    return PAGE.format(number=write(number), more=write(7 * number), **names)


def lines() -> list[tuple[str, str, str]]:
    """Spoken lines: name, speaker and words."""
    numbers = [(place, speaker) for place in range(24) for speaker in ("big", "small")]
    return [(f"pool{i}/{who}", who, english(5 * i + len(who))) for i, who in numbers]


def sound(words: str, speaker: str) -> Tensor:
    """Say words with a tone for each letter, in float32, (samples,)."""
    count = round(RATE * SECONDS)
    step = 2 * math.pi * torch.arange(count) / RATE
    octave = 1.0 if speaker == "big" else 1.1
    tones = [octave * (400 + 100 * (ord(letter) % 32)) for letter in words]
    return torch.cat([torch.sin(tone * step) for tone in tones])
