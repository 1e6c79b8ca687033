"""How long a call will take here: counted work, at prices measured in half a minute.

    python -m attn_tutorial.benchmark calibrate
    python -m attn_tutorial.benchmark predict local --n 65536 --size 256
    python -m attn_tutorial.benchmark judge --out judgement.json

A price is fitted for each part of the work (`cost.Work`), for each routine, dtype and
direction apart, to a few dozen calls that are timed in turn. `judge_predictions` draws
other cases and compares what was predicted with what a call takes.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

import attn_tutorial as at
from attn_tutorial import cost, provenance
from attn_tutorial.benchmark.cases import Case
from attn_tutorial.cost import Work
from attn_tutorial.local import window_tile
from attn_tutorial.sparse import block_tiles
from attn_tutorial.tiled import Slab, slab_scores

__all__ = [
    "FOLDERS",
    "HERE",
    "Judged",
    "Machine",
    "calibrate",
    "judge_predictions",
    "recorded",
    "work_of",
]

BESIDE = Path(__file__).resolve().parent
FOLDERS = provenance.data_folders("predictions", BESIDE / "predicted")
HERE = provenance.user_cache() / "machine.json"
DTYPES = ("float32", "bfloat16")
CPU = torch.device("cpu")


def work_of(case: Case) -> Work:
    """Count what the tiled routine does in a case, or PyTorch's where all pairs attend.

    Example:
        >>> tuple(work_of(Case("full", 1024, heads=2)))
        (134217728, 2097152, 131072, 131072, 2, 1, 1)
    """
    heads, d = case.heads, case.d
    numbers = heads * case.n * d
    if case.mechanism == "full":
        pairs = heads * cost.kept_pairs(case.pattern, case.n)
        return Work(pairs * d, pairs, numbers, numbers, heads, 1, 1)
    slabs = list(slabs_of(case))
    pairs = heads * sum(slab.count * slab.rows * slab.keys for slab in slabs)
    keys = heads * sum(slab.count * slab.keys for slab in slabs)
    tiles = heads * sum(slab.count for slab in slabs)
    calls = sum(map(backward_calls(case), slabs)) if case.backward else len(slabs)
    return Work(pairs * d, pairs, numbers, keys * d, tiles, calls, 1)


def slabs_of(case: Case) -> Iterator[Slab]:
    """The slabs in which the tiled routine works."""
    if case.mechanism == "local":
        tiles = (window_tile(min(case.size, case.n - 1), case.causal),)
    else:
        tiles = block_tiles(min(case.size, case.n), case.causal)
    for tile in tiles:
        most = slab_scores(CPU) // (case.heads * tile.rows * tile.keys)
        yield from tile.slabs(case.n, case.n, 0, max(1, most))


def backward_calls(case: Case) -> Callable[[Slab], int]:
    """Products of a slab in the backward pass: a head or a tile at a time."""

    def calls(slab: Slab) -> int:
        scores = case.heads * slab.rows * slab.keys
        if slab.count < case.heads and scores <= slab_scores(CPU) // 8:
            return slab.count * 5
        apart = min(math.ceil(slab.keys / slab.step), slab.count)
        return case.heads * (3 + 2 * apart)

    return calls


def kind(case: Case) -> str:
    """Which prices hold for a case."""
    routine = "full" if case.mechanism == "full" else "tiled"
    return f"{routine} {case.dtype} {'backward' if case.backward else 'forward'}"


@dataclass(frozen=True)
class Machine:
    """A computer's prices, by `kind`, and what it is.

    Attributes:
        prices: Seconds of one unit of each part of the work.
        facts: What and when it was.
    """

    prices: dict[str, Work]
    facts: dict

    def predict(self, case: Case) -> float:
        """Seconds of a call.

        Raises:
            ValueError: If no such case was calibrated.
        """
        if kind(case) not in self.prices:
            raise ValueError(
                f"case must be one of {sorted(self.prices)}, got {kind(case)!r}"
            )
        return cost.predict(work_of(case), self.prices[kind(case)])

    def write(self, path: Path = HERE) -> None:
        """Write to a file of JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        prices = {name: list(price) for name, price in self.prices.items()}
        path.write_text(json.dumps({"prices": prices, "facts": self.facts}, indent=1))

    @classmethod
    def read(cls, path: Path = HERE) -> Machine:
        """Read what was written.

        Raises:
            FileNotFoundError: If there is no such file: calibrate first.
        """
        data = json.loads(path.read_text())
        prices = {name: Work(*price) for name, price in data["prices"].items()}
        return cls(prices, data["facts"])


