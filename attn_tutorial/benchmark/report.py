"""Records as text: tables, ratios, and what follows from them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from attn_tutorial.benchmark.cases import Case
from attn_tutorial.benchmark.load import Records, Spread

__all__ = ["compare", "findings", "limits", "show", "table"]

OURS = "tiled"


def show(records: Records, tables: bool = True) -> str:
    """All that the records say: provenance, limits, tables, findings."""
    parts = [provenance(records), limits(records)]
    if tables:
        parts += [table(records, case) for case in records.cases]
    return "\n\n".join([*parts, "Findings", *findings(records)])


def provenance(records: Records) -> str:
    """Where the runs come from."""
    lines = [records.source]
    for record in records:
        known = record.provenance
        revision = known["revision"][:7] + (" (changed)" if known["dirty"] else "")
        lines.append(
            f"  {record.name}: {known['date']}, revision {revision}, "
            f"suite {record.data['suite']}, {len(record.data['cases'])} cases, "
            f"seconds by {known['clock']}"
        )
    return "\n".join(lines)


def limits(records: Records) -> str:
    """The machine's own limits."""
    lines = ["Limits of the machine, measured in the same runs"]
    for dtype in records[0].data["ceilings"] if records else ():
        rate = scaled(records.ceiling("matmul", dtype), 1e9)
        copied = scaled(records.ceiling("copy", dtype), 1e9)
        lines.append(f"  {dtype:9} matmul {rate:.1f} GFLOP/s, copy {copied:.1f} GB/s")
    return "\n".join(lines)


def scaled(spread: Spread, unit: float) -> Spread:
    """The same in another unit."""
    return Spread(*(x / unit for x in spread[:3]), spread.runs)


# One case


def table(records: Records, case: Case) -> str:
    """A case as text: each contender in one line, then who did not run."""
    lines = [str(case)]
    for name in records.names:
        if records.of(name, case):
            lines.append("  " + line(records, name, case))
    for name, reason in missing(records, case).items():
        lines.append(f"  {name:17} not run: {reason}")
    return "\n".join(lines)


def line(records: Records, name: str, case: Case) -> str:
    """One contender: time, share of matmul, tile tax, ratio to ours, memory, error."""
    result = records.of(name, case)[0]
    parts = [
        f"{name:17} {scaled(records.seconds(name, case), 1e-3):.4g} ms",
        f"{scaled(records.share(name, case), 1e-2):.3g} % of matmul",
        f"executes {result.tile_tax:.3g}x the useful FLOPs",
    ]
    if name != OURS and records.of(OURS, case):
        parts.append(f"{records.ratio(name, OURS, case):.3g}x {OURS}")
    if result.peak_bytes is not None:
        parts.append(f"peak {scaled(records.peak_bytes(name, case), 1e6):.4g} MB")
    parts.append(f"error {result.largest_error:.0e}")
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


# Findings


def findings(records: Records) -> list[str]:
    """What follows from the records: one paragraph each, median and range over runs."""
    parts = (slopes, crossovers, ratios, shares, memory)
    texts = ("\n".join(part(records)) for part in parts)
    return [text for text in texts if "\n" in text]


def lines_of(records: Records) -> Iterator[Case]:
    """The lines of the length sweep: mechanism and pass at w = b = 128."""
    usual = {case.dtype for case in records.cases if case.n == 65536} or {"float32"}
    for mechanism in ("local", "blocks"):
        for backward in (False, True):
            for dtype in sorted(usual):
                yield Case(mechanism, 0, 128, backward=backward, dtype=dtype)


def heading(case: Case) -> str:
    """A line of the length sweep in words."""
    work = "forward + backward" if case.backward else "forward"
    return (
        f"{case.mechanism}, {'b' if case.mechanism == 'blocks' else 'w'} = 128, {work}"
    )


LONG = 2048  # from here on the cost of starting operations hardly counts


def slopes(records: Records) -> Iterator[str]:
    """Exponents of time against n."""
    yield f"Time grows as n^p; p fitted from n = {LONG} on:"
    for case in lines_of(records):
        for name in records.names:
            found = attempt(lambda n=name, c=case: records.slope(n, c, least=LONG))
            if found:
                yield f"  {heading(case)}: {name}: {found:.3f}"


def crossovers(records: Records) -> Iterator[str]:
    """Lengths from which ours is faster."""
    yield f"Length from which {OURS} is faster (interpolated between measured lengths):"
    for case in lines_of(records):
        for name in records.names:
            if name in (OURS, "matmul"):
                continue
            found = attempt(lambda n=name, c=case: records.crossover(n, OURS, c))
            if found:
                least = min(records.series(name, case))
                always = " (shortest length measured)" if found.high <= least else ""
                yield f"  {heading(case)}: than {name}: n = {found:.0f}{always}"


