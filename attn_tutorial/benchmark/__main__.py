"""The command line: `python -m attn_tutorial.benchmark run | show | compare`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from attn_tutorial import checks
from attn_tutorial.benchmark import (
    cases,
    clocks,
    contenders,
    measure,
    record,
    report,
    revisions,
)
from attn_tutorial.benchmark.load import (
    Record,
    Records,
    Unreadable,
    devices,
    load,
    read,
)


def run(
    plans: list[cases.Plan],
    suite: str,
    settings: measure.Settings,
    device: str = "cpu",
    out: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict:
    """Measure the cases, print each, and write the record after each.

    A record that `out` already holds is continued: its cases are not measured again.

    Args:
        plans: What to measure.
        suite: The suite's name, for the record.
        settings: How long to measure.
        device: "cpu" or "cuda".
        out: Where the record is written; nowhere if None.
        say: Takes each table.

    Returns:
        The record.
    """
    with record.alone(out) if out else contextlib.nullcontext():
        return measured(plans, suite, settings, device, out, say)


def measured(
    plans: list[cases.Plan],
    suite: str,
    settings: measure.Settings,
    device: str,
    out: Path | None,
    say: Callable[[str], None],
) -> dict:
    """Measure and write as `run` says, being the only one who writes."""
    clock = clocks.clock_for(device)
    data = begun(out, suite, settings, clock, device)
    known = {cases.Case(**entry["case"]) for entry in data["cases"]}
    limits = Record("here", data)
    for plan in progress(plans):
        if plan.case in known:
            continue
        ceiling = limits.ceiling("matmul", plan.case.dtype)
        data["cases"].append(measure.measure(plan, settings, clock, device, ceiling))
        if out:
            record.write(data, out)
        only = Record("here", data | {"cases": data["cases"][-1:]})
        say(report.table(Records([only]), plan.case))
    return data


def begun(
    out: Path | None, suite: str, settings: measure.Settings, clock, device: str
) -> dict:
    """A record without cases, or the one that is to be continued."""
    known = record.provenance(device, clock.name)
    if out and out.exists():
        data = read(out).data
        same = ("device", "torch", "revision", "dirty", "threads", "clock")
        if any(data["provenance"][key] != known[key] for key in same):
            sys.exit(f"{out} is of another machine or revision: choose another file")
        return data
    return {
        "schema": record.SCHEMA_VERSION,
        "suite": suite,
        "settings": asdict(settings),
        "provenance": known,
        "ceilings": measure.ceilings(settings, clock, device),
        "cases": [],
    }


def progress(plans: list[cases.Plan]) -> Iterable[cases.Plan]:
    """Go through the plans behind a progress bar, where tqdm and a terminal are."""
    try:
        from tqdm import tqdm
    except ImportError:
        return plans
    return tqdm(plans, unit="case", disable=not sys.stderr.isatty(), leave=False)


def say(text: str) -> None:
    """Print without breaking the progress bar."""
    try:
        from tqdm import tqdm
    except ImportError:
        print(text, flush=True)
    else:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


def opened(name: str) -> Records:
    """The records of a file or of a device."""
    found = Records() if Path(name).is_file() else load(name)
    if not found and Path(name).exists():
        return Records([read(name)])
    if not found:
        known = ", ".join(devices()) or "none"
        sys.exit(f"{name} is neither a file nor a device with records ({known})")
    return found


# Commands


def run_command(chosen: argparse.Namespace) -> None:
    """Measure a suite."""
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    settings = measure.Settings(
        chosen.rounds, chosen.least, chosen.budget, chosen.limit, not chosen.no_memory
    )
    plans = cases.suite(chosen.suite, chosen.device, tuple(chosen.only or ()))
    start = time.perf_counter()
    data = run(plans, chosen.suite, settings, chosen.device, chosen.out, say)
    all_of_it = Records([Record("this run", data)])
    print("\n" + report.show(all_of_it, tables=False))
    print(f"\n{len(plans)} cases in {time.perf_counter() - start:.0f} seconds.")


def show_command(chosen: argparse.Namespace) -> None:
    """Print records."""
    print(report.show(opened(chosen.records), tables=not chosen.findings))


def compare_command(chosen: argparse.Namespace) -> None:
    """Print how two records, or two revisions, differ."""
    if chosen.base is None and chosen.b is not None:
        print(report.compare(opened(chosen.a), opened(chosen.b)))
    elif chosen.base is not None and chosen.a is None:
        sys.exit(revisions.compare(chosen.base, rounds=chosen.rounds))
    else:
        sys.exit("compare takes two records, or --base and a revision")


def memory_command(chosen: argparse.Namespace) -> None:
    """Print the peak memory of one call, in bytes."""
    case = cases.Case(**json.loads(chosen.case))
    print(measure.peak_here(case, chosen.name))


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="python -m attn_tutorial.benchmark")
    commands = parser.add_subparsers(required=True)
    add_run(commands.add_parser("run", help="measure, print and record"))
    one = commands.add_parser("show", help="tables, ratios and findings of records")
    one.add_argument("records", help="a record's file, or a device such as cpu")
    one.add_argument("--findings", action="store_true", help="leave the tables out")
    one.set_defaults(command=show_command)
    add_compare(commands.add_parser("compare", help="times of B over times of A"))
    child = commands.add_parser("memory", help="peak memory of one call, in bytes")
    child.add_argument("case", help="a case as JSON")
    child.add_argument("name", choices=contenders.CONTENDERS)
    child.set_defaults(command=memory_command)
    return parser


def add_compare(two: argparse.ArgumentParser) -> None:
    """Describe the options of `compare`."""
    two.add_argument("a", nargs="?", help="a record's file, or a device")
    two.add_argument("b", nargs="?", help="a record's file, or a device")
    two.add_argument(
        "--base",
        metavar="REVISION",
        help="instead of A and B: time the working tree against a git revision; "
        f"exit with 1 if a case takes more than {revisions.LIMIT:g} times as long",
    )
    two.add_argument("--rounds", type=count, default=7, help="with --base")
    two.set_defaults(command=compare_command)


def count(text: str) -> int:
    """A number of things, at least one."""
    return checks.check_count("count", int(text), least=1)


def add_run(one: argparse.ArgumentParser) -> None:
    """Describe the options of `run`."""
    one.add_argument("--suite", choices=("quick", "full"), default="full")
    sweeps = list(cases.SWEEPS)
    one.add_argument(
        "--only",
        action="append",
        choices=sweeps,
        metavar="SWEEP",
        help=f"of the full suite, may be repeated: {', '.join(sweeps)}",
    )
    one.add_argument("--out", type=Path, help="write, or continue, a JSON record")
    here = "cuda" if torch.cuda.is_available() else "cpu"
    one.add_argument("--device", choices=("cpu", "cuda"), default=here)
    one.add_argument(
        "--threads", type=count, help="on a CPU; PyTorch's choice if left out"
    )
    one.add_argument("--rounds", type=count, default=15, help="at most")
    one.add_argument("--least", type=count, default=3, help="rounds at least")
    one.add_argument("--budget", type=float, default=3.0, help="seconds a case")
    one.add_argument("--limit", type=float, default=20.0, help="seconds a call")
    one.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    one.set_defaults(command=run_command)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and do what it says."""
    chosen = parser().parse_args(arguments)
    try:
        chosen.command(chosen)
    except (Unreadable, revisions.Refused, OSError) as reason:
        sys.exit(str(reason))
    except KeyboardInterrupt:
        print("\nStopped. With --out the same command goes on.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