# Calibration


def calibrate(rounds: int = 3, dtypes: Iterable[str] = DTYPES) -> Machine:
    """Time a few dozen calls in turn, and fit the prices to their medians."""
    cases = [case for dtype in dtypes for case in calibration_cases(dtype)]
    seconds = times(cases, rounds)
    prices = {}
    for name in dict.fromkeys(map(kind, cases)):
        own = [case for case in cases if kind(case) == name]
        prices[name] = fitted(
            [work_of(case) for case in own], [seconds[c] for c in own]
        )
    facts = provenance.software() | provenance.device_facts("cpu")
    return Machine(prices, facts | {"started": provenance.utc(time.time())})


def calibration_cases(dtype: str) -> Iterator[Case]:
    """Short cases of each kind, enough to set the parts of the work apart."""
    for backward in (False, True):
        wanted = {"tiled": 32, "full": 14}
        for case in random_cases(seed=2017):
            routine = kind(case).partition(" ")[0]
            case = replace(case, dtype=dtype, backward=backward)
            if wanted[routine] and work_of(case).products < (
                1.5e8 if backward else 6e8
            ):
                wanted[routine] -= 1
                yield case
            if not any(wanted.values()):
                break


def times(cases: list[Case], rounds: int) -> dict[Case, float]:
    """Median seconds of each case; all in turn, in random order, round after round."""
    samples: dict[Case, list[float]] = {case: [] for case in cases}
    for number in range(rounds + 1):
        for case in random.sample(cases, len(cases)):
            seconds = timed(case)
            if number:  # the first round warms up
                samples[case].append(seconds)
    return {case: statistics.median(values) for case, values in samples.items()}


def timed(case: Case, least: float = 0.005) -> float:
    """Seconds of a call; short ones are repeated."""
    run, calls, spent = runner(case), 0, 0.0
    run()
    while spent < least:
        start = time.perf_counter()
        run()
        spent, calls = spent + time.perf_counter() - start, calls + 1
    return spent / calls


def runner(case: Case) -> Callable[[], object]:
    """A call of a case, without arguments."""
    *inputs, grad = case.inputs()
    attend = routine(case)

    def run() -> object:
        output = attend(*inputs)
        return torch.autograd.grad(output, inputs, grad) if case.backward else output

    return run


def routine(case: Case) -> Callable:
    """What computes a case."""
    if case.mechanism == "full":
        fused = torch.nn.functional.scaled_dot_product_attention
        return lambda q, k, v: fused(q, k, v, is_causal=case.causal)
    if case.mechanism == "local":
        return lambda q, k, v: at.local_attention(
            q, k, v, case.size, causal=case.causal
        )
    return lambda q, k, v: at.sparse_attention(
        q, k, v, block_size=case.size, causal=case.causal
    )


def fitted(works: list[Work], seconds: list[float]) -> Work:
    """Prices, none below zero, whose relative errors have the least squares.

    Example:
        >>> works = [Work(*parts, 0, 0, 0, 0, 1) for parts in ((1, 0), (2, 1), (1, 2))]
        >>> [round(price, 9) for price in fitted(works, [3.0, 7.0, 5.0])][:3]
        [3.0, 1.0, 0.0]
    """
    table = torch.tensor(works, dtype=torch.float64)
    table = table / torch.tensor(seconds, dtype=torch.float64)[:, None]
    size = table.amax(0).clamp(min=1e-300)
    table, used = table / size, list(range(table.shape[1]))
    while True:
        ones = table.new_ones(len(table), 1)
        price = torch.linalg.lstsq(table[:, used], ones, driver="gelsd").solution[:, 0]
        if (price >= -1e-9).all():
            break
        used.pop(int(price.argmin()))
    result = torch.zeros(table.shape[1], dtype=torch.float64)
    result[used] = price.clamp(min=0)
    return Work(*(round(x, 15) for x in (result / size).tolist()))


# What a prediction is worth


@dataclass(frozen=True)
class Judged:
    """A case, what was predicted and what a call took, in seconds."""

    case: Case
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted / self.measured - 1


