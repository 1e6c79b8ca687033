"""When, where and with what something was measured.

What every record says of itself: the revision of this package, the versions below it,
the machine, the time.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "device_facts",
    "driver",
    "git_revision",
    "software",
    "system",
    "utc",
    "version",
]


def software() -> dict[str, Any]:
    """Threads, versions and revision, as all records have them."""
    revision, dirty = git_revision()
    return {
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "revision": revision,
        "dirty": dirty,
    }


def utc(seconds: float) -> str:
    """A time since 1970 as text, to the second.

    Example:
        >>> utc(0)
        '1970-01-01T00:00:00+00:00'
    """
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="seconds")


def system() -> str:
    """Operating system and kind of processor."""
    return f"{platform.system()} {platform.machine()}"


def device_facts(device: str) -> dict[str, Any]:
    """Kind, name, memory and number of processors."""
    if device == "cuda":
        facts = torch.cuda.get_device_properties(0)
        memory, units = facts.total_memory, facts.multi_processor_count
        return {
            "kind": "cuda",
            "name": facts.name,
            "memory_bytes": memory,
            "units": units,
        }
    return {
        "kind": "cpu",
        "name": processor_name(),
        "memory_bytes": memory_of_this_machine(),
        "units": os.cpu_count(),
    }


def memory_of_this_machine() -> int | None:
    """Bytes of main memory, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def processor_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    return next(names, platform.processor() or platform.machine())


def git_revision() -> tuple[str, bool]:
    """Revision of the checkout, and whether the package differs from it."""
    git = ["git", "-C", str(Path(__file__).resolve().parents[1])]
    revision = output_of([*git, "rev-parse", "HEAD"])
    if revision is None:
        return f"version {version('attn_tutorial')}", False
    changed = output_of([*git, "status", "--porcelain", "--", "attn_tutorial"])
    return revision, bool(changed)


def driver() -> str | None:
    """Version of the NVIDIA driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return (output_of(query) or "").partition("\n")[0] or None


def output_of(command: list[str]) -> str | None:
    """What a command prints; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()


def version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
