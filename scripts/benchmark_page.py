"""Write the recorded runs into book/benchmarks.md, from book/data/benchmarks.

python scripts/benchmark_page.py            # write the page
python scripts/benchmark_page.py --check    # exit 1 if it is stale
"""

import re
import sys
from pathlib import Path

from attn_tutorial import benchmark

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "book" / "benchmarks.md"
PART = re.compile(r"(<!-- runs: [^\n]*-->\n).*?(<!-- end of runs -->)", re.DOTALL)
HEAD = "| Run | Started (UTC) | Revision | Threads | Seconds by | Cases |"
NO_GPU = "There are no records of a GPU yet.\n"


def page(text: str) -> str:
    """The page with the runs as they are in the folder now."""
    names = benchmark.devices()
    parts = [part(name, benchmark.load(name)) for name in names]
    if not any(kind(benchmark.load(name)) == "cuda" for name in names):
        parts.append(NO_GPU)
    runs = "\n".join(parts)
    return PART.sub(lambda found: f"{found[1]}\n{runs}\n{found[2]}", text)


def kind(records: benchmark.Records) -> str:
    """Whether a device is a CPU or a GPU."""
    return records[0].provenance["device"]["kind"]


def part(name: str, records: benchmark.Records) -> str:
    """One device: its software, its runs, and what they found."""
    lines = [f"### `{name}`", "", facts(records), "", HEAD, "|---|---|---|---|---|---|"]
    lines += [row(record) for record in records]
    lines += ["", "Median over the runs, with the lowest and the highest:", ""]
    found = "\n\n".join([benchmark.limits(records), *benchmark.findings(records)])
    return "\n".join([*lines, "```text", found, "```", ""])


def facts(records: benchmark.Records) -> str:
    """Device and software in a sentence."""
    known = records[0].provenance
    device = known["device"]
    texts = [device["name"], f"{device['units']} processors"]
    if device["memory_bytes"]:
        texts.append(f"{device['memory_bytes'] / 2**30:.0f} GiB of memory")
    texts.append(known["cpu_capability"])
    if known["cuda"]:
        texts.append(f"CUDA {known['cuda']}, driver {known['driver']}")
    texts += [f"PyTorch {known['torch']}", f"Python {known['python']}", known["system"]]
    texts += [f"{name} {found}" for name, found in known["packages"].items() if found]
    return ", ".join(texts) + "."


def row(record: benchmark.Record) -> str:
    """One run as a row of the table."""
    known = record.provenance
    revision = f"`{known['revision'][:10]}`" + (" (changed)" if known["dirty"] else "")
    cells = [
        f"`{record.name}`",
        known["date"][:16].replace("T", " "),
        revision,
        known["threads"],
        known["clock"],
        len(record.data["cases"]),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(page(text) != text and f"{PAGE} is stale: run this without --check")
    PAGE.write_text(page(text), encoding="utf-8")


if __name__ == "__main__":
    main()
