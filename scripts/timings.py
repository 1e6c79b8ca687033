"""Run each chapter alone and record how long its cells take, and how much memory.

    python scripts/timings.py                    # write book/data/teaching/timings.json

Nothing else should run meanwhile. Memory is that of the kernel and of all processes
that it starts, at its peak; pages that they share are counted once (Linux only).
"""

import json
import os
import threading
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from attn_tutorial import provenance

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "book" / "data" / "teaching" / "timings.json"
PAUSE = 0.1  # seconds between two looks at the memory


def parents() -> dict[int, int]:
    """From each process to the one that started it."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        found[int(folder.name)] = int(fields[1])
    return found


def below(process: int) -> list[int]:
    """All processes that a process has started, and those that they have."""
    started, found = parents(), [process]
    for one in found:
        found += [child for child, parent in started.items() if parent == one]
    return found[1:]


def memory(process: int) -> int:
    """Bytes of a process; a page that several share counts for each in part."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has just ended
    return next(1024 * int(x.split()[1]) for x in lines if x.startswith("Pss:"))


class Peak(threading.Thread):
    """Looks at the memory of all processes below this one, and keeps the largest."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.done = 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(PAUSE):
            self.bytes = max(self.bytes, sum(map(memory, below(os.getpid()))))


def measured(path: Path) -> dict:
    """One chapter, from the start of its kernel to the end of its last cell."""
    notebook = nbformat.read(path, as_version=4)
    peak, start = Peak(), time.perf_counter()
    peak.start()
    NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    seconds = time.perf_counter() - start
    peak.done.set()
    peak.join()
    mib = round(peak.bytes / 2**20)
    return {"chapter": path.stem, "seconds": round(seconds, 1), "mib": mib}


def main() -> None:
    """Measure all chapters and write the record."""
    started, found = provenance.utc(time.time()), []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        found.append(measured(path))
        print(found[-1], flush=True)
    made = {
        "schema": 1,
        "started": started,
        **provenance.software(),
        "device": provenance.device_facts("cpu"),
        "chapters": found,
    }
    made["threads"] = int(os.environ.get("OMP_NUM_THREADS", made["threads"]))
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(made, indent=1, ensure_ascii=False)
    RECORD.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
