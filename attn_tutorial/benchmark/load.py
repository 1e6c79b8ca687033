"""Records of runs, read: what each measured, and what several have in common.

    from attn_tutorial import benchmark
    records = benchmark.load("cpu")     # all runs on that device
    case = benchmark.Case("local", 16384, 128)
    records.seconds("tiled", case)                       # median over runs, and range
    records.ratio("local-attention", "tiled", case)      # within each run, then median

Reading needs PyTorch and nothing else.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from attn_tutorial import provenance
from attn_tutorial.benchmark.cases import Case
from attn_tutorial.benchmark.record import SCHEMA_VERSION

__all__ = [
    "FOLDERS",
    "Record",
    "Records",
    "Result",
    "Spread",
    "Unreadable",
    "devices",
    "load",
    "parsed",
    "read",
]

HERE = Path(__file__).resolve().parent
FOLDERS = provenance.data_folders("benchmarks", HERE / "recorded")


class Spread(NamedTuple):
    """Median over independent runs, and the lowest and highest of them."""

    median: float
    low: float
    high: float
    runs: int = 1

    @classmethod
    def over(cls, values: Iterable[float]) -> Spread:
        """Summarise one value per run."""
        values = list(values)
        if not values:
            raise LookupError("no run has this measurement")
        return cls(statistics.median(values), min(values), max(values), len(values))

    def __truediv__(self, unit: float) -> Spread:
        """The same in another unit."""
        return Spread(*(value / unit for value in self[:3]), self.runs)

    def __format__(self, spec: str) -> str:
        """Format as `median (low to high)`; as the median where all look the same."""
        middle, low, high = (format(value, spec or ".3g") for value in self[:3])
        return middle if low == high else f"{middle} ({low} to {high})"

    def __str__(self) -> str:
        return format(self)


@dataclass(frozen=True)
class Result:
    """One contender in one case of one run.

    Attributes:
        run: Name of the record.
        case: What was computed.
        name: The contender.
        seconds: Median seconds of a call, in the kind that the record compares by.
        quartiles: Lower and upper quartile of these.
        minimum: The fastest call.
        rounds: Calls that were timed.
        useful_flops: Operations on the pairs that the case keeps.
        executed_flops: Operations on all pairs that the contender computes.
        compulsory_bytes: Least traffic: inputs read once, results written once.
        peak_bytes: Peak memory above the inputs; None where it was not measured.
        largest_error: Largest difference from the float64 reference.
        matmul_rate: FLOP/s of a large matrix product in the same rounds.
        spread: Interquartile range over median.
        scattered: Whether that is beyond the protocol's limit, even when repeated.
        disturbed: Whether other processes or the host took too much of the case.
        tries: How often its rounds were measured, for either reason.
    """

    run: str
    case: Case
    name: str
    seconds: float
    quartiles: tuple[float, float]
    minimum: float
    rounds: int
    useful_flops: int
    executed_flops: int
    compulsory_bytes: int
    peak_bytes: int | None
    largest_error: float
    matmul_rate: float
    spread: float
    scattered: bool
    disturbed: bool
    tries: int

    @property
    def rate(self) -> float:
        """Useful operations per second."""
        return self.useful_flops / self.seconds

    @property
    def share(self) -> float:
        """Useful rate as a share of the matrix product's rate in the same rounds."""
        return self.rate / self.matmul_rate

    @property
    def tile_tax(self) -> float:
        """Executed operations per useful one."""
        return self.executed_flops / self.useful_flops

    @property
    def intensity(self) -> float:
        """Useful operations per compulsory byte."""
        return self.useful_flops / self.compulsory_bytes


