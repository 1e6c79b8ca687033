"""Records of finished runs: one JSON file an experiment, whole after every run.

A run is one setting trained with one seed. Its setting and seed are its identity, so
that a killed experiment knows what is left to do, and nothing is trained twice.
"""

from __future__ import annotations

import contextlib
import functools
import json
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from attn_tutorial import provenance
from attn_tutorial.benchmark.record import alone, replace
from attn_tutorial.experiments.tables import with_deviation
from attn_tutorial.provenance import processor_name, software, utc

__all__ = [
    "FOLDER",
    "INSTALLED",
    "OpenRecord",
    "Run",
    "Runs",
    "identity",
    "load",
    "made_with",
    "record_path",
]

HERE = Path(__file__).resolve().parent
SCHEMA = HERE / "record.schema.json"
FOLDERS = provenance.data_folders("experiments", HERE / "recorded")
FOLDER = next((path for path in FOLDERS if path.is_dir()), FOLDERS[0])
INSTALLED = FOLDER == FOLDERS[1]

Setting = dict[str, Any]
Result = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One setting, trained once.

    Attributes:
        setting: Everything that was chosen; all numbers of the training among them.
        seed: Seed of the weights and of the batches.
        result: What was measured: numbers, texts, and lists of numbers.
        made: When, how long, and with which versions and device.
    """

    setting: Setting
    seed: int
    result: Result
    made: dict[str, Any]

    @property
    def identity(self) -> str:
        """The same text for the same setting and seed."""
        return identity(self.setting, self.seed)


def identity(setting: Setting, seed: int) -> str:
    """Write setting and seed in one form, whatever the order of the keys.

    Example:
        >>> identity({"window": 8, "layers": 2}, 0)
        '{"layers": 2, "window": 8} 0'
    """
    return f"{json.dumps(setting, sort_keys=True)} {seed}"


class Runs(Sequence):
    """Some runs of an experiment, and the means and spreads of what they measured.

    Example:
        >>> runs = Runs(Run({"window": w}, s, {"loss": w + s}, {}) for w in (1, 5)
        ...             for s in (0, 2))
        >>> runs.where(window=5).mean("loss"), len(runs)
        (6.0, 4)
        >>> [(group, part.spread("loss")) for group, part in runs.groups("window")]
        [((1,), '2.0 ± 1.4'), ((5,), '6.0 ± 1.4')]
    """

    def __init__(self, runs: Any = ()) -> None:
        self._runs = list(runs)

    def __getitem__(self, index: Any) -> Any:
        found = self._runs[index]
        return Runs(found) if isinstance(index, slice) else found

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        return f"{len(self)} runs"

    def get(self, setting: Setting, seed: int) -> Run | None:
        """The run with exactly this setting and seed, or None."""
        return self._by_identity.get(identity(setting, seed))

    @functools.cached_property
    def _by_identity(self) -> dict[str, Run]:
        return {run.identity: run for run in self}

    def where(self, **setting: Any) -> Runs:
        """Select the runs whose setting has these values; an absent key is None."""
        return Runs(
            run
            for run in self
            if all(run.setting.get(key) == value for key, value in setting.items())
        )

    @property
    def final(self) -> Runs:
        """The runs that were not part of tuning."""
        return self.where(stage=None)

    def groups(self, *keys: str) -> Iterator[tuple[tuple, Runs]]:
        """Group runs by some keys of their settings, in order of appearance."""
        found = dict.fromkeys(tuple(r.setting.get(k) for k in keys) for r in self)
        for values in found:
            yield values, self.where(**dict(zip(keys, values, strict=True)))

    def values(self, name: str) -> list[Any]:
        """One result of every run."""
        return [run.result[name] for run in self]

    def mean(self, name: str) -> Any:
        """Mean of a result over the runs; of a list, entry by entry."""
        values = self.values(name)
        if isinstance(values[0], list):
            return [statistics.fmean(entry) for entry in zip(*values, strict=True)]
        return statistics.fmean(values)

    def lowest(self, name: str) -> float | None:
        """Smallest of a result over the runs; None if it was never measured."""
        return min((v for v in self.values(name) if v is not None), default=None)

    def highest(self, name: str) -> float | None:
        """Largest of a result over the runs; None if it was never measured."""
        return max((v for v in self.values(name) if v is not None), default=None)

    def deviation(self, name: str) -> float:
        """Sample standard deviation of a result over the runs; 0 for a single run."""
        values = self.values(name)
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def spread(self, name: str) -> str:
        """Mean and standard deviation as a text, see ``tables.with_deviation``."""
        return with_deviation(self.mean(name), self.deviation(name))


def record_path(name: str, folder: Path = FOLDER) -> Path:
    """Where the record of an experiment is."""
    return Path(folder) / f"{name}.json"


def load(name: str, folder: Path = FOLDER) -> Runs:
    """Read the finished runs of an experiment.

    Raises:
        FileNotFoundError: If it was never run.
    """
    text = record_path(name, folder).read_text(encoding="utf-8")
    return Runs(Run(**run) for run in json.loads(text)["runs"])


class OpenRecord:
    """The record of one experiment, open for one writer.

    Each ``add`` replaces the file by a longer one in a single step: whoever reads, and
    whoever comes after a crash, finds all runs that were added and no half of one.

    Args:
        name: Name of the experiment.
        question: What it asks, in a sentence.
        folder: Where the file is.

    Raises:
        BlockingIOError: On entering, if another process writes this record.
    """

    def __init__(self, name: str, question: str, folder: Path = FOLDER) -> None:
        self.name, self.question = name, question
        self.path = record_path(name, folder)

    def __enter__(self) -> OpenRecord:
        with contextlib.ExitStack() as stack:
            stack.enter_context(alone(self.path))
            exists = self.path.exists()
            self.runs = list(load(self.name, self.path.parent)) if exists else []
            self._held = stack.pop_all()
        self._done = {run.identity: run for run in self.runs}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def has(self, setting: Setting, seed: int) -> bool:
        """Whether this run is recorded."""
        return identity(setting, seed) in self._done

    def get(self, setting: Setting, seed: int) -> Run | None:
        """The recorded run, or None."""
        return self._done.get(identity(setting, seed))

    def add(self, run: Run) -> None:
        """Record a run, once and for good."""
        if run.identity in self._done:
            raise ValueError(f"run is already recorded: {run.identity}")
        self.runs.append(run)
        self._done[run.identity] = run
        replace(self.path, self._text())

    def arrange(self, jobs: Iterable[tuple[Setting, int]]) -> None:
        """Put runs in the order of these jobs; all others come before them."""
        places = {identity(*job): place for place, job in enumerate(jobs)}
        self.runs.sort(key=lambda run: places.get(run.identity, -1))
        replace(self.path, self._text())

    def _text(self) -> str:
        """One run a line, so that a new run changes one line."""
        head = {"experiment": self.name}
        start = json.dumps({**head, "question": self.question}, indent=0)[:-2]
        runs = [json.dumps(asdict(run), allow_nan=False) for run in self.runs]
        return f'{start},\n"runs": [\n' + ",\n".join(runs) + "\n]\n}\n"


def made_with(device: torch.device, started: float, cpu_started: float) -> dict:
    """Say when and with what a run was made.

    Args:
        device: Where it was trained.
        started: ``time.time()`` at its start.
        cpu_started: ``time.process_time()`` at its start.
    """
    cuda = device.type == "cuda"
    return {
        "started": utc(started),
        "seconds": round(time.time() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu_started, 2),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "processor": processor_name(),
        **software(),
    }
