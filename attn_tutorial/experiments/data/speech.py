"""Spoken lines with their words: acted by two people, or said by a synthesiser.

The lines are the dialogues of a game, Fish Fillets, in Czech, whose spelling is close
to its sound (Debian packages fillets-ng-data and fillets-ng-data-cs, licence: GPL-2).
The synthesiser, eSpeak NG, says the same lines, so that what differs is the voice.

A level of the game belongs to one of three parts as a whole (see ``corpora.part_of``),
and a line that several levels have counts once, where it stands first.
"""

from __future__ import annotations

import functools
import io
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attn_tutorial.experiments.data import made_up
from attn_tutorial.experiments.data.corpora import PARTS, digits_of, part_of
from attn_tutorial.experiments.data.packages import files_below, package_file
from attn_tutorial.experiments.data.synthesiser import spoken
from attn_tutorial.provenance import version

__all__ = [
    "ACTED",
    "FEATURES",
    "LETTERS",
    "MADE_UP",
    "SYNTHESISED",
    "Clip",
    "clips",
    "features",
    "fingerprint",
    "letters_of",
]

ACTED, SYNTHESISED, MADE_UP = "acted", "synthesised", "made up"
TEXTS, SOUNDS = "fillets-ng-data", "fillets-ng-data-cs"
TOP = "usr/share/games/fillets-ng"
FINGERPRINT = "b205231af760"
SPEAKERS = {"font_small": "small", "font_big": "big"}  # the two fish, by their letters
VOICES = {"small": "cs+f2", "big": "cs+m3"}
# A line of a dialogue: its name, the letters on the screen, English; then the words.
LINE = re.compile(
    r'dialogId\("([^"]+)",\s*"([^"]*)",\s*"(?:[^"\\]|\\.)*"\)\s*'
    r'dialogStr\("((?:[^"\\]|\\.)*)"\)'
)
BLANK = 0  # of the recogniser; letters are numbered from 1
LETTERS = " aábcčdďeéěfghiíjklmnňoópqrřsštťuúůvwxyýzž"
LONGEST = 50  # letters of a line
MELS, STACK = 40, 3  # bands of a frame, and frames of a token
FEATURES = MELS * STACK
FRAME, HOP = 0.025, 0.01  # seconds


@dataclass(frozen=True)
class Clip:
    """One spoken line.

    Attributes:
        name: Level and name of the line.
        words: In small letters, without punctuation.
        features: What is heard, (tokens, FEATURES); a token is 30 ms long.
    """

    name: str
    words: str
    features: Tensor


@functools.cache
def clips(source: str) -> Mapping[str, list[Clip]]:
    """The clips of each part, of lines that have at most LONGEST letters.

    Args:
        source: ACTED, SYNTHESISED, or MADE_UP for a few that need no package.

    Raises:
        FileNotFoundError, ModuleNotFoundError: If a package is missing.
        ValueError: If it holds other lines than those that were recorded.
    """
    found, seen = {part: [] for part in PARTS}, set()
    for name, speaker, text in _lines(source):
        words = plain(text)
        if words and len(words) <= LONGEST and words not in seen:
            seen.add(words)
            heard = features(*_sound(source, name, speaker, text))
            found[part_of_level(name)].append(Clip(name, words, heard))
    return found


def part_of_level(name: str) -> str:
    """Say which part a line belongs to, by the folder of its level."""
    return part_of(f"script/{name.rpartition('/')[0]}")


def fingerprint(source: str) -> str:
    """Twelve digits that stand for the lines, and for who says them."""
    if source == MADE_UP:
        return digits_of({name: text.encode() for name, _, text in made_up.lines()})
    if source == ACTED:
        return digits_of({**_texts(), **_sounds()})
    said_by = {"espeakng-loader": str(version("espeakng-loader")).encode()}
    return digits_of({**_texts(), **said_by})


def plain(text: str) -> str | None:
    """Small letters and single spaces; None if something is no letter that is spoken.

    Example:
        >>> plain("Vítejte, v našem městě!"), plain("Mám 3 kraby.")
        ('vítejte v našem městě', None)
    """
    words = " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())
    return words if set(words) <= set(LETTERS) else None


def letters_of(words: str) -> Tensor:
    """Number the letters of words, from 1; 0 is the blank.

    Example:
        >>> letters_of("áb a").tolist()
        [3, 4, 1, 2]
    """
    return torch.tensor([1 + LETTERS.index(letter) for letter in words])


