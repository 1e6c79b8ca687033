"""Rules that name a window for a model, and what becomes of those who follow them.

Some rules ask a trained model with full attention; the evidence of it is recorded.
Others know nothing but the length of the text. A rule is a hit if the next trained
window that is at least as wide is the smallest one that does as well as full attention.
A rule that always says "wide" never costs quality, and never saves anything: so the
outcome of a miss is told, too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from attn_tutorial.cost import influence_spread
from attn_tutorial.experiments.models import WINDOWS
from attn_tutorial.experiments.named import named_patterns
from attn_tutorial.experiments.records import Run, Runs

__all__ = ["NAIVE", "RULES", "Outcome", "Score", "Task", "distance_moment", "score"]

AS_GOOD = 0.02  # of a quality (accuracy, bits), so not the RISE of a loss in nats
Rule = Callable[[Run, str], int | None]  # from a full run; None: cannot say


def _recorded(window_key: str, block_key: str) -> Rule:
    """A rule whose answer is in the record; of several layers, the widest counts."""

    def rule(run: Run, kind: str) -> int | None:
        found = run.result.get(window_key if kind == "local" else block_key)
        return max(found) if isinstance(found, list) else found

    return rule


def _needed_context(run: Run, kind: str) -> int | None:
    """An equal part, for each layer, of the context that the loss needs."""
    found = run.result.get("needed_context")
    if found is None:
        return None
    return max(int(kind == "adjacent_blocks"), math.ceil(found / run.setting["layers"]))


def _narrowed(run: Run, kind: str) -> int | None:
    """The mean of the windows that narrowing one layer after the other leaves."""
    found = run.result.get("narrowed" if kind == "local" else "narrowed_blocks")
    return math.ceil(statistics.fmean(found)) if found else None


def distance_moment(within: list[float], n: int, power: int = 1) -> float:
    """Mean of the distance, or of a power of it, from the shares within WINDOWS.

    Between two of the windows, all distances count as equally likely.

    Example:
        >>> distance_moment([0.5, 0.5, 1.0], n=16)  # half at 0, half at 2
        1.0
    """
    total = 0.0
    edges = [min(w, n - 1) for w in WINDOWS[: len(within)]]
    for k in range(1, len(edges)):
        distances = range(edges[k - 1] + 1, edges[k] + 1)
        if distances:
            mean = statistics.fmean(d**power for d in distances)
            total += (within[k] - within[k - 1]) * mean
    return total


def _mean_distance(run: Run, kind: str) -> int | None:
    """The mean distance of the attention."""
    found = run.result.get("attention_within")
    return math.ceil(distance_moment(found, run.setting["n"])) if found else None


def _same_spread(run: Run, kind: str) -> int | None:
    """The window whose spread, Eq. (14), is that of the gradient."""
    found = run.result.get("gradient_within")
    if found is None or kind == "adjacent_blocks":
        return None
    spread = math.sqrt(distance_moment(found, run.setting["n"], power=2))
    layers = run.setting["layers"]
    return next(w for w in range(10**6) if influence_spread(w, layers) >= spread)


def _largest(run: Run, kind: str) -> int:
    """All of the text, as long as it fits."""
    n = run.setting["n"]
    return n - 1 if kind == "local" else math.ceil(n / 2)


def _eighth(run: Run, kind: str) -> int:
    """The power of two that is at least an eighth of the text."""
    return 2 ** math.ceil(math.log2(run.setting["n"] / 8))


def _root(run: Run, kind: str) -> int:
    """The power of two that is at least the root of the text's length."""
    return 2 ** math.ceil(math.log2(run.setting["n"]) / 2)


NAIVE: dict[str, Rule] = {
    "largest that fits": _largest,
    "power of two, n / 8": _eighth,
    "power of two, root of n": _root,
}
RULES: dict[str, Rule] = {
    "context the loss needs": _needed_context,
    "window on all layers": _recorded("advised_by_loss", "blocks_by_loss"),
    "window layer by layer": _narrowed,
    "gradient": _recorded("advised_by_gradient", "advised_by_gradient"),
    "spread of the gradient": _same_spread,
    "widest head": _recorded("advised_by_attention", "blocks_by_attention"),
    "mean of the heads": _recorded(
        "advised_by_mean_attention", "blocks_by_mean_attention"
    ),
    "mean distance": _mean_distance,
    **NAIVE,
}