@dataclass(frozen=True)
class Record:
    """One run: what the JSON file says, and its results as objects.

    Attributes:
        name: File name without `.json`, such as "cpu-1".
        data: The file's content.
    """

    name: str
    data: dict[str, Any]

    @property
    def provenance(self) -> dict[str, Any]:
        """Where, when and with what it was measured."""
        return self.data["provenance"]

    @property
    def clock(self) -> str:
        """The kind of seconds that comparisons use (processor, wall or device)."""
        return self.provenance["clock"]

    @cached_property
    def results(self) -> list[Result]:
        """All results."""
        return [
            self._result(entry, found)
            for entry in self.data["cases"]
            for found in entry["results"]
        ]

    def _result(self, entry: dict, found: dict) -> Result:
        seconds = found["seconds"][self.clock]
        product = entry["matmul"]["seconds"][self.clock]["median"]
        same = ("name", "rounds", "executed_flops", "peak_bytes", "largest_error")
        return Result(
            run=self.name,
            case=Case(**entry["case"]),
            seconds=seconds["median"],
            quartiles=tuple(seconds["quartiles"]),
            minimum=seconds["minimum"],
            useful_flops=entry["useful_flops"],
            compulsory_bytes=entry["compulsory_bytes"],
            matmul_rate=entry["matmul"]["flops"] / product,
            spread=found["spread"],
            scattered=found["scattered"],
            disturbed=entry["disturbance"]["disturbed"],
            tries=max(found["tries"], entry["disturbance"]["tries"]),
            **{key: found[key] for key in same},
        )

    def not_run(self, case: Case) -> dict[str, str]:
        """Who did not run a case, and why."""
        for entry in self.data["cases"]:
            if Case(**entry["case"]) == case:
                return entry["not_run"]
        raise LookupError(f"{self.name} has no case {case}")

    def disturbance(self, case: Case) -> dict[str, Any]:
        """What disturbed a case."""
        entries = (x for x in self.data["cases"] if Case(**x["case"]) == case)
        return next(entries)["disturbance"]

    def ceiling(self, kind: str, dtype: str = "float32") -> float:
        """The machine's limit: "matmul" in FLOP/s, or "copy" in bytes/s."""
        limit = self.data["ceilings"][dtype][kind]
        amount = limit["flops" if kind == "matmul" else "bytes"]
        return amount / limit["seconds"][self.clock]["median"]


