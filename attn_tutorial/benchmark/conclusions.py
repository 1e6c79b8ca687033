"""What follows from the records: tables, with medians and ranges over the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from attn_tutorial.benchmark.cases import FLEX, PATTERNS, Case
from attn_tutorial.benchmark.load import Records, Spread

__all__ = ["Finding", "changes", "findings", "flex_by_time", "limits"]

OURS = "tiled"
LONG = 2048  # from here on the cost of starting operations hardly counts
OR_LESS = " or less"  # it is faster at the shortest length that was measured


@dataclass(frozen=True)
class Finding:
    """A table: what it is about, the columns' names, and rows of texts.

    Example:
        >>> found = Finding("Exponents", ("case", "p"), [("window", "1.01")])
        >>> print(found)
        Exponents
          case    p
          window  1.01
        >>> print(found.markdown())
        **Exponents**
        <BLANKLINE>
        | case | p |
        |---|---|
        | window | 1.01 |
    """

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def __str__(self) -> str:
        widths = [
            max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)
        ]
        lines = [
            "  " + "  ".join(map(str.ljust, row, widths)).rstrip()
            for row in (self.head, *self.rows)
        ]
        return "\n".join([self.title, *lines])

    def markdown(self) -> str:
        """The same for a page."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        texts = ["| " + " | ".join(row) + " |" for row in lines]
        texts[1] = texts[1].replace(" ", "")
        return "\n".join([f"**{self.title}**", "", *texts])


def changes(a: Records, b: Records) -> Finding:
    """Time in b over time in a, for each contender, in the cases that both have."""
    head = ("contender", "cases", "median", "lowest", "highest", "highest in")
    rows = [row for name in a.names if (row := changes_of(name, a, b))]
    return Finding("Time in B over time in A", head, rows)


def changes_of(name: str, a: Records, b: Records) -> tuple[str, ...] | None:
    """The row of a contender, if there is a case that both have."""
    both = [case for case in a.cases if a.of(name, case) and b.of(name, case)]
    if not both:
        return None
    change = {
        case: b.seconds(name, case).median / a.seconds(name, case).median
        for case in both
    }
    most, values = max(change, key=change.get), change.values()
    numbers = median(values), min(values), change[most]
    return name, str(len(both)), *(f"{x:.2f}" for x in numbers), str(most)


def findings(records: Records) -> list[Finding]:
    """What follows from the records; limits apart, and without what has no rows."""
    parts = (slopes, crossovers, ratios, shares, memory)
    return [found for part in parts if (found := part(records)).rows]


def limits(records: Records) -> Finding:
    """The machine's own limits."""
    rows = []
    for dtype in records[0].data["ceilings"] if records else ():
        rate = records.ceiling("matmul", dtype) / 1e9
        copied = records.ceiling("copy", dtype) / 1e9
        rows.append((dtype, f"{rate:.1f}", f"{copied:.1f}"))
    head = ("dtype", "matmul, GFLOP/s", "copy, GB/s")
    return Finding("Limits of the machine, measured in the same runs", head, rows)


# Lines against length


def lines_of(records: Records) -> Iterator[Case]:
    """The length sweeps' lines: pattern, pass and dtype at w = b = 128."""
    for dtype in ("float32", "bfloat16"):
        for mechanism, causal in PATTERNS:
            for backward in (False, True):
                line = Case(mechanism, 0, 128, causal, backward, dtype=dtype)
                if len(records.series(OURS, line)) > 2:
                    yield line


def heading(case: Case) -> str:
    """A line of the length sweep in words."""
    work = "forward + backward" if case.backward else "forward"
    size = "b = 128" if case.mechanism == "blocks" else "w = 128"
    causal = ", causal" if case.causal else ""
    dtype = "" if case.dtype == "float32" else f", {case.dtype}"
    return f"{case.mechanism}, {size}{causal}, {work}{dtype}"


def slopes(records: Records) -> Finding:
    """Exponents of time against n."""
    rows = []
    for case in lines_of(records):
        for name in records.names:
            found = attempt(lambda n=name, c=case: records.slope(n, c, least=LONG))
            rows += [(heading(case), name, f"{found:.3f}")] if found else []
    title = f"Time grows as n^p; p fitted from n = {LONG} on"
    return Finding(title, ("line", "contender", "p"), rows)


