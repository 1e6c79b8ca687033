"""Files of Debian packages, read with Python's standard library on any system.

A package is one file, ``NAME_VERSION_all.deb``, in a folder of the user's cache. On
Debian 12 ``apt-get download`` brings it there. Elsewhere the reader saves the file in
that folder once, and needs no tool of Debian: a package is an ``ar`` archive that holds
a ``tar`` archive. Nothing of it is part of the package that you read.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from attn_tutorial.provenance import user_cache

__all__ = ["RELEASE", "files_below", "folder", "package_file"]

RELEASE = "bookworm"  # Debian 12
PAGE = f"https://packages.debian.org/{RELEASE}"
MAGIC, HEADER = b"!<arch>\n", 60  # of an ar archive


def folder() -> Path:
    """Where packages are looked for: a folder of the user's cache."""
    return user_cache() / "packages"


def package_file(name: str) -> Path:
    """Find a package, or let apt download it.

    Raises:
        FileNotFoundError: If it is missing and there is no apt, or apt has no such
            package. The message says where to get it.
    """
    place = folder()
    if not any(place.glob(f"{name}_*.deb")) and shutil.which("apt-get"):
        place.mkdir(parents=True, exist_ok=True)
        command = ["apt-get", "download", "-qq", name]
        subprocess.run(command, cwd=place, capture_output=True)
    found = sorted(place.glob(f"{name}_*.deb"))
    if not found:
        raise FileNotFoundError(
            f"the Debian package {name} is not in {place}: save the file from "
            f"{PAGE}/{name} (Download, architecture all) there"
        )
    return found[-1]


def files_below(package: Path, top: str) -> dict[str, bytes]:
    """Read all files of a package in one folder, by their names below it, sorted.

    Args:
        package: A ``.deb`` file.
        top: A folder of the installed system, such as "usr/share/games".

    Raises:
        ValueError: If it is no Debian package.
    """
    start, found = f"./{top}/", {}
    with tarfile.open(fileobj=io.BytesIO(_data(package))) as archive:
        for member in archive:
            if member.isfile() and member.name.startswith(start):
                name = member.name.removeprefix(start)
                found[name] = archive.extractfile(member).read()
    return dict(sorted(found.items()))


def _data(package: Path) -> bytes:
    """The tar archive, still compressed, that holds the files of a package."""
    for name, content in _members(package.read_bytes(), package):
        if name.startswith("data.tar"):
            return content
    raise ValueError(f"package must hold data.tar, got {package}")


def _members(archive: bytes, package: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an ar archive."""
    if not archive.startswith(MAGIC):
        raise ValueError(f"package must be a Debian package, got {package}")
    place = len(MAGIC)
    while place + HEADER <= len(archive):
        header = archive[place : place + HEADER]
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        place += HEADER
        yield name, archive[place : place + size]
        place += size + size % 2
