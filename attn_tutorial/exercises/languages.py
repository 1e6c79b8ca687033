"""The language in which exercises answer: English, or Chinese.

``zh.json`` holds the Chinese sentence for each English one; what it lacks is said in
English. At the start the environment's ``ATTN_TUTORIAL_LANGUAGE`` sets the language.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

__all__ = ["LANGUAGES", "language", "say"]

LANGUAGES = ("en", "zh")
_chosen: list[str] = []


def language(name: str | None = None) -> str:
    """Choose the language of the answers, or ask which it is.

    Args:
        name: "en" or "zh"; None to leave it as it is.

    Returns:
        The language from now on.

    Raises:
        ValueError: If there is no such language, here or in the environment.

    Example:
        >>> language("zh")
        'zh'
        >>> say("The sign is wrong.")
        '符号错了。'
        >>> language("en")
        'en'
    """
    wanted = name or (_chosen or [os.environ.get("ATTN_TUTORIAL_LANGUAGE") or "en"])[0]
    if wanted not in LANGUAGES:
        raise ValueError(f"language must be one of {LANGUAGES}, got {wanted!r}")
    _chosen[:] = [wanted]
    return wanted


@cache
def _catalogue(name: str) -> dict[str, str]:
    path = Path(__file__).with_name(f"{name}.json")
    return json.loads(path.read_text(encoding="utf-8"))


def say(message: str, **values: object) -> str:
    """A message in the language that was chosen.

    Args:
        message: In English, with names in braces where values go.
        **values: The values by these names; with none, braces stand for themselves.
    """
    if language() != "en":
        message = _catalogue(language()).get(message) or message
    return message.format(**values) if values else message
