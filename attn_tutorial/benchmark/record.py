"""Records of runs, written: what they must hold, and how a file stays whole."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from attn_tutorial.provenance import (
    device_facts,
    driver,
    software,
    system,
    utc,
    vector_instructions,
    version,
)

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "alone",
    "check_place",
    "provenance",
    "replace",
    "validate",
    "write",
]

SCHEMA = Path(__file__).resolve().with_name("record.schema.json")
SCHEMA_VERSION = 2
PACKAGES = (
    "local-attention",
    "transformers",
    "triton",
    "flash-attn",
    "xformers",
    "natten",
)


def provenance(device: str, clock: str) -> dict[str, Any]:
    """Where, when and with what the numbers are measured."""
    return {
        "device": device_facts(device),
        "clock": clock,
        **software(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "vector_instructions": vector_instructions(),
        "cuda": torch.version.cuda,
        "driver": driver() if device == "cuda" else None,
        "system": system(),
        "packages": {name: version(name) for name in PACKAGES},
        "date": utc(time.time()),
    }


def write(data: dict, path: Path) -> None:
    """Write a record: one line for each result, so that files stay short.

    Raises:
        ValueError: If one of its numbers is NaN or infinite; the file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=1, allow_nan=False)
    text = re.sub(r"\n {5,}", " ", text)  # results and what is deeper: one line
    text = re.sub(r"\n {4}(?=[\]}])", " ", text)
    replace(path, text + "\n")


def validate(data: dict) -> None:
    """Check a record against the schema (needs the package jsonschema).

    Raises:
        jsonschema.ValidationError: If a field is missing, or has a wrong type.
    """
    import jsonschema

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(data, schema, cls=jsonschema.Draft202012Validator)


def check_place(path: Path) -> None:
    """Refuse a place where no record can be written, before anything is measured.

    Raises:
        OSError: If it is a folder, or lies where nothing can be written.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: --out needs the name of a file")
    draft = path.with_suffix(".draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch()
        draft.unlink()
    except OSError as reason:
        where = f"{path} cannot be written: choose another place for --out"
        raise OSError(f"{where} ({reason.strerror})") from None


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only process that writes a file; the system frees it if that one dies.

    Raises:
        BlockingIOError: If another process holds it.
        OSError: If no record can be written there.
    """
    import filelock  # records can be read, and written by one alone, without it

    check_place(path)
    lock = path.with_suffix(".lock")
    try:
        with filelock.FileLock(lock, timeout=0):
            yield
    except filelock.Timeout:
        raise BlockingIOError(f"another process holds {lock}") from None


def replace(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one."""
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
