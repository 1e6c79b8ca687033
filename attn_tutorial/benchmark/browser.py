"""Records that a browser made, read: the page that times attention by WebGPU.

    python -m attn_tutorial.benchmark show webgpu-2026-12-01.json

A visitor downloads such a record from the book's page "Time it on your GPU". Its cases
are those of `Case`. What a page cannot know is left out: a matrix product to compare
with, memory, other processes. So it is checked by rules of its own, counts included,
and shown beside recorded runs of ours by what does not depend on the device: rates on
kept pairs, time over the time of full attention, and growth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from attn_tutorial.benchmark.cases import Case
from attn_tutorial.benchmark.conclusions import OURS, Finding
from attn_tutorial.benchmark.load import Records, Unreadable, exponent, parsed
from attn_tutorial.benchmark.report import FULL

__all__ = ["BROWSER_SCHEMA", "BrowserRecord", "Timed", "is_browser", "read", "show"]

BROWSER_SCHEMA = "lab 1"
TOLERANCE = 1e-4  # the page times nothing that is further off
KINDS = {"gpu": "a GPU", "cpu": "a processor, not a GPU"}
CLOCKS = {"device": "the device's own clock", "wall": "the clock on the wall"}
MECHANISMS = ("full", "local", "blocks")


class Timed(NamedTuple):
    """One mechanism at one length: median seconds of a call, and the middle half."""

    case: Case
    seconds: float
    quartiles: tuple[float, float]
    largest_error: float

    @property
    def rate(self) -> float:
        """Useful operations per second: those on pairs that the pattern keeps."""
        return self.case.useful_flops / self.seconds


@dataclass(frozen=True)
class BrowserRecord:
    """A run in a browser: what the JSON file says, and its times as objects.

    Attributes:
        name: File name without `.json`.
        data: The file's content.
        times: What was timed, in the order of measurement.
    """

    name: str
    data: dict[str, Any]
    times: tuple[Timed, ...]

    @property
    def device(self) -> str:
        """Name of the device, and what it is."""
        found = self.data["provenance"]["device"]
        return f"{found['name']} ({KINDS[found['kind']]})"

    def series(self, mechanism: str) -> dict[int, Timed]:
        """Tokens -> times of a mechanism, ascending."""
        found = {t.case.n: t for t in self.times if t.case.mechanism == mechanism}
        return dict(sorted(found.items()))


def longer_half(points: dict[int, float]) -> dict[int, float]:
    """The longer half of the lengths, three at least, as the page fits them."""
    kept = sorted(points)[-max(3, math.ceil(len(points) / 2)) :]
    return {n: points[n] for n in kept}


# Reading


def is_browser(path: str | Path) -> bool:
    """Whether a file says that it is a browser's record."""
    if not Path(path).is_file():
        return False
    try:
        data = parsed(Path(path))
    except Unreadable:
        return False
    return isinstance(data, dict) and str(data.get("schema")).startswith("lab ")


def read(path: str | Path) -> BrowserRecord:
    """Read a browser's record, and check all that it says.

    Raises:
        Unreadable: If it is no whole record, of another schema, or if one of its
            counts, times or errors cannot be.
        OSError: If there is no such file.
    """
    path = Path(path)
    data = parsed(path)
    try:
        if data["schema"] != BROWSER_SCHEMA:
            raise ValueError(f"schema {data['schema']!r}, known is {BROWSER_SCHEMA!r}")
        _check_provenance(data["provenance"])
        times = tuple(_times(data))
    except KeyError as missing:
        raise Unreadable(f"{path} is no browser's record: no {missing}") from None
    except (TypeError, ValueError, AttributeError) as reason:
        raise Unreadable(f"{path} is no browser's record: {reason}") from None
    return BrowserRecord(path.stem, data, times)


def _check_provenance(known: dict) -> None:
    """When, where and with what it was measured."""
    for name, value, allowed in (
        ("kind", known["device"]["kind"], KINDS),
        ("clock", known["clock"], CLOCKS),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value}")
    for value in (known["device"]["name"], known["browser"], known["date"]):
        if not (isinstance(value, str) and value):
            raise ValueError(f"device, browser and date must be texts, got {value!r}")


def _times(data: dict) -> Iterator[Timed]:
    """The times of all cases that were run."""
    for entry in data["cases"]:
        case = Case(**entry["case"])
        if case.mechanism not in MECHANISMS:
            raise ValueError(f"no mechanism {case.mechanism!r}")
        for name in ("useful_flops", "compulsory_bytes"):
            if entry[name] != getattr(case, name):
                raise ValueError(f"{name} of {case} is {getattr(case, name)}, "
                                 f"got {entry[name]}")  # fmt: skip
        for found in entry["results"]:
            yield _timed(case, found, data["provenance"]["clock"])


