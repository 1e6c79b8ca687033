"""The command line: ``python -m attn_tutorial.benchmark --help`` lists the commands."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from attn_tutorial import checks
from attn_tutorial.benchmark import (
    browser,
    calibration,
    cases,
    clocks,
    contenders,
    decoding,
    measure,
    record,
    report,
    revisions,
    served,
    shared_core,
)
from attn_tutorial.benchmark.estimate import Estimate, clock_time
from attn_tutorial.benchmark.load import (
    Record,
    Records,
    Unreadable,
    devices,
    load,
    read,
)
from attn_tutorial.benchmark.progress import Life
from attn_tutorial.benchmark.protocol import LEAST, Settings


def run(
    plans: list[cases.Plan],
    suite: str,
    settings: Settings,
    device: str = "cpu",
    out: Path | None = None,
    life: Life | None = None,
) -> dict:
    """Measure the cases, print each, and write the record after each.

    A record that `out` already holds is continued: its cases are not measured again.

    Args:
        plans: What to measure.
        suite: The suite's name, for the record.
        settings: How long to measure.
        device: "cpu" or "cuda".
        out: Where the record is written; nowhere if None.
        life: Prints the tables, and says what is being done.

    Returns:
        The record.
    """
    with (
        record.alone(out) if out else contextlib.nullcontext(),
        life or Life(len(plans)) as life,
    ):
        return measured(plans, suite, settings, device, out, life)


def measured(
    plans: list[cases.Plan],
    suite: str,
    settings: Settings,
    device: str,
    out: Path | None,
    life: Life,
) -> dict:
    """Measure and write as `run` says, being the only one who writes."""
    clock = clocks.clock_for(device)
    data = begun(out, suite, settings, clock, device, life)
    known = {cases.Case(**entry["case"]) for entry in data["cases"]}
    limits, told = Record("here", data), set()
    for plan in plans:
        life.begin(plan.case)
        if plan.case in known:
            continue
        ceiling = limits.ceiling("matmul", plan.case.dtype)
        data["cases"].append(
            measure.measure_case(plan, settings, clock, device, ceiling, life.tell)
        )
        if out:
            record.write(data, out)
        only = Record("here", data | {"cases": data["cases"][-1:]})
        life.say(report.table(Records([only]), plan.case, told))
    return data


SAME = ("device", "torch", "revision", "dirty", "threads", "clock")


def begun(
    out: Path | None,
    suite: str,
    settings: Settings,
    clock: clocks.Clock,
    device: str,
    life: Life,
) -> dict:
    """A record without cases, or the one that is to be continued."""
    if out and out.exists():
        data, known = read(out).data, record.provenance(device, clock.name)
        if any(data["provenance"][key] != known[key] for key in SAME):
            sys.exit(f"{out} is of another machine or revision: choose another file")
        if data["settings"] != asdict(settings):
            sys.exit(f"{out} was begun with other settings: choose another file")
        return data
    life.tell("the machine's limits")
    return measure.new_record(suite, settings, clock, device, life.tell)


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
    """Measure a suite, or say what it would be."""
    settings = settings_of(chosen)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    plans = cases.suite(chosen.suite, chosen.device, tuple(chosen.only or ()))
    known = load(chosen.device)
    estimate = Estimate(known, settings, chosen.device) if known else None
    if chosen.dry_run:
        print(listed(plans, estimate))
        return
    expected = estimate.suite(plans) if estimate else 0.0
    start, life = time.perf_counter(), Life(len(plans), expected)
    try:
        data = run(plans, chosen.suite, settings, chosen.device, chosen.out, life)
    except KeyboardInterrupt:
        stopped(chosen.out)
    all_of_it = Records([Record("this run", data)])
    print("\n" + report.show(all_of_it, tables=False))
    print(f"\n{len(plans)} cases in {time.perf_counter() - start:.0f} seconds.")


def settings_of(chosen: argparse.Namespace) -> Settings:
    """The protocol with the options of the command line."""
    if chosen.rounds < chosen.least:
        sys.exit(
            f"--rounds must be at least --least ({chosen.least}), got {chosen.rounds}"
        )
    return Settings(
        chosen.rounds, chosen.least, chosen.budget, chosen.limit, not chosen.no_memory
    )


def listed(plans: list[cases.Plan], estimate: Estimate | None) -> str:
    """The cases of a suite with the seconds that each is expected to take."""
    if estimate is None:
        cases_alone = "\n".join(str(plan.case) for plan in plans)
        return f"{cases_alone}\n{len(plans)} cases; there is no record to go by."
    lines = [
        f"{estimate.case(plan):5.1f} s  {plan.case}, {', '.join(estimate.calls(plan))}"
        for plan in plans
    ]
    total = f"{len(plans)} cases in about {clock_time(estimate.suite(plans))} minutes"
    source = f"without repeats, by {estimate.records.source}"
    return "\n".join([*lines, f"{total}, {source}"])


def stopped(out: Path | None) -> None:
    """End after Ctrl-C: say what is kept, with the exit code that shells expect."""
    kept = "Nothing was recorded; --out FILE would keep what is finished."
    if out and out.exists():
        count = len(read(out).data["cases"])
        kept = f"{out} holds the finished cases ({count}); the same command goes on."
    print(f"Stopped. {kept}", file=sys.stderr)
    sys.exit(130)


def show_command(chosen: argparse.Namespace) -> None:
    """Print records."""
    if browser.is_browser(chosen.records):
        print(browser.show(browser.read(chosen.records), load("cpu")))
        return
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
    """Print the peak memory of a call of each contender, in bytes."""
    case = cases.Case(**json.loads(chosen.case))
    for name in chosen.names:
        print(f"{name}: {measure.peak_here(case, name)}", flush=True)


class OneLine(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> None:
        """End with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = OneLine(prog="python -m attn_tutorial.benchmark")
    commands = parser.add_subparsers(required=True)
    add_run(commands.add_parser("run", help="measure, print and record"))
    one = commands.add_parser("show", help="tables, ratios and findings of records")
    one.add_argument(
        "records", help="a record's file, also of a browser, or a device such as cpu"
    )
    one.add_argument("--findings", action="store_true", help="leave the tables out")
    one.set_defaults(command=show_command)
    add_compare(commands.add_parser("compare", help="times of B over times of A"))
    add_foretelling(commands)
    add_decoding(commands)
    child = commands.add_parser("memory", help="peak memory of a call, in bytes")
    child.add_argument("case", help="a case as JSON")
    child.add_argument("names", nargs="+", choices=contenders.CONTENDERS)
    child.set_defaults(command=memory_command)
    return parser


