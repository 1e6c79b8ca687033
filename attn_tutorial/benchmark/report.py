"""Records as text: where they come from, each case, and what follows from all."""

from __future__ import annotations

from collections.abc import Iterator

from attn_tutorial.benchmark import conclusions
from attn_tutorial.benchmark.cases import Case
from attn_tutorial.benchmark.conclusions import OURS, findings, flex_by_time, limits
from attn_tutorial.benchmark.load import Record, Records
from attn_tutorial.benchmark.protocol import RUNS

__all__ = ["compare", "show", "table"]

MARKS = ("disturbed", "scattered")  # attributes of a result


def show(records: Records, tables: bool = True) -> str:
    """All that the records say: provenance, limits, tables, findings."""
    parts = [origins(records), protocol(records), str(limits(records))]
    if tables:
        told: set[tuple[str, str]] = set()
        parts += [table(records, case, told) for case in records.cases]
    return "\n\n".join([*parts, "Findings", *map(str, findings(records))])


def origins(records: Records) -> str:
    """Where the runs come from."""
    lines = [records.source]
    for record in records:
        known = record.provenance
        revision = known["revision"][:7] + (" (changed)" if known["dirty"] else "")
        lines.append(
            f"  {record.name}: {known['date']}, revision {revision}, "
            f"suite {record.data['suite']}, {len(record.data['cases'])} cases, "
            f"seconds by {known['clock']}, PyTorch {known['torch']}"
        )
    return "\n".join([*lines, *instructions(records)])


def instructions(records: Records) -> list[str]:
    """The processors' vector instructions, and those that PyTorch uses."""
    found = {}
    for record in records:
        known = record.provenance
        listed = known["vector_instructions"]
        text = "unknown" if listed is None else " ".join(listed) or "none"
        used = known["cpu_capability"]
        found.setdefault(f"{text}; PyTorch uses {used}", []).append(record.name)
    if len(found) == 1:
        return [f"Vector instructions: {text}" for text in found]
    return [
        f"Vector instructions of {', '.join(x)}: {text}" for text, x in found.items()
    ]


# The protocol: were the runs measured alike, and which results are marked?


def protocol(records: Records) -> str:
    """How the runs were measured, in what they differ, and what is marked."""
    lines = ["Protocol", *settings(records)]
    if len(records) < RUNS:
        lines.append(f"  runs: {len(records)}; a published number needs {RUNS}")
    found = marks(records)
    lines.append(f"  marked: {len(found) or 'nothing'}")
    return "\n".join([*lines, *(f"    {mark}" for mark in found)])


def settings(records: Records) -> Iterator[str]:
    """The settings that all runs have, and a warning where they differ."""
    different = records.differing_settings
    same = records[0].data["settings"] if records else {}
    alike = [f"{name} {x}" for name, x in same.items() if name not in different]
    if alike:
        yield f"  {', '.join(alike)}"
    if different:
        yield "  The runs were measured with different settings:"
    for name, values in different.items():
        pairs = zip(values, records, strict=True)
        texts = (f"{value} ({record.name})" for value, record in pairs)
        yield f"    {name}: {', '.join(texts)}"


def marks(records: Records) -> list[str]:
    """Cases that were disturbed, and contenders whose rounds are scattered."""
    lines = []
    for record in records:
        cases = dict.fromkeys(x.case for x in record.results if x.disturbed)
        lines += [disturbed(record, case) for case in cases]
        lines += [
            f"scattered, {record.name}: {x.name}, {x.case} (spread {x.spread:.2f})"
            for x in record.results
            if x.scattered
        ]
    return lines


def disturbed(record: Record, case: Case) -> str:
    """A disturbed case, and how much others and the host took."""
    found = record.disturbance(case)
    shares = f"others {found['others']:.0%}, host {found['stolen']:.0%}"
    return f"disturbed, {record.name}: {case} ({shares})"


# One case


def table(
    records: Records, case: Case, told: set[tuple[str, str]] | None = None
) -> str:
    """A case as text: each contender in one line, then who did not run.

    Args:
        records: Runs on one device.
        case: Which case.
        told: Who cannot run, and why, as was told before: it is not told again, and
            what is told here is added. None tells all.
    """
    lines = [str(case)]
    for name in records.names:
        if records.of(name, case):
            lines.append("  " + line(records, name, case))
    lines += full_beside(records, case)
    told = set() if told is None else told
    for name, reason in missing(records, case).items():
        if (name, reason) not in told:
            lines.append(f"  {name:17} not run: {reason}")
            told.add((name, reason))
    return "\n".join(lines)


FULL = "sdpa full"


def full_beside(records: Records, case: Case) -> list[str]:
    """Full attention where it ran in a case of another window only.

    It ignores the window, so that its time there is its time here. No ratio is given,
    since the rounds were not the same.
    """
    other = records.beside(FULL, case)
    if other in (None, case):
        return []
    seconds = records.seconds(FULL, other) / 1e-3
    return [f"  {FULL:17} {seconds:.4g} ms, in the case: {other}"]


def line(records: Records, name: str, case: Case) -> str:
    """One contender: time, share of matmul, tile tax, ratio to ours, memory, error."""
    result = records.of(name, case)[0]
    parts = [
        f"{name:17} {records.seconds(name, case) / 1e-3:.4g} ms",
        f"{records.share(name, case) / 1e-2:.3g} % of matmul",
        f"executes {result.tile_tax:.3g}x the useful FLOPs",
    ]
    if name != OURS and records.of(OURS, case):
        parts.append(f"{records.ratio(name, OURS, case):.3g}x {OURS}")
    if result.peak_bytes is not None:
        parts.append(f"peak {records.peak_bytes(name, case) / 1e6:.4g} MB")
    parts.append(f"error {result.largest_error:.0e}")
    best, *others = flex_by_time(records, case) or [""]
    if name == best and others:
        parts.append("the best block size")
    found = records.of(name, case)
    parts += [mark for mark in MARKS if any(getattr(x, mark) for x in found)]
    return ", ".join(parts)


def missing(records: Records, case: Case) -> dict[str, str]:
    """Who did not run a case in any run, and why."""
    reasons = {}
    for record in records:
        try:
            reasons |= record.not_run(case)
        except LookupError:
            continue
    return {n: why for n, why in reasons.items() if not records.of(n, case)}


# Two sets of records


def unlike(a: Records, b: Records) -> Iterator[str]:
    """In what the two differ that may explain a difference in time."""
    if not (a and b):
        return
    known = [records[0].provenance for records in (a, b)]
    for name in ("torch", "python", "threads", "cpu_capability", "vector_instructions"):
        one, other = (each[name] for each in known)
        if one != other:
            yield f"They differ in {name.replace('_', ' ')}: A {one}, B {other}"
    if Records([*a[:1], *b[:1]]).differing_settings:
        yield "They were measured with different settings: see show"


def compare(a: Records, b: Records) -> str:
    """How much the times of b differ from those of a, in cases that both have."""
    lines = [f"A: {a.source}", f"B: {b.source}", *unlike(a, b)]
    found = conclusions.changes(a, b)
    return "\n".join([*lines, str(found) if found.rows else "no case in common"])