def ratios(records: Records) -> Iterator[str]:
    """Time of each other contender over ours, over all the cases of a kind."""
    yield f"Time of others over the time of {OURS}, lowest to highest case of the grid:"
    for title, cases in kinds(records):
        for name in [*records.names, "best flex"]:
            if name in (OURS, "matmul"):
                continue
            found = [r for case in cases if (r := ratio_to_ours(records, name, case))]
            if found:
                low, high = min(r.median for r in found), max(r.median for r in found)
                worst = min(r.low for r in found)
                yield (
                    f"  {title}: {name}: {low:.2f}x to {high:.2f}x "
                    f"in {len(found)} cases (lowest single run {worst:.2f}x)"
                )


def kinds(records: Records) -> Iterator[tuple[str, list[Case]]]:
    """The grid's cases by mechanism, causality and pass."""
    grid = records.swept("grid")
    for mechanism, causal in (("local", False), ("local", True), ("blocks", False)):
        for backward in (False, True):
            kind = [c for c in grid if (c.mechanism, c.causal, c.backward) == (
                mechanism, causal, backward)]  # fmt: skip
            work = "forward + backward" if backward else "forward"
            yield f"{mechanism}{', causal' if causal else ''}, {work}", kind


def ratio_to_ours(records: Records, name: str, case: Case) -> Spread | None:
    """Time over ours; "best flex" is the fastest block size of FlexAttention."""
    if name != "best flex":
        return attempt(lambda: records.ratio(name, OURS, case))
    sizes = [n for n in records.names if n.startswith("flex") and records.of(n, case)]
    found = [attempt(lambda n=n: records.ratio(n, OURS, case)) for n in sizes]
    return min((r for r in found if r), default=None)


def shares(records: Records) -> Iterator[str]:
    """Useful rate of ours as a share of the matrix product's, by size."""
    yield f"Useful rate of {OURS} as a share of matmul, lowest to highest in the grid:"
    for title, cases in kinds(records):
        for size in sorted({case.size for case in cases}):
            same = [c for c in cases if c.size == size and records.of(OURS, c)]
            found = [scaled(records.share(OURS, case), 1e-2) for case in same]
            if found:
                low, high = min(s.median for s in found), max(s.median for s in found)
                worst = min(s.low for s in found)
                letter = "b" if "blocks" in title else "w"
                yield (
                    f"  {title}, {letter} = {size}: {low:.0f} to {high:.0f} % of matmul"
                    f" (lowest single run {worst:.0f} %)"
                )


def memory(records: Records) -> Iterator[str]:
    """Peak memory above the inputs, in tensors of the size of q and in bytes."""
    yield "Peak memory above the inputs:"
    for case in records.cases:
        for name in records.names:
            found = attempt(lambda n=name, c=case: records.peak_bytes(n, c))
            if found:
                tensors = scaled(found, case.tensor_bytes)
                unit, letter = (1e9, "G") if found.median >= 1e9 else (1e6, "M")
                yield (
                    f"  {case}: {name}: {tensors:.3g} tensors of the size of q, "
                    f"{scaled(found, unit):.3g} {letter}B"
                )


def attempt(measure: Callable[[], Spread]) -> Spread | None:
    """The value, or None where the records do not have it."""
    try:
        return measure()
    except LookupError:
        return None


# Two sets of records


def compare(a: Records, b: Records) -> str:
    """How much the times of b differ from those of a, in cases that both have."""
    changes: dict[str, list[tuple[float, Case]]] = {}
    for case in a.cases:
        for name in a.names:
            if a.of(name, case) and b.of(name, case):
                change = b.seconds(name, case).median / a.seconds(name, case).median
                changes.setdefault(name, []).append((change, case))
    lines = [f"A: {a.source}", f"B: {b.source}", "Time in B over time in A:"]
    if not changes:
        lines.append("  no case in common")
    for name, found in changes.items():
        ordered = sorted(found, key=lambda pair: pair[0])
        middle = statistics.median(change for change, _ in found)
        lines.append(f"  {name}: median {middle:.2f}x in {len(found)} cases")
        lines.append(f"    lowest  {ordered[0][0]:.2f}x: {ordered[0][1]}")
        lines.append(f"    highest {ordered[-1][0]:.2f}x: {ordered[-1][1]}")
    return "\n".join(lines)
