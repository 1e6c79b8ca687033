"""The command line: ``python -m attn_tutorial.experiments list | run | report``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from attn_tutorial.checks import check_count
from attn_tutorial.experiments.records import FOLDER, INSTALLED, Runs, load
from attn_tutorial.experiments.registry import EXPERIMENTS
from attn_tutorial.experiments.runner import run_experiment
from attn_tutorial.provenance import user_cache

__all__ = ["main"]

BUILT = user_cache() if INSTALLED else FOLDER.parents[2] / "_build"
QUICK_FOLDER = BUILT / "experiments"


def main(arguments: Sequence[str] | None = None) -> int:
    """Obey one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.folder is None:
        options.folder = QUICK_FOLDER if options.quick else FOLDER
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    except BlockingIOError as reason:
        print(reason, file=sys.stderr)
        return 1


def list_experiments(options: argparse.Namespace) -> int:
    """Print every experiment with its question and the number of its runs."""
    for name, experiment in EXPERIMENTS.items():
        settings, done = experiment.settings(options.quick), _recorded(name, options)
        count = f"{len(settings)} settings, {len(done)} runs recorded"
        print(f"{name}: {experiment.question}\n    {count}")
    return 0


def run(options: argparse.Namespace) -> int:
    """Train what is missing of the named experiments, then print their tables."""
    if INSTALLED and options.folder == FOLDER:
        sys.exit(
            "--folder must be given for a full run of an installed package, whose own "
            "records stay as they are. A --quick run needs none."
        )
    for name in _chosen(options.names):
        runs = run_experiment(
            EXPERIMENTS[name],
            quick=options.quick,
            seeds=options.seeds,
            workers=options.workers,
            device=options.device,
            folder=options.folder,
        )
        _print_report(name, runs.final)
    return 0


def report(options: argparse.Namespace) -> int:
    """Print the tables of all records that there are, or of the named ones."""
    for name in _chosen(options.names):
        runs = _recorded(name, options).final
        _print_report(name, runs)
        if options.figures and len(runs):
            _save_figures(name, runs, options.figures)
    return 0


def _save_figures(name: str, runs: Runs, folder: Path) -> None:
    from attn_tutorial.experiments.figures.results import FIGURES

    folder.mkdir(parents=True, exist_ok=True)
    for number, draw in enumerate(FIGURES.get(name, ()), 1):
        picture, path = draw(runs), folder / f"{name}_{number}.png"
        path.write_bytes(picture._repr_png_()[0])
        print(f"\n{path}: {picture.alt}")


def _chosen(names: Sequence[str]) -> list[str]:
    return list(EXPERIMENTS) if "all" in names else list(names)


def _recorded(name: str, options: argparse.Namespace) -> Runs:
    try:
        return load(name, options.folder)
    except FileNotFoundError:
        return Runs()


def _print_report(name: str, runs: Runs) -> None:
    print(f"\n## {name}\n\n{EXPERIMENTS[name].question}\n")
    print(EXPERIMENTS[name].report(runs) if len(runs) else "No runs yet.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m attn_tutorial.experiments",
        description="Train the experiments of the book, and read their records.",
    )
    commands = parser.add_subparsers(required=True, metavar="list | run | report")
    for command, text in (
        (list_experiments, "what there is, and what is recorded"),
        (run, "train what is missing"),
        (report, "print the tables of the records"),
    ):
        name = command.__name__.partition("_")[0]
        sub = commands.add_parser(name, help=text, description=command.__doc__)
        sub.set_defaults(command=command)
        _add_options(sub, names=name != "list", training=name == "run")
    return parser


def count(text: str) -> int:
    """A number of things, at least one."""
    return check_count("count", int(text), least=1)


def _add_options(
    parser: argparse.ArgumentParser, *, names: bool, training: bool
) -> None:
    choices = [*EXPERIMENTS, "all"]
    if names:
        many = {"nargs": "+"} if training else {"nargs": "*", "default": "all"}
        parser.add_argument("names", choices=choices, **many)
    parser.add_argument("--quick", action="store_true", help="the small set")
    parser.add_argument("--folder", type=Path, help="where the records are")
    if names and not training:
        parser.add_argument("--figures", type=Path, help="folder for the figures")
    if training:
        cuda = "cuda" if torch.cuda.is_available() else "cpu"
        parser.add_argument("--seeds", type=count, default=3, help="seeds of a setting")
        parser.add_argument("--workers", type=count, default=1, help="processes")
        parser.add_argument("--device", choices=("cpu", "cuda"), default=cuda)


if __name__ == "__main__":
    sys.exit(main())
