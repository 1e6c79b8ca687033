"""How long a suite takes: from recorded seconds, before anything is measured."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterable
from functools import lru_cache

from attn_tutorial.benchmark.cases import Case, Plan
from attn_tutorial.benchmark.contenders import CONTENDERS, Unavailable
from attn_tutorial.benchmark.load import Records
from attn_tutorial.benchmark.protocol import Settings

__all__ = ["Estimate", "clock_time"]

STARTING = 15.0  # seconds of the machine's limits, and of the first compilation
COMPILING = 3.5  # seconds of FlexAttention's first call in a shape
COMPILED = 0.5  # of its first call in another process, which finds it on the disk
CHECKING = 0.05  # of the comparison of one contender with the reference
REFERENCE = {False: 0.1, True: 0.8}  # of the reference: forward; with its gradients
PROCESS = 3.0  # until a process that measures memory is ready


class Estimate:
    """Expects of each case what the records say of it, or of others like it.

    A contender that no record knows counts nothing, and neither do repeats of what is
    disturbed or scattered.

    Args:
        records: Runs on a device that is like this one.
        settings: How long to measure.
        device: "cpu" or "cuda".
    """

    def __init__(self, records: Records, settings: Settings, device: str) -> None:
        self.records, self.settings, self.device = records, settings, device
        self.rate = lru_cache(maxsize=None)(self._rate)

    def suite(self, plans: Iterable[Plan]) -> float:
        """Seconds of all cases."""
        return STARTING + sum(map(self.case, plans))

    def case(self, plan: Plan) -> float:
        """Seconds of one case: first calls, rounds, peak memory."""
        calls = self.calls(plan)
        flex = sum(name.startswith("flex") for name in calls)
        first = sum(calls.values()) + COMPILING * flex + CHECKING * len(calls)
        first += REFERENCE[plan.case.backward]
        one = sum(calls.values()) + self._matmul(plan.case.dtype)
        enough = math.ceil(self.settings.budget / one)
        rounds = min(self.settings.rounds, max(self.settings.least, enough))
        memory = 0.0
        if plan.memory and self.settings.memory and self.device == "cpu":
            memory = PROCESS + 2 * sum(calls.values()) + COMPILED * flex
        return first + rounds * one + memory

    def calls(self, plan: Plan) -> dict[str, float]:
        """Seconds of one call of each contender that will run, by name."""
        names = CONTENDERS if plan.contenders is None else plan.contenders
        found = {name: self.call(name, plan.case) for name in names}
        limit = self.settings.limit
        return {name: time for name, time in found.items() if 0 < time <= limit}

    def call(self, name: str, case: Case) -> float:
        """Seconds of one call: as recorded, or by the rate in cases like it."""
        if self.records.of(name, case):
            return self.records.seconds(name, case).median
        one = CONTENDERS[name]
        rate = self.rate(name, case.dtype, case.backward)
        if not rate or one.executed_flops(case) > self.settings.limit * rate:
            return 0.0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other packages' own affairs
                one.make(case, self.device)
        except (Unavailable, RuntimeError):
            return 0.0
        return one.executed_flops(case) / rate

    def _rate(self, name: str, dtype: str, backward: bool) -> float:
        """Operations a second of a contender; 0 if no record has it."""
        known = self.records.select(name)
        alike = [
            result
            for result in known
            if (result.case.dtype, result.case.backward) == (dtype, backward)
        ]
        rates = [result.executed_flops / result.seconds for result in alike or known]
        return statistics.median(rates) if rates else 0.0

    def _matmul(self, dtype: str) -> float:
        """Seconds of the large matrix product, which runs in every round."""
        known = self.records[0]
        limit = known.data["ceilings"][dtype]["matmul"]
        return limit["seconds"][known.clock]["median"]


def clock_time(seconds: float) -> str:
    """Seconds as minutes and seconds.

    Example:
        >>> clock_time(754.6)
        '12:35'
    """
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"
