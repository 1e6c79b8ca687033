"""The suite `gpu`: what a borrowed GPU measures first, as far as the time goes.

    python -m attn_tutorial.benchmark.gpu_suite OUT --minutes 8

`scripts/gpu.sh` calls it after the tests of the kernels, and prints a table of it.
Cases are ordered by worth. The record in the folder OUT is written after each of them,
and is whole at any time: whoever ends the run keeps what was measured. Needs PyTorch,
and measures what else is installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from attn_tutorial.benchmark import clocks, measure, record
from attn_tutorial.benchmark.cases import Case, Plan
from attn_tutorial.benchmark.contenders import CONTENDERS
from attn_tutorial.benchmark.protocol import Settings

__all__ = ["PUBLISHED", "DeviceLost", "main", "plans", "run", "tiny"]

OURS = ("triton", "tiled")
FULL = ("sdpa flash", "sdpa cudnn")
WINDOWS = (256, 1024, 64, 4096, 128, 512, 2048)
AGAIN = 75  # exit status: the device is lost to this process, start another

# Two texts of 64 query and 8 key heads are 128 and 16 heads; 1024 keys are w = 1023.
# Of NATTEN and FlashInfer the number of heads is not known, and FlashInfer's blocks
# are scattered: a window of as many keys stands for them.
PUBLISHED = {
    Case("local", 32768, 1023, True, False, 128, 64, "bfloat16", 16): (
        "cuDNN on an H200: forward 3.021 ms, 358 TFLOP/s"
    ),
    Case("local", 32768, 1023, True, True, 128, 64, "bfloat16", 16): (
        "cuDNN on an H200: backward alone 9.045 ms, 299 TFLOP/s"
    ),
    Case("local", 32768, 1024, False, False, 8, 128, "bfloat16"): (
        "NATTEN on an H100: forward 362 TFLOP/s, dense 698"
    ),
    Case("local", 109632, 2048, False, False, 8, 128, "bfloat16"): (
        "FlashInfer on an H200, 64 scattered blocks of 64: forward 317 TFLOP/s"
    ),
}


class DeviceLost(RuntimeError):
    """After an error that this process cannot use its device any more."""


# What is measured


def plans(small: bool = False) -> list[Plan]:
    """List the cases, those of most worth first.

    Args:
        small: Whether each case is replaced by a tiny one for a CPU.
    """
    found: dict[Case, Plan] = {}
    for sweep in (published, windows, lengths, memory):
        for plan in sweep():
            plan = replace(plan, sweeps=(sweep.__name__,))
            plan = replace(plan, case=tiny(plan.case)) if small else plan
            before = found.get(plan.case)
            found[plan.case] = plan if before is None else before | plan
    return list(found.values())


def published() -> Iterator[Plan]:
    """The shapes of numbers that others have published."""
    flex = ("flex 128", "flex 128 partial", "flex 64")
    for case in PUBLISHED:
        yield Plan(case, contenders=(*OURS, *FULL, *flex))
        if not case.backward and case.kv_heads is None:
            yield Plan(replace(case, backward=True), contenders=(*OURS, *FULL, flex[0]))


def windows() -> Iterator[Plan]:
    """Windows of 64 to 4096 at n = 16,384, causal first.

    FlexAttention takes seconds to compile: its smaller blocks compete where they can
    win, and two-sided at every other window.
    """
    for causal in (True, False):
        for size in WINDOWS:
            flex = ("flex 128",) if causal or size in (64, 256, 1024) else ()
            flex += ("flex 64",) if causal and size <= 128 else ()
            for d in (64, 128):
                for backward in (False, True):
                    case = Case("local", 16384, size, causal, backward, 8, d)
                    case = replace(case, dtype="bfloat16")
                    yield Plan(case, contenders=(*OURS, *FULL, *flex))


def lengths() -> Iterator[Plan]:
    """Time against n up to 2**20 at w = 256."""
    for n in (4096, 65536, 2**20, 1024, 2**18):
        for backward in (False, True):
            names = OURS + (FULL if n <= 65536 else ())
            names += ("flex 128",) if n <= 65536 else ()
            names += ("sdpa + mask",) if n <= 4096 else ()
            case = Case("local", n, 256, True, backward, dtype="bfloat16")
            yield Plan(case, contenders=names)


def memory() -> Iterator[Plan]:
    """Peak memory against n at w = 128; other cases have it as well."""
    for n in (4096, 16384, 65536, 2**18):
        for backward in (False, True):
            case = Case("local", n, 128, False, backward, dtype="bfloat16")
            names = ("flex 128",) if n <= 65536 else ()
            names += ("sdpa + mask",) if n <= 4096 else ()
            yield Plan(case, contenders=(*OURS, FULL[0], *names), memory=True)


def tiny(case: Case) -> Case:
    """A case of the same kind that an interpreter on a CPU ends in a second."""
    return replace(
        case,
        n=min(max(case.n // 512, 24), 128),
        size=max(case.size // 256, 1),
        heads=8 if case.kv_heads else 2,
        kv_heads=1 if case.kv_heads else None,
        d=case.d // 4,
    )


# The run


def run(
    chosen: list[Plan],
    out: Path,
    seconds: float,
    device: str = "cuda",
    rounds: int = 7,
    say: Callable[[str], None] = print,
) -> int:
    """Measure cases until the time is over, and write the record after each.

    No case begins that would not end in time if it took as long as the last one. A
    contender that fails stands in the record with its error. A case that fails as a
    whole is noted in `failed.txt`.

    Args:
        chosen: What to measure; what the record holds already is left out.
        out: The folder of the record.
        seconds: How long.
        device: "cuda" or "cpu".
        rounds: Rounds of a case. None is repeated: borrowed minutes are too short, and
            what disturbs the processor hardly disturbs the device.
        say: Takes a line about each case.

    Returns:
        How many cases were measured.

    Raises:
        DeviceLost: If after an error nothing works any more on the device.
    """
    until, took, done = time.monotonic() + seconds, 0.0, 0
    settings = Settings(rounds, rounds, budget=5.0, limit=10.0, repeats=0)
    data = begun(out / "gpu-1.json", settings, device)
    for number, plan in enumerate(left_over(chosen, data, out), 1):
        start = time.monotonic()
        if start + took > until:
            say(f"the time is over; not measured: case {number} and those after it")
            break
        done += measured(plan, data, out, settings, device)
        took = time.monotonic() - start
        say(f"{took:5.1f} s  {plan.case}")
    return done


def left_over(chosen: list[Plan], data: dict, out: Path) -> list[Plan]:
    """The plans whose cases were neither measured nor failed before."""
    known = {Case(**entry["case"]) for entry in data["cases"]}
    lines = failures(out)
    return [
        plan
        for plan in chosen
        if plan.case not in known
        and not any(line.startswith(f"{plan.case}: ") for line in lines)
    ]


def failures(out: Path) -> list[str]:
    """A line for each case that failed as a whole."""
    path = out / "failed.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def measured(
    plan: Plan, data: dict, out: Path, settings: Settings, device: str
) -> bool:
    """Measure a case and write it; whether that went well."""
    clock = clocks.clock_for(device)
    try:
        data["cases"].append(measure.measure_case(plan, settings, clock, device))
    except Exception as error:
        text = " ".join(f"{plan.case}: {type(error).__name__}: {error}".split())[:400]
        record.replace(out / "failed.txt", "\n".join([*failures(out), text]) + "\n")
        check_device(device)
        return False
    record.write(data, out / "gpu-1.json")
    validate_where_possible(data)
    check_device(device)
    return True


def check_device(device: str) -> None:
    """Find out whether the device still works, and give its memory back.

    Raises:
        DeviceLost: If it does not.
    """
    if device != "cuda":
        return
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError as error:
        raise DeviceLost(str(error)) from None


def validate_where_possible(data: dict) -> None:
    """Check the record at once where jsonschema is installed."""
    try:
        import jsonschema  # noqa: F401
    except ImportError:
        return
    record.validate(data)


def begun(path: Path, settings: Settings, device: str) -> dict:
    """The record that a folder holds, or one without cases."""
    from attn_tutorial.benchmark.load import read

    if path.exists():
        return read(path).data
    clock = clocks.clock_for(device)
    return measure.new_record("gpu", settings, clock, device)


def let_the_interpreter_compete() -> None:
    """Enter the Triton kernels for a CPU too, where TRITON_INTERPRET=1 runs them."""
    make = CONTENDERS["triton"].make
    CONTENDERS["triton"] = replace(
        CONTENDERS["triton"], make=lambda case, device: make(case, "cuda")
    )


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, measure, and say how it ended by the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder of the record")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny cases, for a CPU")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", type=int, help="at most, the first")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, help="contenders")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cpu":
        let_the_interpreter_compete()
    todo = plans(chosen.tiny)[: chosen.cases]
    if chosen.only:
        todo = [replace(plan, contenders=tuple(chosen.only)) for plan in todo]
    try:
        run(todo, chosen.out, 60 * chosen.minutes, chosen.device, chosen.rounds)
    except DeviceLost as error:
        print(f"the device is lost: {error}")
        return AGAIN
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