class Records(list[Record]):
    """Several runs on one device, summarised by median and range over the runs."""

    @property
    def results(self) -> list[Result]:
        """The results of all runs."""
        return [result for record in self for result in record.results]

    @property
    def cases(self) -> list[Case]:
        """All cases, in the order of measurement."""
        return list(dict.fromkeys(result.case for result in self.results))

    def swept(self, sweep: str) -> list[Case]:
        """The cases of one sweep."""
        entries = (entry for record in self for entry in record.data["cases"])
        found = (Case(**e["case"]) for e in entries if sweep in e["sweeps"])
        return list(dict.fromkeys(found))

    @property
    def names(self) -> list[str]:
        """All contenders that ran."""
        return list(dict.fromkeys(result.name for result in self.results))

    @property
    def differing_settings(self) -> dict[str, list[Any]]:
        """Settings in which the runs differ, with each value."""
        settings = [record.data["settings"] for record in self]
        names = settings[0] if settings else ()
        values = {name: [each[name] for each in settings] for name in names}
        return {name: x for name, x in values.items() if any(y != x[0] for y in x)}

    def beside(self, name: str, case: Case) -> Case | None:
        """A case in which a contender that ignores the window computed the same.

        Returns:
            The case itself if it ran there; else one that differs in window or blocks
            only; None if there is none.
        """
        if self.of(name, case):
            return case
        same = replace(case, mechanism="", size=0)
        alike = (x.case for x in self.select(name, n=case.n))
        return next(
            (x for x in alike if replace(x, mechanism="", size=0) == same), None
        )

    def select(self, name: str | None = None, **fields: Any) -> list[Result]:
        """Results by contender, and by any field of `Case`.

        Example:
            >>> Records().select("tiled", mechanism="local", n=4096, backward=False)
            []
        """
        return [
            result
            for result in self.results
            if name in (None, result.name)
            and all(getattr(result.case, key) == x for key, x in fields.items())
        ]

    def of(self, name: str, case: Case) -> list[Result]:
        """A contender's result in each run that has it."""
        return self._index.get((name, case), [])

    @cached_property
    def _index(self) -> dict[tuple[str, Case], list[Result]]:
        index: dict[tuple[str, Case], list[Result]] = {}
        for result in self.results:
            index.setdefault((result.name, result.case), []).append(result)
        return index

    def spread(self, value: Callable[[Result], float], name: str, case: Case) -> Spread:
        """Median and range over the runs of any value of a result."""
        found = self.of(name, case)
        if not found:
            raise LookupError(f"no record of {name!r} in {case}")
        return Spread.over(value(result) for result in found)

    def seconds(self, name: str, case: Case) -> Spread:
        """Seconds of a call."""
        return self.spread(lambda result: result.seconds, name, case)

    def share(self, name: str, case: Case) -> Spread:
        """Useful rate as a share of a large matrix product in the same rounds."""
        return self.spread(lambda result: result.share, name, case)

    def peak_bytes(self, name: str, case: Case) -> Spread:
        """Peak memory above the inputs."""
        found = [x.peak_bytes for x in self.of(name, case) if x.peak_bytes is not None]
        return Spread.over(found)

    def ratio(self, slow: str, fast: str, case: Case) -> Spread:
        """Time of one contender over that of another, within each run."""
        below = {result.run: result.seconds for result in self.of(fast, case)}
        return Spread.over(
            result.seconds / below[result.run]
            for result in self.of(slow, case)
            if result.run in below
        )

    def series(
        self, name: str, case: Case, over: str = "n", value: str = "seconds"
    ) -> dict[int, Spread]:
        """A value against one field of a case, the others as in `case`.

        Args:
            name: The contender.
            case: Gives all fields but one; the value of that one does not matter.
            over: The field that varies, "n" or "size" as a rule.
            value: An attribute of `Result`, such as "seconds" or "peak_bytes".

        Returns:
            Field's value -> median and range over the runs, ascending.
        """
        found: dict[int, list[float]] = {}
        for result in self.results:
            if result.name != name or getattr(result, value) is None:
                continue
            if replace(result.case, **{over: getattr(case, over)}) == case:
                at = getattr(result.case, over)
                found.setdefault(at, []).append(getattr(result, value))
        return {at: Spread.over(found[at]) for at in sorted(found)}

    def slope(self, name: str, case: Case, least: int = 0, **how: str) -> Spread:
        """Exponent p of value ~ n^p, fitted in log-log in each run.

        Args:
            name: The contender.
            case: As in `series`.
            least: Smallest n (or other field) that is used.
            how: `over` and `value` of `series`.
        """
        lines = (Records([record]).series(name, case, **how) for record in self)
        points = [
            {x: s.median for x, s in line.items() if x >= least} for line in lines
        ]
        return Spread.over(exponent(line) for line in points if len(line) > 2)

    def crossover(self, slow: str, fast: str, case: Case) -> Spread:
        """Length n at which `fast` overtakes `slow`, between measured lengths.

        Log-log interpolation in each run; the lowest measured n if `fast` is faster
        throughout.

        Raises:
            LookupError: If `slow` is faster at the longest n that both have.
        """
        return Spread.over(
            meeting_point(
                {n: s.median for n, s in alone.series(slow, case).items()},
                {n: s.median for n, s in alone.series(fast, case).items()},
            )
            for alone in (Records([record]) for record in self)
        )

    def ceiling(self, kind: str, dtype: str = "float32") -> Spread:
        """The machine's limit: "matmul" in FLOP/s, or "copy" in bytes/s."""
        return Spread.over(record.ceiling(kind, dtype) for record in self)

    @property
    def source(self) -> str:
        """One line for a figure with device, software, revision, dates and runs."""
        if not self:
            return "no records"
        known = [record.provenance for record in self]
        name = known[0]["device"]["name"]
        versions = " and ".join(dict.fromkeys(each["torch"] for each in known))
        if known[0]["device"]["kind"] == "cpu":
            name += f", {plural(known[0]['threads'], 'thread')}"
        revisions = sorted({each["revision"][:7] for each in known})
        dates = sorted({each["date"][:10] for each in known})
        return (
            f"{plural(len(self), 'run')} on {name}, PyTorch {versions}, "
            f"revision {' and '.join(revisions)}, "
            f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}"
        )