def crossovers(records: Records) -> Finding:
    """Lengths from which ours is faster."""
    rows = []
    for case in lines_of(records):
        for name in (x for x in records.names if x not in (OURS, "matmul")):
            found = attempt(lambda n=name, c=case: records.crossover(n, OURS, c))
            if found:
                always = found.high <= min(records.series(name, case))
                rows.append((heading(case), name, f"{found:.0f}{OR_LESS * always}"))
    title = f"Length from which {OURS} is faster, between measured lengths"
    return Finding(title, ("line", "than", "n"), rows)


# The grid


def kinds(records: Records) -> Iterator[tuple[str, list[Case]]]:
    """The grid's cases by mechanism, causality and pass."""
    grid = records.swept("grid")
    for mechanism, causal in PATTERNS:
        for backward in (False, True):
            kind = [c for c in grid if (c.mechanism, c.causal, c.backward) == (
                mechanism, causal, backward)]  # fmt: skip
            work = "forward + backward" if backward else "forward"
            yield f"{mechanism}{', causal' if causal else ''}, {work}", kind


def ratios(records: Records) -> Finding:
    """Time of each other contender over ours, over all the cases of a kind."""
    rows = []
    for title, cases in kinds(records):
        for name in (x for x in records.names if x not in (OURS, "matmul")):
            rows += ratio_row(records, title, cases, name)
        rows += ratio_row(records, title, cases, "best flex")
    head = ("kind", "contender", "lowest", "highest", "cases", "lowest single run")
    title = f"Time over the time of {OURS}, lowest to highest case of the grid"
    return Finding(title, head, rows)


def ratio_row(
    records: Records, title: str, cases: list[Case], name: str
) -> list[tuple[str, ...]]:
    """One contender over ours, or nothing where it never ran."""
    found = [r for case in cases if (r := ratio_to_ours(records, name, case))]
    if not found:
        return []
    label = best_label(records, cases) if name == "best flex" else name
    low, high = min(r.median for r in found), max(r.median for r in found)
    worst = min(r.low for r in found)
    numbers = f"{low:.2f}x", f"{high:.2f}x", str(len(found)), f"{worst:.2f}x"
    return [(title, label, *numbers)]


def ratio_to_ours(records: Records, name: str, case: Case) -> Spread | None:
    """Time over ours; "best flex" is the fastest block size of FlexAttention."""
    if name == "best flex":
        name = next(iter(flex_by_time(records, case)), name)
    return attempt(lambda: records.ratio(name, OURS, case))


def best_label(records: Records, cases: list[Case]) -> str:
    """Says which block sizes were the fastest of FlexAttention in some cases."""
    fastest = {name for case in cases for name in flex_by_time(records, case)[:1]}
    sizes = " or ".join(name.split()[1] for name in FLEX if name in fastest)
    return f"best flex (blocks of {sizes})"


def shares(records: Records) -> Finding:
    """Useful rate of ours as a share of the matrix product's, by size."""
    rows = []
    for title, cases in kinds(records):
        for size in sorted({case.size for case in cases}):
            same = [c for c in cases if c.size == size and records.of(OURS, c)]
            found = [records.share(OURS, case) / 1e-2 for case in same]
            if found:
                low, high = min(s.median for s in found), max(s.median for s in found)
                worst = min(s.low for s in found)
                numbers = f"{low:.0f} to {high:.0f} %", f"{worst:.0f} %"
                rows.append((title, str(size), *numbers))
    head = ("kind", "w or b", "of matmul", "lowest single run")
    title = f"Useful rate of {OURS} as a share of matmul, lowest to highest in the grid"
    return Finding(title, head, rows)


# Memory


def memory(records: Records) -> Finding:
    """Peak memory above the inputs, in tensors of the size of q and in bytes."""
    rows = []
    for case in records.cases:
        for name in records.names:
            found = attempt(lambda n=name, c=case: records.peak_bytes(n, c))
            if found:
                tensors = found / case.tensor_bytes
                unit, letter = (1e9, "G") if found.median >= 1e9 else (1e6, "M")
                size = f"{found / unit:.3g} {letter}B"
                rows.append((str(case), name, f"{tensors:.3g}", size))
    head = ("case", "contender", "tensors of the size of q", "bytes")
    return Finding("Peak memory above the inputs", head, rows)


def attempt(measure: Callable[[], Spread]) -> Spread | None:
    """The value, or None where the records do not have it."""
    try:
        return measure()
    except LookupError:
        return None


def flex_by_time(records: Records, case: Case) -> list[str]:
    """FlexAttention's block sizes that ran, the fastest first."""
    sizes = [n for n in records.names if n in FLEX and records.of(n, case)]
    return sorted(sizes, key=lambda name: records.seconds(name, case).median)