def _timed(case: Case, found: dict, clock: str) -> Timed:
    """One result, if it can be true."""
    seconds, error = found["seconds"][clock], found["largest_error"]
    low, high = seconds["quartiles"]
    if not 0 < seconds["minimum"] <= low <= seconds["median"] <= high:
        raise ValueError(f"seconds of {case} are not in order: {seconds}")
    if not 0 <= error <= TOLERANCE:
        raise ValueError(f"largest_error of {case} is {error}, above {TOLERANCE}")
    if found["executed_flops"] < case.useful_flops:
        raise ValueError(f"{case} executes fewer operations than it keeps")
    return Timed(case, seconds["median"], (low, high), error)


# Showing


def show(record: BrowserRecord, ours: Records) -> str:
    """Whose device it was, its times, and the same of recorded runs of ours.

    Args:
        record: A browser's record.
        ours: Runs on one device, such as `load("cpu")`; none leaves the columns empty.
    """
    known = record.data["provenance"]
    lines = [
        f"A browser's record, {record.name}",
        f"  theirs: {record.device}, {known['date']}, by {CLOCKS[known['clock']]}",
        f"  {known['browser']}",
        f"  ours: {ours.source}",
        "  Other programs on other devices: compare what a window saves and how time "
        "grows.",
    ]
    if known["device"]["kind"] == "cpu":
        lines.append("  Theirs ran on a processor: its times say nothing of a GPU.")
    parts = ["\n".join(lines), str(lengths(record, ours)), str(grown(record, ours))]
    return "\n\n".join(parts)


def lengths(record: BrowserRecord, ours: Records) -> Finding:
    """Each time, its rate, and time over that of full attention: theirs and ours."""
    full = {n: one.seconds for n, one in record.series("full").items()}
    rows = [
        (
            f"{one.case.n:,}",
            called(one.case),
            f"{one.seconds / 1e-3:.3g}",
            " to ".join(f"{x / 1e-3:.3g}" for x in one.quartiles),
            *rate_and_share(one.case, one.seconds, full),
            *rate_and_share(*of_ours(one.case, ours)),
        )
        for one in record.times
    ]
    head = ("n", "mechanism", "ms", "middle half", "GFLOP/s", "of full")
    title = "Forward, float32; GFLOP/s counts kept pairs"
    return Finding(title, (*head, "ours: GFLOP/s", "of full"), rows)


def called(case: Case) -> str:
    """A mechanism and its size."""
    letter = {"local": "w", "blocks": "b"}.get(case.mechanism)
    return f"{case.mechanism}, {letter} = {case.size}" if letter else case.mechanism


def rate_and_share(
    case: Case, seconds: float | None, full: dict[int, float]
) -> tuple[str, str]:
    """GFLOP/s, and time over that of full attention; empty where unknown."""
    if seconds is None:
        return "", ""
    rate = f"{case.useful_flops / seconds / 1e9:.3g}"
    return rate, f"{seconds / full[case.n]:.3g}" if case.n in full else ""


def of_ours(case: Case, ours: Records) -> tuple[Case, float | None, dict[int, float]]:
    """The case as ours ran it, its seconds, and those of full attention by length."""
    full = seconds_of_ours(replace(case, mechanism="full", size=0), ours)
    same = replace(case, heads=Case.heads)
    return same, seconds_of_ours(case, ours).get(case.n), full


def seconds_of_ours(line: Case, ours: Records) -> dict[int, float]:
    """Median seconds of ours by length, with the same size and width of a head.

    The number of heads may differ: what is shown does not depend on it. Full attention
    ran beside the windows of 128.
    """
    name, alike = OURS, replace(line, heads=Case.heads)
    if line.mechanism == "full":
        name, alike = FULL, replace(alike, mechanism="local", size=128)
    return {n: x.median for n, x in ours.series(name, alike).items()}


def grown(record: BrowserRecord, ours: Records) -> Finding:
    """Exponents of time against length, theirs and ours over the same lengths."""
    rows = []
    for mechanism in MECHANISMS:
        found = {n: one.seconds for n, one in record.series(mechanism).items()}
        if len(found) > 2:
            line = record.series(mechanism)[min(found)].case
            kept = longer_half(found)
            mine = {n: x for n, x in seconds_of_ours(line, ours).items() if n in kept}
            p = f"{exponent(mine):.2f}" if len(mine) > 2 else ""
            rows.append((called(line), f"{min(kept):,}", f"{exponent(kept):.2f}", p))
    head = ("mechanism", "from n", "theirs: p", "ours: p")
    return Finding(
        "Time grows as n^p over the longer half of their lengths", head, rows
    )
