"""The table of a GPU run: times, rates, and how close they are to what is possible.

`python -m attn_tutorial.benchmark.gpu_table OUT` prints it for the folder of a run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from attn_tutorial.benchmark.cases import Case
from attn_tutorial.benchmark.gpu_suite import FULL, PUBLISHED, failures
from attn_tutorial.benchmark.load import Record, Records, Result, read

__all__ = ["bound", "dense_rate", "main", "table"]

TILE = 128  # queries; a tile of them meets as many keys in vain, w / (w + 128) at best
HEAD = (
    f"  {'':17} {'ms':>9} {'backward':>9} {'TFLOP/s':>9} {'of bound':>8} "
    f"{'x flex':>6} {'MB':>8}"
)
EXPLAINED = """ms: median of a call, forward or forward and backward.
backward: that minus the forward alone.
TFLOP/s: on kept pairs (of the full ones: on all that they compute).
of bound: share of the dense rate of this run times reach / (reach + 128), the best
that tiles of 128 queries can do; with heads that share keys in one tile, more can.
reach: keys that a query sees besides its own.
x flex: how many times faster than the best FlexAttention of this run. MB: peak memory
above the inputs."""


def table(out: Path) -> str:
    """All that the folder of a run holds, as text."""
    path = out / "gpu-1.json"
    if not path.exists():
        return "\n".join(["no case was measured", *failures(out)])
    found = read(path)
    lines = [Records([found]).source, EXPLAINED]
    for entry in found.data["cases"]:
        case = Case(**entry["case"])
        lines += ["", str(case), *published(case), HEAD]
        lines += [row(found, result) for result in results_of(found, case)]
        lines += [
            f"  {name:17} not run: {' '.join(reason.split())[:100]}"
            for name, reason in entry["not_run"].items()
        ]
    lines += ["", f"{len(found.data['cases'])} cases measured"]
    return "\n".join([*lines, *(f"failed: {line}" for line in failures(out))])


def published(case: Case) -> Iterator[str]:
    """What others have published for a case."""
    if case in PUBLISHED:
        yield f"  published: {PUBLISHED[case]}"


def row(found: Record, result: Result) -> str:
    """One contender in one case."""
    values = (
        f"{1e3 * result.seconds:.4g}",
        written(backward_alone(found, result), 1e3),
        f"{rate(result) / 1e12:.3g}",
        written(of_bound(found, result)),
        written(over_flex(found, result)),
        written(result.peak_bytes, 1e-6),
    )
    widths = (9, 9, 9, 8, 6, 8)
    cells = (f"{x:>{width}}" for x, width in zip(values, widths, strict=True))
    return f"  {result.name:17}" + "".join(f" {cell}" for cell in cells)


def written(value: float | None, factor: float = 1.0) -> str:
    """A number with three digits; a dash for None."""
    return "-" if value is None else f"{value * factor:.3g}"


def results_of(found: Record, case: Case) -> list[Result]:
    """Who ran a case, the fastest first."""
    same = [result for result in found.results if result.case == case]
    return sorted(same, key=lambda result: result.seconds)


def rate(result: Result) -> float:
    """Operations a second: on kept pairs, or on all where all are computed."""
    full = result.name in FULL
    return (result.executed_flops if full else result.useful_flops) / result.seconds


def backward_alone(found: Record, result: Result) -> float | None:
    """Seconds of the backward pass, where the forward was measured too."""
    if not result.case.backward:
        return None
    forward = results_of(found, replace(result.case, backward=False))
    alone = (r.seconds for r in forward if r.name == result.name)
    return next((result.seconds - seconds for seconds in alone), None)


def bound(case: Case) -> float:
    """Largest useful share of the dense rate for tiles of 128 queries."""
    reach = case.size if case.causal else 2 * case.size
    return reach / (reach + TILE)


def dense_rate(found: Record, case: Case) -> float | None:
    """The best rate over all pairs: in this case, else at the same width and pass."""
    full = [result for result in found.results if result.name in FULL]
    alike = [
        r
        for r in full
        if (r.case.d, r.case.dtype, r.case.backward)
        == (case.d, case.dtype, case.backward)
    ]
    here = [r for r in alike if r.case == case]
    return max(map(rate, here or alike), default=None)


def of_bound(found: Record, result: Result) -> float | None:
    """The useful rate as a share of what the bound allows."""
    dense = dense_rate(found, result.case)
    if dense is None or result.name in FULL:
        return None
    return rate(result) / (dense * bound(result.case))


def over_flex(found: Record, result: Result) -> float | None:
    """Time of the best FlexAttention over this one."""
    flex = [r for r in results_of(found, result.case) if r.name.startswith("flex")]
    return flex[0].seconds / result.seconds if flex else None


def main(out: str) -> None:
    """Print the table of a folder."""
    print(table(Path(out)))


if __name__ == "__main__":
    main(sys.argv[1])