def _lines(source: str) -> list[tuple[str, str, str]]:
    """Name, speaker and text of every line of the two speakers that has a sound."""
    if source == MADE_UP:
        return made_up.lines()
    names = {_name_of_sound(path) for path in _sounds()}
    return [line for line in _dialogues(_texts()) if line[0] in names]


def _dialogues(files: Mapping[str, bytes]) -> Iterator[tuple[str, str, str]]:
    for path, text in files.items():
        level = path.rpartition("/")[0]
        for name, letters, words in LINE.findall(text.decode()):
            if letters in SPEAKERS:
                composed = unicodedata.normalize("NFC", words)
                yield f"{level}/{name}", SPEAKERS[letters], composed


@functools.cache
def _texts() -> dict[str, bytes]:
    """The Czech dialogues of all levels."""
    files = files_below(package_file(TEXTS), f"{TOP}/script")
    return {k: text for k, text in files.items() if k.endswith("/dialogs_cs.lua")}


@functools.cache
def _sounds() -> dict[str, bytes]:
    """The Czech sounds of all levels.

    Raises:
        ValueError: If lines and sounds are not those that were recorded.
    """
    sounds = files_below(package_file(SOUNDS), f"{TOP}/sound")
    if (found := digits_of({**_texts(), **sounds})) != FINGERPRINT:
        raise ValueError(
            f"{TEXTS} and {SOUNDS} must hold {FINGERPRINT}, as version 1.0.1 in "
            f"Debian 12 does, got {found}"
        )
    return sounds


def _name_of_sound(path: str) -> str:
    """Level and name of a line, of the path of its sound.

    Example:
        >>> _name_of_sound("share/blackjokes/cs/smrt-m-a.ogg")
        'share/blackjokes/smrt-m-a'
    """
    return path.removesuffix(".ogg").replace("/cs/", "/")


def _sound(source: str, name: str, speaker: str, text: str) -> tuple[Tensor, int]:
    """Samples between -1 and 1, and how many make a second."""
    if source == MADE_UP:
        return made_up.sound(text, speaker), made_up.RATE
    if source == SYNTHESISED:
        return spoken(text, VOICES[speaker])
    level, _, line = name.rpartition("/")
    return _decoded(_sounds()[f"{level}/cs/{line}.ogg"])


def _decoded(ogg: bytes) -> tuple[Tensor, int]:
    try:
        import soundfile
    except ImportError:
        raise ModuleNotFoundError(
            "the acted lines are compressed, and soundfile reads them: "
            "pip install soundfile"
        ) from None
    samples, rate = soundfile.read(io.BytesIO(ogg), dtype="float32", always_2d=True)
    return torch.from_numpy(samples).mean(-1), rate


def features(sound: Tensor, rate: int) -> Tensor:
    """Loudness in 40 bands of pitch, every 10 ms, three times in one token.

    Logarithms of mel energies with mean 0 and deviation 1 in each band of the clip.

    Args:
        sound: Samples, shape (n,).
        rate: Samples a second.

    Returns:
        float32, shape (tokens, FEATURES).

    Example:
        >>> features(torch.randn(8000), rate=8000).shape  # one second
        torch.Size([33, 120])
    """
    size, hop = round(FRAME * rate), round(HOP * rate)
    window = torch.hann_window(size)
    waves = torch.stft(sound, size, hop, window=window, return_complex=True)
    bands = _mel_bands(size // 2 + 1, rate) @ waves.abs().square()
    loud = (bands + 1e-6).log()
    loud = (loud - loud.mean(1, keepdim=True)) / (loud.std(1, keepdim=True) + 1e-3)
    frames = loud.T[: loud.shape[1] // STACK * STACK]  # (frames, MELS)
    return frames.reshape(-1, FEATURES).contiguous()


@functools.cache
def _mel_bands(bins: int, rate: int, top: float = 8000.0) -> Tensor:
    """Triangles over frequencies, evenly spaced in mel up to ``top`` Hz, (MELS, bins).

    Mel m = 2595 log10(1 + f / 700).
    """
    highest = 2595 * torch.log10(torch.tensor(1 + min(top, rate / 2) / 700))
    edges = 700 * (10 ** (torch.linspace(0, highest.item(), MELS + 2) / 2595) - 1)
    hertz = torch.linspace(0, rate / 2, bins)
    low, middle, high = (edges[i : i + MELS, None] for i in range(3))
    rise, fall = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
    return torch.minimum(rise, fall).clamp(min=0)
