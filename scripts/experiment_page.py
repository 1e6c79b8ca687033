"""Write the recorded experiments into book/experiments.md, and draw their figures.

python scripts/experiment_page.py            # write the page
python scripts/experiment_page.py --check    # exit 1 if it is stale
"""

import re
import sys
from pathlib import Path

from attn_tutorial.experiments.figures.results import FIGURES
from attn_tutorial.experiments.records import Runs, load, record_path
from attn_tutorial.experiments.registry import EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "book" / "experiments.md"
DRAWN = ROOT / "book" / "figures"  # the site is built without what draws them
PART = re.compile(r"(<!-- (\w+): written by[^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)
COSTS = "| Experiment | Settings | Final runs | Tuning runs | Minutes | Revision |"


def page(text: str) -> str:
    """The page with the runs as they are in the folder now."""
    every = {name: load(name) for name in EXPERIMENTS if record_path(name).exists()}
    found = {name: runs for name, runs in every.items() if len(runs.final)}
    parts = {"costs": costs(found), "reports": "\n".join(map(report, found))}
    return PART.sub(lambda m: f"{m[1]}\n{parts[m[2]]}\n{m[3]}", text)


def costs(found: dict[str, Runs]) -> str:
    """What each record holds, and the processor's minutes that it took."""
    minutes = {name: spent(runs) for name, runs in found.items()}
    rows = [row(name, runs, minutes[name]) for name, runs in found.items()]
    total = (
        f"In all {sum(minutes.values()):.0f} minutes of processor time. Most of these "
        "runs do not name their processor, and the same training took more than twice "
        "as long in `headline` as in `language_model`: minutes of different studies do "
        "not compare.\n"
    )
    return "\n".join([COSTS, "|---|---|---|---|---|---|", *rows, "", total])


def spent(runs: Runs) -> float:
    return sum(run.made["cpu_seconds"] for run in runs) / 60


def row(name: str, runs: Runs, minutes: float) -> str:
    """One experiment as a row of the table."""
    settings = len(EXPERIMENTS[name].settings(False))
    tuning = len(runs) - len(runs.final)
    revisions = dict.fromkeys(run.made["revision"][:10] for run in runs)
    revision = ", ".join(f"`{known}`" for known in revisions)
    cells = [f"`{name}`", settings, len(runs.final), tuning, f"{minutes:.0f}", revision]
    return "| " + " | ".join(map(str, cells)) + " |"


def report(name: str) -> str:
    """One experiment: its question, its figure, and its tables as `report` has them."""
    experiment = EXPERIMENTS[name]
    runs = load(name)
    lines = [f"### `{name}`", "", experiment.question, ""]
    if name in FIGURES:
        lines += ["```{raw} html", f":file: figures/{name}.svg", "```", ""]
    lines += [experiment.report(runs.final), ""]
    if experiment.tuning:
        lines += [rates(name, runs), ""]
    return "\n".join(lines)


def figures() -> dict[Path, str]:
    """The first figure of each recorded experiment, as `report --figures` has it."""
    names = [name for name in FIGURES if record_path(name).exists()]
    drawn = {name: FIGURES[name][0](load(name).final) for name in names}
    return {DRAWN / f"{name}.svg": pic._repr_svg_() for name, pic in drawn.items()}


def rates(name: str, runs: Runs) -> str:
    """Which rates were tried and chosen, and how many are the last on their side."""
    tuning = EXPERIMENTS[name].tuning
    objective = tuning.objective.replace("_", " ")
    values = ", ".join(f"{value:g}" for value in tuning.values)
    counts = ", ".join(f"{lr:g} by {n}" for lr, n in chosen(runs.final).items())
    further = f", then at most {tuning.reach} beyond the best" if tuning.reach else ""
    settings = EXPERIMENTS[name].settings(False)
    inside = sum(tuning.is_inside(setting, runs) for setting in settings)
    return (
        f"Rates tried for every contender: {values}{further}; the lowest {objective} "
        f"decided. Chosen: {counts}. "
        f"The best has a neighbour on both sides for {inside} of {len(settings)}."
    )


def chosen(runs: Runs) -> dict[float, int]:
    """How many settings ended up with each learning rate."""
    rates = sorted(run.setting["lr"] for run in runs if run.seed == 0)
    return {lr: rates.count(lr) for lr in dict.fromkeys(rates)}


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(page(text) != text and f"{PAGE} is stale: run this without --check")
    PAGE.write_text(page(text), encoding="utf-8")
    for path, svg in figures().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(svg + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
