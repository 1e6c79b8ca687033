"""Real text that pip brings: program code.

The text is the source of two programs that build this book, docutils (public domain)
and Sphinx (BSD licence). Both are pure Python, so that a version holds the same bytes
for every Python and every system. Nothing is downloaded, and nothing of it is part of
this package.

A file belongs to one of three parts as a whole: most train, a tenth decides
(validation), a tenth is only reported (test).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Generator, Tensor

__all__ = [
    "PARTS",
    "VERSIONS",
    "digits_of",
    "fingerprint",
    "part_of",
    "source_bytes",
    "source_files",
    "windows_of",
]

VERSIONS = {"docutils": "0.21.2", "Sphinx": "7.4.7"}
PARTS = ("train", "validation", "test")
TABLES = ("languages", "math", "search")  # folders that hold data, not programs


def part_of(name: str) -> str:
    """Say which part a file belongs to, by a hash of its name.

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
    return digits_of(source_files())


def digits_of(files: Mapping[str, bytes]) -> str:
    """Twelve digits that stand for exactly these files.

    Example:
        >>> digits_of({"a.txt": b"A"}), digits_of({"a.txt": b"B"})
        ('262bb2e4ba37', '6e724567edc1')
    """
    digest = hashlib.sha256()
    for name, text in files.items():
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
