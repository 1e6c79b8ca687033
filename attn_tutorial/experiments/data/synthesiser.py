"""eSpeak NG says a line: its shared library comes with ``espeakng-loader``.

The library (licence: GPL-3) computes speech from rules, so that a word sounds the same
each time, without a room, a mood or a microphone.
"""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

__all__ = ["spoken"]

RETRIEVAL, UTF8, CONTINUE = 1, 1, 0  # as in espeak-ng's speak_lib.h
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@functools.cache
def _library() -> tuple[ctypes.CDLL, int]:
    """The library, ready to speak, and its samples a second.

    Raises:
        ModuleNotFoundError: If there is no espeakng-loader.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise ModuleNotFoundError(
            "synthesised lines need eSpeak NG: pip install espeakng-loader"
        ) from None
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    rate = library.espeak_Initialize(RETRIEVAL, 0, data, 0)
    if rate < 0:
        raise RuntimeError(f"eSpeak NG did not start with its data in {data.decode()}")
    return library, rate


def spoken(text: str, voice: str) -> tuple[Tensor, int]:
    """Say a text.

    The synthesiser goes on from line to line: it says the same lines alike only in the
    same order, from the start of a process.

    Args:
        text: What to say.
        voice: A voice of eSpeak NG, such as "cs+m3": Czech, third male variant.

    Returns:
        Samples between -1 and 1, shape (n,), and how many make a second.

    Raises:
        ModuleNotFoundError: If the synthesiser is missing.
        ValueError: If it has no such voice.
    """
    library, rate = _library()
    if library.espeak_SetVoiceByName(voice.encode()):
        raise ValueError(f"voice must be one of eSpeak NG, got {voice!r}")
    heard: list[int] = []

    @CALLBACK
    def hear(samples, count, events):  # in a few pieces, the last one empty
        heard.extend(samples[:count] if samples else ())
        return CONTINUE

    library.espeak_SetSynthCallback(hear)
    letters = text.encode() + b"\0"
    library.espeak_Synth(letters, len(letters), 0, 0, 0, UTF8, None, None)
    library.espeak_Synchronize()
    return torch.tensor(heard, dtype=torch.float32) / 2**15, rate
