"""Run an experiment: what is left to do, in which order, and in how many processes."""

from __future__ import annotations

import functools
import math
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from attn_tutorial.experiments.records import (
    FOLDER,
    OpenRecord,
    Result,
    Run,
    Runs,
    Setting,
    identity,
    made_with,
)

__all__ = ["Experiment", "Tuning", "pending", "run_experiment"]

Job = tuple[Setting, int]  # a setting and a seed
Recorded = OpenRecord | Runs


@dataclass(frozen=True)
class Tuning:
    """One hyper-parameter, chosen for every setting by the same rule.

    All contenders try the same values first. Where the best of them is the smallest or
    the largest, half or twice as much is tried, too, until the best has a neighbour on
    both sides or ``reach`` such trials are made. What decides is a validation result;
    of equals, the middle one is taken. A trial that ends in no number is the worst.

    Attributes:
        values: The candidates, such as learning rates.
        objective: Name of the validation result; the smallest wins.
        changes: What differs from the final setting. A rate that is chosen in fewer
            steps need not be the best in more.
        parameter: Name of the hyper-parameter.
        seed: Seed of the tuning runs; no final run has it.
        reach: How many more values a setting may try.
    """

    values: tuple[float, ...]
    objective: str
    changes: Setting = field(default_factory=dict)
    parameter: str = "lr"
    seed: int = 1000
    reach: int = 3

    def trials(self, setting: Setting, record: Recorded) -> list[Job]:
        """The tuning runs that a setting needs, as far as the record tells."""
        values = list(self.values)
        for _ in range(self.reach):
            further = self._further(self._found(setting, values, record))
            if further is None:
                break
            values.append(further)
        return self._jobs(setting, values)

    def best(self, setting: Setting, record: Recorded) -> Setting:
        """Complete a setting by its best candidate, all trials being recorded."""
        found = self._all(setting, record)
        return {**setting, self.parameter: _lowest(found)}

    def is_inside(self, setting: Setting, record: Recorded) -> bool:
        """Whether the best candidate of a setting has a neighbour on both sides."""
        found = self._all(setting, record)
        return bool(found) and self._further(found) is None

    def _all(self, setting: Setting, record: Recorded) -> dict[float, float]:
        jobs = self.trials(setting, record)
        return self._found(setting, [job[self.parameter] for job, _ in jobs], record)

    def _jobs(self, setting: Setting, values: Iterable[float]) -> list[Job]:
        base = {**setting, **self.changes, "stage": "tuning"}
        return [({**base, self.parameter: value}, self.seed) for value in values]

    def _found(
        self, setting: Setting, values: list[float], record: Recorded
    ) -> dict[float, float]:
        """The objective of each value, in order of size; empty if one is missing."""
        jobs = self._jobs(setting, sorted(values))
        runs = [record.get(*job) for job in jobs]
        if None in runs:
            return {}
        results = [run.result[self.objective] for run in runs]
        return {
            job[self.parameter]: math.inf if result is None else result
            for (job, _), result in zip(jobs, results, strict=True)
        }

    def _further(self, found: dict[float, float]) -> float | None:
        """The value to try beyond the best one, if that is the last on its side."""
        if not found:
            return None
        values, best = list(found), _lowest(found)
        if best == values[0]:
            return best / 2
        return 2 * best if best == values[-1] else None