def add_foretelling(commands: argparse._SubParsersAction) -> None:
    """Describe `calibrate`, `predict` and `judge`."""
    first = commands.add_parser("calibrate", help="measure this CPU's prices, in 30 s")
    first.set_defaults(command=calibrate_command)
    one = commands.add_parser("predict", help="how long a call will take here")
    one.add_argument("mechanism", choices=("local", "blocks", "full"))
    one.add_argument("--n", type=count, required=True, help="tokens")
    one.add_argument("--size", type=count, default=0, help="w or b")
    one.add_argument("--heads", type=count, default=8)
    one.add_argument("--d", type=count, default=64, help="width of a head")
    one.add_argument("--dtype", choices=calibration.DTYPES, default="float32")
    one.add_argument("--causal", action="store_true")
    one.add_argument("--backward", action="store_true")
    one.set_defaults(command=predict_command)
    last = commands.add_parser("judge", help="predictions against times, 100 cases")
    last.add_argument("--count", type=count, default=100)
    last.add_argument("--seed", type=int, default=0)
    last.add_argument("--out", type=Path, help="where the judgement is written")
    last.set_defaults(command=judge_command)


def add_decoding(commands: argparse._SubParsersAction) -> None:
    """Describe `decode`, `models` and `shared-core`."""
    one = commands.add_parser("decode", help="a token's time and bytes, over 100,000")
    one.add_argument("--tokens", type=count, default=decoding.Steps.tokens)
    one.add_argument("--band", type=count, default=decoding.Steps.band)
    one.set_defaults(command=decode_command)
    two = commands.add_parser("models", help="prefill and decoding of a real model")
    two.add_argument(
        "--lengths", type=count, nargs="+", default=served.LENGTHS, metavar="N"
    )
    two.set_defaults(command=models_command)
    last = commands.add_parser("shared-core", help="two threads beside another program")
    last.set_defaults(command=shared_core_command)
    for command in (one, two, last):
        command.add_argument("--out", type=Path, help="where the record is written")


