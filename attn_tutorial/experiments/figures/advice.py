"""Figures of window advice: what each rule says against what training shows."""

from __future__ import annotations

from collections.abc import Sequence

from attn_tutorial.experiments.figures.rows import Dots, rows_of_dots
from attn_tutorial.experiments.models import WINDOWS
from attn_tutorial.experiments.records import Runs
from attn_tutorial.experiments.studies import advice_tasks
from attn_tutorial.experiments.studies.window_advice import CONTEXTS, tasks
from attn_tutorial.experiments.window_rules import RULES, Outcome, Task
from attn_tutorial.instruments.limits import RISE
from attn_tutorial.pictures.plots import COLORS, CYCLE, Picture, lines

__all__ = [
    "advice",
    "advice_by_rule",
    "advice_on_new_tasks",
    "loss_by_context",
    "regained",
]

LOOKS = {  # kind of outcome: marker, colour
    "hit": ("o", COLORS["green"]),
    "wide": (">", COLORS["blue"]),
    "narrow": ("<", COLORS["vermillion"]),
}


def advice_by_rule(
    known: Sequence[Task],
    title: str = "Most rules ask for too much",
) -> Picture:
    """Draw, for each rule and task, how many times the smallest good size it names."""
    found = {
        rule: [o for task in known if (o := task.outcome(rule)) is not None]
        for rule in RULES
    }
    found = {rule: outcomes for rule, outcomes in found.items() if outcomes}
    spoken = [f"{rule} {_counts(outcomes)}" for rule, outcomes in found.items()]
    alt = f"Hits, too wide, too narrow on {len(known)} tasks: {', '.join(spoken)}."
    rows = {rule: _verdicts(outcomes) for rule, outcomes in found.items()}
    words = {"title": title, "xlabel": "advice / smallest size as good", "alt": alt}
    figure = rows_of_dots(rows, heights=(1.6, 0.42), wide=False, **words)
    (axes,) = figure.axes
    for kind, (marker, color) in LOOKS.items():
        label = {"hit": kind}.get(kind, f"too {kind}")
        axes.plot([], [], marker, color=color, label=label)
    axes.axvline(1, color=COLORS["grey"], linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    ticks = [2.0**k for k in range(-3, 6)]
    axes.set_xticks(ticks, ["1/8", "1/4", "1/2", *(f"{t:g}" for t in ticks[3:])])
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    return figure


def _verdicts(outcomes: Sequence[Outcome]) -> list[Dots]:
    """A mark for each task, the first one above the last."""
    found = []
    for k, outcome in enumerate(outcomes):
        marker, color = LOOKS[outcome.kind]
        look = {"color": color, "alpha": 0.75, "markersize": 7}
        lift = 0.4 * (k / max(1, len(outcomes) - 1) - 0.5)
        place = [max(outcome.times, 0.1)]
        found.append(Dots(place, {"marker": marker, "ls": "", **look}, lift))
    return found


def _counts(outcomes: Sequence[Outcome]) -> str:
    kinds = [o.kind for o in outcomes]
    return "/".join(str(kinds.count(kind)) for kind in LOOKS)


def loss_by_context(
    runs: Runs,
    title: str = "The loss rises as soon as the last needed token is cut off",
) -> Picture:
    """Draw the rise of the loss on the latch against the tokens that are shown."""
    latch = runs.where(task="latch", pattern="full")
    curves, spoken = {}, []
    for (gap,), part in latch.groups("max_gap"):
        loss = part.mean("loss_with_context")
        rise = [value - loss[-1] for value in loss]
        curves[f"gaps to {gap}"] = (CONTEXTS, rise)
        enough = [c for c, r in zip(CONTEXTS, rise, strict=True) if r < RISE]
        spoken.append(f"gaps to {gap}: {min(enough)}")
    alt = f"Fewest tokens shown without a rise of {RISE} nats: {'; '.join(spoken)}."
    labels = {"xlabel": "tokens shown before the query", "ylabel": "rise, nats"}
    figure = lines(curves, title=title, alt=alt, **labels)
    figure.axes[0].set_xscale("symlog", base=2, linthresh=1)
    figure.axes[0].set_xticks(CONTEXTS, map(str, CONTEXTS))
    for k, (_, part) in enumerate(latch.groups("max_gap")):
        for losses in part.values("loss_with_context"):
            rises = [value - losses[-1] for value in losses]
            ink = {"color": CYCLE[k], "alpha": 0.5, "markersize": 4}
            figure.axes[0].plot(CONTEXTS, rises, "o", **ink)
    return figure


def regained(task: Task) -> dict[str, tuple[list[float], list[float]]]:
    """What each kind of evidence says is regained by a window, as curves from 0 to 1.

    Shares of attention and gradient within the window; the part of the loss that a
    window on all layers regains; and the part that the context within reach of L such
    windows regains, of what the widest of CONTEXTS does.
    """
    full, asked = task.full, task.asked or task.full
    layers = full[0].setting["layers"]
    n = full[0].setting["n"]
    windows = [w for w in WINDOWS if w < n]
    curves = {}
    for name, key in (
        ("attention", "attention_within"),
        ("gradient", "gradient_within"),
    ):
        if key in full[0].result:
            curves[name] = (windows, full.mean(key)[: len(windows)])
    if "loss_with_window" in full[0].result:
        loss = full.mean("loss_with_window")[: len(windows)]
        curves["window on all layers"] = (windows, _regained(loss))
    if "loss_with_context" in asked[0].result:
        reached = [c / layers for c in CONTEXTS]
        curves["context"] = (reached, _regained(asked.mean("loss_with_context")))
    return curves


def _regained(losses: Sequence[float]) -> list[float]:
    """From 0 for the first loss to 1 for the last."""
    first, last = losses[0], losses[-1]
    return [(first - loss) / (first - last) for loss in losses]


def advice(runs: Runs) -> Picture:
    """Draw the rules on all tasks that are recorded."""
    return advice_by_rule(tasks(runs))


def advice_on_new_tasks(runs: Runs) -> Picture:
    """Draw the rules on the tasks that they were not made on."""
    title = "New tasks: context is right most often"
    return advice_by_rule(advice_tasks.tasks(runs), title=title)
