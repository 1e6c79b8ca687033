"""Real text that pip brings: program code, and messages in several languages.

The text is the source of two programs that build this book, docutils (public domain)
and Sphinx (BSD licence), and Sphinx's messages as volunteers translated them. Both are
pure Python, so that a version holds the same bytes for every Python and every system.
Nothing is downloaded, and nothing of it is part of this package.

A file, or a message with all its translations, belongs to one of three parts as a
whole: most train, a tenth decides (validation), a tenth is only reported (test).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Generator, Tensor

__all__ = [
    "LANGUAGES",
    "PARTS",
    "VERSIONS",
    "fingerprint",
    "messages",
    "part_of",
    "source_bytes",
    "source_files",
    "windows_of",
]

VERSIONS = {"docutils": "0.21.2", "Sphinx": "7.4.7"}
PARTS = ("train", "validation", "test")
TABLES = ("languages", "math", "search")  # folders that hold data, not programs
LANGUAGES = ("ca", "es", "et", "fr", "gl", "id", "nl", "pl", "pt_BR", "sk", "sq", "tr")


def part_of(name: str) -> str:
    """Say which part a file or a message belongs to, by a hash of its name.

    Example:
        >>> [part_of(name) for name in ("sphinx/config.py", "sphinx/project.py")]
        ['train', 'train']
    """
    share = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
    return {0: "validation", 1: "test"}.get(share, "train")


def package_folder(package: str) -> Path:
    """Find an installed package of the right version.

    Raises:
        ModuleNotFoundError: If it is missing, or has another version.
    """
    wanted = VERSIONS[package]
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != wanted:
        raise ModuleNotFoundError(
            f"the experiments read {package} {wanted}, found {found}: "
            f"pip install {package}=={wanted}"
        )
    return Path(importlib.util.find_spec(package.lower()).origin).parent


@functools.cache
def source_files() -> dict[str, bytes]:
    """Read the Python files of both packages, by name; tables of data are left out."""
    files = {}
    for package in VERSIONS:
        folder = package_folder(package)
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder.parent).as_posix()
            if path.stat().st_size >= 500 and not set(TABLES) & set(path.parts):
                files[name] = path.read_bytes().replace(b"\r\n", b"\n")
    return files


def fingerprint() -> str:
    """Twelve digits that stand for exactly this text."""
    digest = hashlib.sha256()
    for name, text in source_files().items():
        digest.update(name.encode() + b"\0" + text + b"\0")
    return digest.hexdigest()[:12]


@functools.cache
def source_bytes(part: str) -> Tensor:
    """All files of a part, one after the other with a zero between: uint8, (n,)."""
    texts = [text for name, text in source_files().items() if part_of(name) == part]
    return torch.frombuffer(bytearray(b"\0".join(texts)), dtype=torch.uint8)


def windows_of(
    text: Tensor, batch: int, n: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Draw passages of n bytes, and the byte that follows each of their bytes.

    Returns:
        Inputs and targets, both (batch, n).
    """
    starts = torch.randint(len(text) - n, (batch, 1), generator=generator)
    passages = text[starts + torch.arange(n + 1)].long()
    return passages[:, :-1], passages[:, 1:]


@functools.cache
def messages(part: str) -> list[tuple[bytes, int]]:
    """Translated messages of a part with the number of their language."""
    folder = package_folder("Sphinx") / "locale"
    found = []
    for number, language in enumerate(LANGUAGES):
        for original, text in translated(folder / language / "LC_MESSAGES/sphinx.po"):
            if part_of(original) == part:
                found.append((text.encode(), number))
    return found


def translated(path: Path) -> Iterable[tuple[str, str]]:
    """Read a catalogue: messages of at least 20 letters, with their translations."""
    from babel.messages.pofile import read_po  # comes with Sphinx

    with path.open("rb") as file:
        for entry in read_po(file):
            pair = entry.id, entry.string
            if all(isinstance(text, str) for text in pair) and entry.id != entry.string:
                if len(entry.string) >= 20 and not entry.fuzzy:
                    yield pair