@dataclass(frozen=True)
class Outcome:
    """What becomes of those who follow a rule on one task.

    Attributes:
        advised: What the rule says: the median over the seeds.
        kind: "hit", "wide" or "narrow".
        times: Advised window over the smallest that does as well.
        lost: By how much the next trained window is worse than full attention, on
            average; below 0 if it is better.
        steps: How many trained sizes too far that one is; below 0 if it is narrow.
    """

    advised: int
    kind: str
    times: float
    lost: float
    steps: int

    def __str__(self) -> str:
        """The advice and the verdict."""
        return f"{self.advised} ({self.kind})"


@dataclass(frozen=True)
class Task:
    """A task on which advice is compared with what training shows.

    Attributes:
        name: What the task is.
        runs: Runs with full attention and with single windows, "local w", or block
            sizes, "blocks b".
        quality: Name of a validation result.
        sign: 1 if more of it is better, -1 if less is.
        known: The needed size by theory; None where there is no theory.
        kind: Name of the pattern, "local" or "adjacent_blocks".
        asked: More runs with full attention, whose evidence counts.
    """

    name: str
    runs: Runs
    quality: str = "validation_accuracy"
    sign: int = 1
    known: int | None = None
    kind: str = "local"
    asked: Runs = field(default_factory=Runs)

    @property
    def full(self) -> Runs:
        """The runs with full attention."""
        return self.runs.where(pattern="full")

    @property
    def sizes(self) -> dict[int, Runs]:
        """The runs of each trained window or block size, smallest first."""
        found = {}
        for (name,), part in self.runs.groups("pattern"):
            several = named_patterns(name, causal=False)
            if [pattern.name for pattern in several] == [self.kind]:
                _, size = several[0].parameters[0]
                found[size] = part
        return dict(sorted(found.items()))

    def smallest_as_good(self, tolerance: float = AS_GOOD) -> int | None:
        """Smallest trained size that does as well as full attention on average.

        As well means: at most ``tolerance`` worse, or twice the standard deviation of
        the runs with full attention, whichever is more. None if no size does.
        """
        allowed = max(tolerance, 2 * self.full.deviation(self.quality))
        good = (size for size in self.sizes if self.lost(size) <= allowed)
        return next(good, None)

    def lost(self, size: float) -> float:
        """By how much a trained size is worse than full attention, on average."""
        runs = self.sizes.get(size, self.full)
        return self.sign * (self.full.mean(self.quality) - runs.mean(self.quality))

    def advised(self, rule: str) -> int | None:
        """What a rule advises: the median over the seeds; None if it cannot say."""
        runs = [*self.full, *self.asked]
        found = sorted(w for r in runs if (w := RULES[rule](r, self.kind)) is not None)
        return found[len(found) // 2] if found else None

    def outcome(self, rule: str) -> Outcome | None:
        """Compare the advice of a rule with what training shows."""
        advised, right = self.advised(rule), self.smallest_as_good()
        if advised is None:
            return None
        end = self.full[0].setting.get("n", math.inf) - 1
        next_one = next((size for size in self.sizes if size >= advised), math.inf)
        wanted = math.inf if right is None else right
        sizes = [*self.sizes, math.inf]
        steps = sizes.index(next_one) - sizes.index(wanted)
        kind = "hit" if steps == 0 else "wide" if steps > 0 else "narrow"
        times = min(advised, end) / (end if right is None else right)
        return Outcome(advised, kind, times, self.lost(next_one), steps)


@dataclass(frozen=True)
class Score:
    """How a rule fared on several tasks.

    Attributes:
        tasks: On how many it could say something.
        hits: On how many it named the right trained size.
        wide: How many times too wide it was, for each task where it was.
        narrow: How much quality was lost, for each task where it was too narrow.
    """

    tasks: int
    hits: int
    wide: list[float]
    narrow: list[float]

    def __str__(self) -> str:
        """Hits of tasks."""
        return f"{self.hits} of {self.tasks}"


def score(tasks: Iterable[Task], rule: str) -> Score:
    """Count hits and misses of a rule."""
    found = [o for task in tasks if (o := task.outcome(rule)) is not None]
    return Score(
        len(found),
        sum(o.kind == "hit" for o in found),
        [o.times for o in found if o.kind == "wide"],
        [o.lost for o in found if o.kind == "narrow"],
    )
