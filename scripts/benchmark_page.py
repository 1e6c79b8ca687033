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
HEAD = (
    "| Run | Started (UTC) | Revision | Threads | Seconds by | Cases | Least calls "
    "| Budget of a case | Of two calls | Of three | Disturbed cases | Scattered |"
)
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
    lines = [f"### `{name}`", "", facts(records), "", HEAD, "|---" * 12 + "|"]
    lines += [row(record) for record in records]
    lines += ["", calls(records), "", *doubts(records)]
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
    if known.get("vector_instructions"):
        texts.append(" ".join(known["vector_instructions"]))
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
        record.data["settings"]["least"],
        f"{record.data['settings']['budget']} s",
        f"{share_of_calls(record, 2):.0%}",
        f"{share_of_calls(record, 3):.0%}",
        *marked(record),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def marked(record: benchmark.Record) -> list[str | int]:
    """How many cases are marked as disturbed, and how many results as scattered."""
    if not all("disturbance" in entry for entry in record.data["cases"]):
        return ["not recorded", "not recorded"]
    disturbed = {x.case for x in record.results if x.disturbed}
    return [len(disturbed), sum(x.scattered for x in record.results)]


def share_of_calls(record: benchmark.Record, count: int) -> float:
    """The share of a run's medians that are medians of so many calls."""
    return sum(x.rounds == count for x in record.results) / len(record.results)


def calls(records: benchmark.Records) -> str:
    """How many calls stand behind the medians, in words."""
    settings = [record.data["settings"] for record in records]
    same = all(each == settings[0] for each in settings)
    first = "" if same else "The runs were measured with different settings. "
    return first + (
        "The columns say how many calls a contender got at least, how long the rounds "
        "of a case went on, and which share of the medians are medians of two or of "
        "three calls. A median of two calls is their mean, and one stalled call moves "
        "it as far as it likes. The last two count what the protocol marks: cases that "
        "other processes disturbed, and results whose rounds spread too far."
    )


def doubts(records: benchmark.Records, factor: float = 2.0) -> list[str]:
    """The results in which the runs disagree by more than a factor."""
    lines, pairs = [], {(x.name, x.case): None for x in records.results}
    for name, case in pairs:
        found = records.of(name, case)
        time = [result.seconds for result in found]
        if max(time) > factor * min(time):
            said = " and ".join(f"{1e3 * x.seconds:.1f} ms ({x.rounds})" for x in found)
            lines.append(f"- `{name}`, {case}: {said}")
    if not lines:
        return [f"In no result do the runs differ by more than {factor:g}x."]
    head = f"The runs differ by more than {factor:g}x in {len(lines)} of {len(pairs)} "
    return [f"{head}results (calls in brackets); distrust these:", "", *lines]


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(page(text) != text and f"{PAGE} is stale: run this without --check")
    PAGE.write_text(page(text), encoding="utf-8")


if __name__ == "__main__":
    main()