def _lowest(found: dict[float, float]) -> float:
    """The value with the lowest objective; the middle one of several."""
    lowest = min(found.values())
    ties = [value for value, objective in found.items() if objective == lowest]
    return ties[(len(ties) - 1) // 2]


@dataclass(frozen=True)
class Experiment:
    """A question, the runs that answer it, and how to read them.

    Attributes:
        name: Its name on the command line and in the record.
        question: What it asks, in a sentence.
        settings: The full set if called with False, a small one for seconds if True.
        train: Trains one setting with one seed on a device and returns flat results.
        report: Turns finished runs into a text with tables.
        tuning: The hyper-parameter that is tuned; None if all is given.
    """

    name: str
    question: str
    settings: Callable[[bool], list[Setting]]
    train: Callable[[Setting, int, torch.device], Result]
    report: Callable[[Runs], str]
    tuning: Tuning | None = None


def pending(
    experiment: Experiment, record: OpenRecord, *, quick: bool, seeds: int
) -> list[Job]:
    """List the runs that are not recorded yet; tuning comes before what it decides.

    Call it again when these are recorded: what tuning found may ask for more trials.

    Raises:
        ValueError: If a final run has another rate than the trials choose.
    """
    return _missing(_planned(experiment, record, quick=quick, seeds=seeds), record)


def _planned(
    experiment: Experiment, record: OpenRecord, *, quick: bool, seeds: int
) -> list[Job]:
    """All runs, in order, as far as the record tells what will be asked for.

    Seeds are the outer loop, so that an early end leaves every setting with a few.
    """
    settings, tuning, trials = experiment.settings(quick), experiment.tuning, []
    if tuning and not quick:
        trials = [job for setting in settings for job in tuning.trials(setting, record)]
        if _missing(trials, record):
            return trials
        settings = [tuning.best(setting, record) for setting in settings]
        for setting in settings:
            _check_rate(setting, tuning.parameter, record)
    return trials + [(setting, seed) for seed in range(seeds) for setting in settings]


def _check_rate(setting: Setting, parameter: str, record: OpenRecord) -> None:
    """Refuse a record whose final runs have another rate than tuning chooses."""
    wanted = setting[parameter]
    for run in record.runs:
        if {**run.setting, parameter: wanted} == setting:
            found = run.setting[parameter]
            if found != wanted:
                raise ValueError(
                    f"record {record.name} has final runs with {parameter}={found}, "
                    f"but its trials choose {wanted}: move it away and start again"
                )


def _missing(jobs: Iterable[Job], record: OpenRecord) -> list[Job]:
    """Jobs that are not recorded, each once: contenders may share a trial."""
    different = {identity(*job): job for job in jobs}
    return [job for job in different.values() if not record.has(*job)]


def run_experiment(
    experiment: Experiment,
    *,
    quick: bool = False,
    seeds: int = 3,
    workers: int = 1,
    device: str = "cpu",
    folder: Path = FOLDER,
    progress: bool = True,
) -> Runs:
    """Train what is not recorded yet, and record each run as soon as it is finished.

    Args:
        experiment: What to run.
        quick: Take the small set.
        seeds: Seeds 0 ... seeds - 1 for every setting.
        workers: Processes; each computes with one thread.
        device: "cpu" or "cuda".
        folder: Where the record is.
        progress: Whether to draw a progress bar on standard error.

    Returns:
        All recorded runs, older ones included.
    """
    perform = functools.partial(_perform, experiment.train, device)
    with OpenRecord(experiment.name, experiment.question, folder) as record:
        before = len(record.runs)
        while jobs := pending(experiment, record, quick=quick, seeds=seeds):
            runs = _results(perform, jobs, workers)
            for run in _shown(runs, experiment.name, len(jobs)) if progress else runs:
                record.add(run)
        if len(record.runs) > before:
            record.arrange(_planned(experiment, record, quick=quick, seeds=seeds))
        return Runs(record.runs)


def _perform(train: Callable[..., Result], device: str, job: Job) -> Run:
    """Train one setting in this process."""
    setting, seed = job
    torch.set_num_threads(1)  # the same sums in the same order, on any computer
    place, started, cpu_started = torch.device(device), time.time(), time.process_time()
    result = {k: _rounded(v) for k, v in train(setting, seed, place).items()}
    if "stage" in setting:  # a rate that is too large is a finding, too
        result = {k: _number_or_none(v) for k, v in result.items()}
    return Run(setting, seed, result, made_with(place, started, cpu_started))


def _rounded(value: Any) -> Any:
    """Numbers to 5 decimals, in lists too: more would be noise in the record."""
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return round(value, 5) if isinstance(value, float) else value


def _number_or_none(value: Any) -> Any:
    """A result, in lists too; None for what is infinite or no number."""
    if isinstance(value, list):
        return [_number_or_none(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _results(
    perform: Callable[[Job], Run], jobs: Iterable[Job], workers: int
) -> Iterator[Run]:
    """Yield finished runs: in order from this process, or as they come from several."""
    if workers == 1:
        yield from map(perform, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            for future in as_completed([pool.submit(perform, job) for job in jobs]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _shown(runs: Iterable[Run], name: str, count: int) -> Iterable[Run]:
    """Pass runs on and draw a progress bar on standard error."""
    try:
        from tqdm import tqdm
    except ImportError:  # no reason to stop
        return runs
    return tqdm(runs, desc=name, total=count, unit="run")