def plural(count: int, word: str) -> str:
    """A count with its word."""
    return f"{count} {word}" + ("" if count == 1 else "s")


def exponent(points: dict[int, float]) -> float:
    """Least-squares slope of log y against log x."""
    x, y = (
        [math.log(value) for value in side]
        for side in zip(*points.items(), strict=True)
    )
    return statistics.linear_regression(x, y).slope


def meeting_point(slow: dict[int, float], fast: dict[int, float]) -> float:
    """Where the line `fast` goes below the line `slow` for good."""
    common = [n for n in slow if n in fast]
    gaps = [math.log(fast[n] / slow[n]) for n in common]  # below 0: fast is faster
    if not common or gaps[-1] > 0:
        raise LookupError("the first is faster at the longest length that both have")
    late = next((i for i in reversed(range(len(gaps))) if gaps[i] > 0), None)
    if late is None:
        return common[0]
    part = gaps[late] / (gaps[late] - gaps[late + 1])
    before, after = math.log(common[late]), math.log(common[late + 1])
    return math.exp(before + part * (after - before))


# Files


def folder() -> Path:
    """Where the recorded runs are."""
    return next((path for path in FOLDERS if path.is_dir()), FOLDERS[0])


def devices() -> list[str]:
    """Names of the devices that have records."""
    names = (path.stem.rpartition("-")[0] for path in sorted(folder().glob("*-*.json")))
    return list(dict.fromkeys(names))


def load(device: str = "cpu") -> Records:
    """Read all recorded runs on a device.

    Args:
        device: A name from `devices()`; "cpu" for one thread of a CPU.

    Returns:
        The runs in order; none if there are no records of this device.
    """
    paths = sorted(folder().glob("*-*.json"))
    return Records(
        read(path) for path in paths if path.stem.rpartition("-")[0] == device
    )


class Unreadable(ValueError):
    """A file is no record, or one that this package cannot read."""


def read(path: str | Path) -> Record:
    """Read one record.

    Raises:
        Unreadable: If it is no whole record, or of another schema.
        OSError: If there is no such file.
    """
    path = Path(path)
    data = parsed(path)
    _check_schema(path, data)
    record = Record(path.stem, data)
    _check_results(path, record)
    return record


def parsed(path: Path) -> Any:
    """What a file of JSON holds.

    Raises:
        Unreadable: If it is none, or holds NaN.
        OSError: If there is no such file.
    """
    if path.is_dir():
        raise Unreadable(f"{path} is a folder, not a record")
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    except ValueError as reason:  # what is no JSON, or no text at all
        raise Unreadable(f"{path} is no whole JSON file: {reason}") from None


def _refused(constant: str) -> None:
    """Refuse NaN and infinities, which JSON does not have but Python reads."""
    raise ValueError(f"{constant} is no number")


def _check_schema(path: Path, data: Any) -> None:
    version = data.get("schema") if isinstance(data, dict) else None
    if isinstance(version, str) and version.startswith("lab "):
        raise Unreadable(f"{path} is a browser's record: `show` reads it")
    if not isinstance(version, int):
        raise Unreadable(f"{path} is no record of a benchmark: it names no schema")
    if version != SCHEMA_VERSION:
        raise Unreadable(
            f"{path} has schema {version}; this package reads {SCHEMA_VERSION}"
        )


def _check_results(path: Path, record: Record) -> None:
    """Look at all that a record says, so that nothing fails later."""
    try:
        wrong = [x for x in record.results if not x.seconds > 0]
        for dtype in record.data["ceilings"]:
            record.ceiling("matmul", dtype), record.ceiling("copy", dtype)
    except KeyError as missing:
        raise Unreadable(f"{path} is no record of a benchmark: no {missing}") from None
    except (TypeError, ValueError, ArithmeticError, AttributeError) as reason:
        raise Unreadable(f"{path} is no record of a benchmark: {reason}") from None
    if wrong:
        raise Unreadable(f"{path} has {wrong[0].seconds} seconds: {wrong[0].name}")