def decode_command(chosen: argparse.Namespace) -> None:
    """Let caches read token after token, and print what the last ones cost."""
    torch.set_num_threads(1)
    with Life(1) as life:
        steps = decoding.Steps(chosen.tokens, chosen.band)
        data = decoding.measure(steps, life.tell)
    print(decoding.table(data))
    if chosen.out:
        record.write(data, chosen.out)


def models_command(chosen: argparse.Namespace) -> None:
    """Time a model of Transformers in four ways, and print the table."""
    torch.set_num_threads(1)
    with Life(1) as life:
        limits, lengths = served.Effort(), sorted(chosen.lengths)
        data = served.measure(served.ModelShape(), limits, lengths, life.tell)
    print(served.table(data))
    if chosen.out:
        record.write(data, chosen.out)


def shared_core_command(chosen: argparse.Namespace) -> None:
    """Time two threads while another program keeps a core busy, and print the table."""
    with Life(1) as life:
        data = shared_core.measure(tell=life.tell)
    print(shared_core.table(data))
    if chosen.out:
        record.write(data, chosen.out)


def calibrate_command(chosen: argparse.Namespace) -> None:
    """Time a few dozen calls and keep the prices."""
    torch.set_num_threads(1)
    calibration.calibrate().write(calibration.HERE)
    print(f"written to {calibration.HERE}")


def known_machine() -> calibration.Machine:
    """This machine's prices.

    Raises:
        FileNotFoundError: If it was never calibrated.
    """
    if not calibration.HERE.exists():
        raise FileNotFoundError(
            "no calibration yet: python -m attn_tutorial.benchmark calibrate"
        )
    return calibration.Machine.read(calibration.HERE)


def predict_command(chosen: argparse.Namespace) -> None:
    """Print how long a call will take here, and full attention instead."""
    names = ("mechanism", "n", "size", "causal", "backward", "heads", "d", "dtype")
    case = cases.Case(**{name: getattr(chosen, name) for name in names})
    print(calibration.answer(known_machine(), case))


def judge_command(chosen: argparse.Namespace) -> None:
    """Compare predictions with times, and write both if asked to."""
    torch.set_num_threads(1)
    machine = known_machine()
    judged = calibration.judge_predictions(machine, chosen.count, chosen.seed)
    print(calibration.table(judged))
    if chosen.out:
        chosen.out.write_text(json.dumps(calibration.record(machine, judged), indent=1))


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


def count(text: str, least: int = 1) -> int:
    """A number of things, at least one."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least {least}, got {text!r}"
        )
    return int(text)


def rounds(text: str) -> int:
    """A number of rounds that the protocol allows."""
    return count(text, LEAST)


def amount(text: str) -> float:
    """A number of seconds above 0."""
    try:
        seconds = checks.check_number("seconds", float(text), positive=True)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds above 0, got {text!r}"
        ) from None
    return seconds


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
    usual = Settings()
    one.add_argument("--rounds", type=rounds, default=usual.rounds, help="at most")
    one.add_argument(
        "--least", type=rounds, default=usual.least, help="rounds at least"
    )
    one.add_argument(
        "--budget", type=amount, default=usual.budget, help="seconds of a case's rounds"
    )
    one.add_argument(
        "--limit", type=amount, default=usual.limit, help="seconds of a call at most"
    )
    one.add_argument(
        "--dry-run", action="store_true", help="list the cases and how long they take"
    )
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
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
