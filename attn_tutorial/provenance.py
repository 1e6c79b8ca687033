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
    "data_folders",
    "device_facts",
    "driver",
    "git_revision",
    "software",
    "system",
    "user_cache",
    "utc",
    "vector_instructions",
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


def data_folders(name: str, copy: Path) -> tuple[Path, Path]:
    """Where recorded data may lie: in a checkout they are part of the book.

    Args:
        name: Folder in ``book/data``.
        copy: That which an installed package carries.
    """
    return Path(__file__).resolve().parents[1] / "book/data" / name, copy


def user_cache() -> Path:
    """The folder for what an installed package measures on the reader's machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", __package__)


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


# Instructions for vectors and matrices, as Linux names them.
VECTORS = ("sse4_2", "avx", "fma", "avx2", "f16c", "avx_vnni", "avx512f", "avx512bw",
           "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8",
           "amx_bf16", "amx_fp16", "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve",
           "sve2", "svebf16", "sme")  # fmt: skip
# The same in macOS's list of what a processor has.
MACOS = {
    "hw.optional.avx1_0": "avx",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.fma": "fma",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_SME": "sme",
}


def vector_instructions() -> list[str] | None:
    """The processor's vector instructions; None where the system does not tell.

    Two processors of one name may differ in them, and a finding in bfloat16 hangs on
    whether there are instructions for it.
    """
    info = Path("/proc/cpuinfo")
    if info.exists():
        return vectors_of_linux(info.read_text())
    listed = output_of(["sysctl", "hw.optional"])
    return None if listed is None else vectors_of_macos(listed)


def vectors_of_linux(cpuinfo: str) -> list[str] | None:
    r"""Those in the first list of flags (x86) or features (Arm) of `/proc/cpuinfo`.

    Example:
        >>> vectors_of_linux("model name : x\nflags : fpu amx_bf16 avx2")
        ['avx2', 'amx_bf16']
    """
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    listed = (text for name, _, text in lines if name.strip() in ("flags", "Features"))
    known = set(next(listed, "").split())
    return [name for name in VECTORS if name in known] if known else None


def vectors_of_macos(listed: str) -> list[str]:
    r"""Those that `sysctl hw.optional` lists with a 1.

    Example:
        >>> vectors_of_macos("hw.optional.avx2_0: 0\nhw.optional.AdvSIMD: 1")
        ['asimd']
    """
    lines = (line.partition(": ") for line in listed.splitlines())
    return [MACOS[name] for name, _, value in lines if name in MACOS and value == "1"]


def git_revision() -> tuple[str, bool]:
    """Revision of the checkout, and whether the package differs from it."""
    git = ["git", "-C", str(Path(__file__).resolve().parents[1])]
    tracked = output_of([*git, "ls-files", "--error-unmatch", "attn_tutorial"])
    revision = output_of([*git, "rev-parse", "HEAD"])
    if tracked is None or revision is None:  # installed, in somebody's repository
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
