"""Runs a submission, confined, and hands its answers over; judges nothing.

The answers to functions are what they return for the cases that came with the job. The
process holds neither right answers nor the mistakes: those are read by the parent.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType

import torch

import attn_tutorial as at
from attn_tutorial.exercises import calls, wire
from attn_tutorial.exercises.confinement import confine

__all__ = ["main"]

PACKAGE = Path(at.__file__).resolve().parent
# The solutions, the questions of examinations, and all that a judge may say.
HIDDEN = {PACKAGE / "exercises" / name for name in ("chapters", "questions", "zh.json")}


def main(descriptor: int) -> None:
    """Read a job from standard input, and write lines of JSON to the descriptor."""
    job = json.load(sys.stdin)
    os.chdir(job["folder"])
    # A write to the end, without Python's buffers: what was sent stays sent.
    send = _sender(descriptor)
    cases = {id: _decoded(parts) for id, parts in job["cases"].items()}
    exercises = at.exercises
    exercises.check = exercises.assess = _recorder(send, job["names"], cases, job)
    exercises.passed = lambda id: True  # nbgrader's cells: judged elsewhere
    exercises.language = lambda name=None: "en"  # nothing is said here
    folder = Path(job["folder"]).resolve()
    walls = confine(folder, _readable(), _listable(), job["memory"])
    send({"walls": walls})
    _run(job["cells"], send)
    send({"done": True})


def _sender(descriptor: int) -> Callable[[dict], None]:
    def send(message: dict) -> None:
        data = (json.dumps(message) + "\n").encode()
        while data:
            data = data[os.write(descriptor, data) :]

    return send


def _decoded(parts: dict) -> dict[str, list[tuple]]:
    return {name: [wire.decode(c) for c in found] for name, found in parts.items()}


def _readable() -> list[Path]:
    """The interpreter, its packages, and ours without the solutions."""
    places = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    places |= {"/lib", "/lib64", "/usr/lib", *sys.path} - {""}
    found = {Path(p).resolve() for p in places if Path(p).exists()}
    if (PACKAGE.parent / "pyproject.toml").exists():  # not installed: a clone
        found -= {PACKAGE.parent, *PACKAGE.parents}
        found |= {PACKAGE, PACKAGE.parent / "book" / "data"}
    shown = [path for place in found for path in _without(place)]
    more = ("/dev/null", "/dev/urandom", "/proc/cpuinfo", "/sys/devices/system/cpu")
    return [*shown, *map(Path, more)]


def _without(place: Path) -> list[Path]:
    """What covers a folder, but for what is hidden."""
    if place in HIDDEN:
        return []
    if not any(place in path.parents for path in HIDDEN):
        return [place]
    return [path for child in place.iterdir() for path in _without(child)]


def _listable() -> list[Path]:
    """Folders on the way to the solutions: Python looks for modules in them."""
    return [PACKAGE.parent, PACKAGE, PACKAGE / "exercises"]


def _recorder(
    send: Callable[[dict], None], names: dict, cases: dict, job: dict
) -> Callable:
    """What stands for ``check`` here: it records."""

    def check(id: str, *answer: object, **answers: object) -> None:
        known = names.get(id, [])
        if answer and len(known) == 1:
            answers = {known[0]: answer[0]}
        found = {}
        for name in known:
            value = answers.get(name, ...)
            if name in cases.get(id, {}) and callable(value):
                seconds = job["case_seconds"]
                found[name] = {"outcomes": _outcomes(value, cases[id][name], seconds)}
            else:
                found[name] = {"value": wire.encode(value)}
        send({"id": id, "answers": found})

    return check


def _outcomes(function: Callable, cases: list[tuple], seconds: float) -> list:
    found = []
    for arguments in cases:
        value = calls.outcome(function, arguments, seconds)
        found.append(wire.encode(value))
        if isinstance(value, calls.Fault) and value.kind == "slow":
            break
    return found


def _run(cells: list[str], send: Callable[[dict], None]) -> None:
    names = {"__name__": "__main__", "math": math, "torch": torch, "at": at}
    names["check"] = at.exercises.check
    for number, source in enumerate(cells):
        magic = CELL_MAGIC.match(source)
        if magic and magic[1] not in RUNS:
            note = f"skipped, since %%{magic[1]} is not run here"
            send({"cell": number, "note": note})
            continue
        try:
            exec(_compiled(source, f"<cell {number}>"), names)
        except BaseException as error:  # an exit or an interrupt ends its cell alone
            text = traceback.format_exception_only(error)[-1].strip()
            send({"cell": number, "error": text[:300]})


# What is for IPython. A cell's magic is its first line; some run the rest as Python.

CELL_MAGIC = re.compile(r"\s*%%([\w!]+)")
RUNS = {"capture", "prun", "time", "timeit"}
TIMED = re.compile(r"^(\s*)%time\s+(?=\S)", re.MULTILINE)
LINE_MAGIC = re.compile(r"^(\s*)([%!?].*|[\w.]+\?\??[ \t]*)$", re.MULTILINE)


def _compiled(source: str, file: str) -> CodeType:
    """A cell as code; lines for IPython, such as %pip, do nothing here."""
    try:
        return compile(source, file, "exec")
    except SyntaxError:
        source = LINE_MAGIC.sub(r"\1pass", TIMED.sub(r"\1", source))
        return compile(source, file, "exec")
