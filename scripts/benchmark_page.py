"""Write the recorded runs and predictions into book/benchmarks.md, from book/data.

python scripts/benchmark_page.py            # write the page
python scripts/benchmark_page.py --check    # exit 1 if it is stale
"""

import re
import sys
from pathlib import Path

from attn_tutorial import benchmark
from attn_tutorial.benchmark import calibration, decoding, shared_core

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "book" / "benchmarks.md"
HEAD = "| Run | Started (UTC) | Revision | Cases | Repeated | Disturbed | Scattered |"
NO_GPU = "There are no records of a GPU yet.\n"


def page(text: str) -> str:
    """The page with the runs and the predictions as they are in the folders now."""
    names = benchmark.devices()
    parts = [part(name, benchmark.load(name)) for name in names]
    if not any(kind(benchmark.load(name)) == "cuda" for name in names):
        parts.append(NO_GPU)
    text = filled(text, "runs", "\n".join(parts))
    text = filled(text, "two threads", two_threads())
    return filled(text, "predictions", predictions("cpu"))


def filled(text: str, name: str, inside: str) -> str:
    """The text with something else between the two comments of a name."""
    between = rf"(?s)(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)"
    return re.sub(between, lambda found: f"{found[1]}\n{inside}\n{found[2]}", text)


def predictions(name: str) -> str:
    """How far the stored predictions of a machine were off, and the ten worst."""
    machine, judged = calibration.recorded(name)
    facts = machine.facts
    where = (
        f"Calibrated and judged on {facts['name']}, {facts['threads']} thread, "
        f"PyTorch {facts['torch']}, revision `{facts['revision'][:10]}`, "
        f"{facts['started'][:10]}. The cases with the largest errors:\n"
    )
    return "\n".join([where, "```text", calibration.table(judged), "```", ""])


def two_threads() -> str:
    """What a busy core costs, as it was recorded."""
    data = decoding.recorded("shared_core")
    facts, runs = data["provenance"], len(data["runs"])
    cases = len(shared_core.grouped(data))
    where = (
        f"{facts['device']['name']}, PyTorch {facts['torch']}, revision "
        f"`{facts['revision'][:10]}`, {facts['date'][:10]}: {runs // cases} runs of at "
        f"least {data['settings']['least']} rounds, medians; a forward pass with a "
        "window of w, 8 heads of width 64 in float32, FlexAttention with the best of "
        "three block sizes. A ratio above 1 says that the tiles are faster.\n"
    )
    return "\n".join([where, shared_core.table(data), ""])


def kind(records: benchmark.Records) -> str:
    """Whether a device is a CPU or a GPU."""
    return records[0].provenance["device"]["kind"]


def part(name: str, records: benchmark.Records) -> str:
    """One device: its software, its runs, and what they found."""
    lines = [f"### `{name}`", "", facts(records), "", HEAD, "|---" * 7 + "|"]
    lines += [row(record) for record in records]
    if other := next(
        (x for x in benchmark.devices() if name.startswith(f"{x}_")), None
    ):
        return "\n".join([*lines, "", *beside(other, records), ""])
    lines += ["", calls(records), "", *doubts(records)]
    lines += ["", "Median over the runs, with the lowest and the highest:", ""]
    found = [benchmark.limits(records), *benchmark.findings(records)]
    return "\n".join([*lines, *(f"{one.markdown()}\n" for one in found)])


def extended(name: str) -> str | None:
    """The device whose name this one begins with: the same machine."""
    return next((x for x in benchmark.devices() if name.startswith(f"{x}_")), None)


def beside(name: str, records: benchmark.Records) -> list[str]:
    """The same machine with other software: times over those of the first records."""
    found = benchmark.changes(benchmark.load(name), records)
    words = (
        f"The machine of `{name}` with other software. A is `{name}`, B this record:"
    )
    return [words, "", found.markdown()]


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
    if known["driver"]:
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
        len(record.data["cases"]),
        *marked(record),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def marked(record: benchmark.Record) -> list[int]:
    """What was measured again, and what is marked: as disturbed, as scattered."""
    again = sum(x.tries > 1 for x in record.results)
    disturbed = {x.case for x in record.results if x.disturbed}
    return [again, len(disturbed), sum(x.scattered for x in record.results)]


def calls(records: benchmark.Records) -> str:
    """How the runs were measured, and what the columns mean, in words."""
    known, settings = records[0].provenance, records[0].data["settings"]
    how = (
        f"Threads: {known['threads']}. Seconds by: {known['clock']}. A contender has "
        f"at least {settings['least']} rounds, a case {settings['budget']} s of them. "
    )
    if records.differing_settings:
        how = "The runs were measured with different settings: `show` prints them. "
    return how + (
        "The last columns count the results that were measured again, the cases that "
        "are marked as disturbed by other processes, and the results that are marked "
        "because their rounds spread too far."
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