def judge_predictions(
    machine: Machine,
    count: int = 100,
    seed: int = 0,
    limit: float = 1.0,
    rounds: int = 7,
) -> list[Judged]:
    """Draw cases that no calibration uses, time them, and compare.

    Args:
        machine: What predicts.
        count: Number of cases.
        seed: What they are drawn from.
        limit: Seconds that a case may take.
        rounds: Calls of each, all cases in turn; their median counts.

    Raises:
        ValueError: If hardly any case is as short as `limit`.
    """
    known = {case for dtype in DTYPES for case in calibration_cases(dtype)}
    cases: list[Case] = []
    for case in itertools.islice(random_cases(seed), 1000 * count):
        if len(cases) == count:
            break
        if case not in known and case not in cases and machine.predict(case) <= limit:
            cases.append(case)
    if len(cases) < count:
        raise ValueError(f"limit must leave {count} cases, got {limit} s: {len(cases)}")
    seconds = times(cases, rounds)
    return [Judged(case, machine.predict(case), seconds[case]) for case in cases]


def random_cases(seed: int) -> Iterator[Case]:
    """Cases of all kinds, their sizes drawn by logarithms."""
    draw = random.Random(seed)
    while True:
        n = round(2 ** draw.uniform(7, 15.5))
        size = round(2 ** draw.uniform(3, math.log2(n) - 1))
        mechanism = draw.choice(("local", "local", "blocks", "blocks", "full"))
        yield Case(
            mechanism,
            n,
            0 if mechanism == "full" else size,
            causal=draw.random() < 0.5,
            backward=draw.random() < 0.5,
            heads=draw.choice((1, 2, 3, 4, 8, 12, 16)),
            d=draw.choice((16, 32, 48, 64, 96, 128)),
            dtype=draw.choice(DTYPES),
        )


def table(judged: list[Judged]) -> str:
    """The errors in words: their median, how many are small, and the largest."""
    errors = sorted(abs(one.error) for one in judged)
    within = sum(error <= 0.25 for error in errors)
    lines = [
        f"{len(judged)} cases: median error {statistics.median(errors):.1%}, "
        f"{within} within 25 %"
    ]
    worst = sorted(judged, key=lambda one: -abs(one.error))[:10]
    lines += [
        f"  {one.case}: predicted {1e3 * one.predicted:.4g} ms, "
        f"took {1e3 * one.measured:.4g} ms ({one.error:+.0%})"
        for one in worst
    ]
    return "\n".join(lines)


def answer(machine: Machine, case: Case) -> str:
    """How long a call takes here, and what full attention would take instead.

    Example:
        >>> kinds = ("tiled float32 forward", "full float32 forward")
        >>> price = Work(5e-11, 1e-9, 3e-9, 0, 0, 0, 0)
        >>> machine = Machine(dict.fromkeys(kinds, price), {})
        >>> print(answer(machine, Case("local", 65536, 256)))
        local, n = 65536, w = 256: forward: 1.3 s
        full, n = 65536: forward: 144 s, 111 times as long
    """
    whole = replace(case, mechanism="full", size=0)
    seconds, full = machine.predict(case), machine.predict(whole)
    lines = [f"{case}: {duration(seconds)}"]
    if case != whole:
        times = f"{full / seconds:.3g} times as long"
        lines.append(f"{whole}: {duration(full)}, {times}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Three digits, in seconds or milliseconds."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def record(machine: Machine, judged: list[Judged]) -> dict:
    """What is stored of a judgement, with the provenance of the machine."""
    cases = [
        {"case": asdict(one.case), "predicted": one.predicted, "measured": one.measured}
        for one in judged
    ]
    prices = {name: list(price) for name, price in machine.prices.items()}
    return {"facts": machine.facts, "prices": prices, "cases": cases}


def recorded(name: str = "cpu") -> tuple[Machine, list[Judged]]:
    """A stored judgement: a machine's prices, and what was predicted with them.

    Raises:
        LookupError: If there is none of that name.
    """
    for path in (folder / f"{name}.json" for folder in FOLDERS):
        if path.exists():
            cases = json.loads(path.read_text())["cases"]
            judged = [Judged(Case(**one.pop("case")), **one) for one in cases]
            return Machine.read(path), judged
    raise LookupError(f"name must be that of a stored judgement, got {name!r}")
