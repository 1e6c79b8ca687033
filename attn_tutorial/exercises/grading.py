"""Grade a notebook: run it confined in a process of its own, judge its answers here.

The child sends answers and never verdicts, so that nothing that it overwrites, prints
or pretends changes how it is judged. Functions are called on cases that are drawn anew.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from attn_tutorial.exercises import wire
from attn_tutorial.exercises.collection import exercises
from attn_tutorial.exercises.exercise import Exercise, Function
from attn_tutorial.exercises.judging import Verdict, judge_outcomes, judge_part
from attn_tutorial.exercises.languages import say

__all__ = ["Grade", "Limits", "grade"]

ROOT = Path(__file__).resolve().parents[2]
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from attn_tutorial.exercises.child import main; main(int(sys.argv[2]))"
)
MOST_SENT = 2**26  # bytes of answers
MOST_KEPT = 2**28  # bytes of files in its folder, looked at twice a second
BLOCK = 2**12  # bytes that an empty file counts for
STARTING = 120.0  # seconds until the walls stand, before the submission's time begins


@dataclass(frozen=True)
class Limits:
    """What a submission may take.

    Attributes:
        seconds: Of wall-clock time, for all cells together.
        case_seconds: Of processor time, for one call of a function.
        memory: Bytes of private memory.
    """

    seconds: float = 120.0
    case_seconds: float = 2.0
    memory: int = 2**31


@dataclass
class Grade:
    """What a submission is worth, and how its run ended.

    Attributes:
        ended: "finished", or why it was stopped.
        walls: What held it, as ``confinement`` names it.
        results: An entry for each exercise that counts.
        errors: Of cells that raised one.
        printed: The end of what it printed.
        notes: On cells that were not run.
    """

    ended: str
    walls: list[str]
    results: list[dict]
    errors: list[str] = field(default_factory=list)
    printed: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def points(self) -> float:
        """The sum of the points."""
        return sum(result["points"] for result in self.results)

    def as_json(self) -> dict:
        """Everything, for a file."""
        possible = sum(result["possible"] for result in self.results)
        totals = {"points": self.points, "possible": possible}
        return {"schema": 1, **totals, **self.__dict__}


def grade(
    notebook: dict,
    chapter: str | None = None,
    limits: Limits | None = None,
    seed: int | None = None,
    counted: tuple[Exercise, ...] = (),
) -> Grade:
    """Run a submission and judge its answers.

    An exercise is worth its difficulty, in equal shares for its parts.

    Args:
        notebook: What was handed in, as JSON.
        chapter: Count all exercises of this chapter; those that the notebook names if
            None.
        limits: What it may take.
        seed: Draws the cases for functions; a fresh one if None.
        counted: Count these, such as those of an assignment, and no others.

    Raises:
        KeyError: If there is no such chapter.
        ValueError: If it is no notebook.
    """
    sources = _sources(notebook)
    counted = counted or (exercises(chapter) if chapter else _named(sources))
    seed = secrets.randbelow(10**6) + 1 if seed is None else seed
    limits = limits or Limits()
    folder = Path(tempfile.mkdtemp())
    try:
        run = _Run(_job(sources, counted, limits, seed, str(folder)), limits)
    finally:
        _remove(folder)
    results = [_result(e, run.answers.get(e.id, {}), seed) for e in counted]
    return Grade(run.ended, run.walls, results, run.errors, run.printed, run.notes)


def _sources(notebook: dict) -> list[str]:
    found = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(found, list):
        raise ValueError("no notebook: it has no cells")
    cells = [cell for cell in found if isinstance(cell, dict)]
    code = [cell.get("source") for cell in cells if cell.get("cell_type") == "code"]
    lines = [[source] if isinstance(source, str) else source for source in code]
    return ["".join(map(str, some)) if isinstance(some, list) else "" for some in lines]


def _named(sources: list[str]) -> tuple[Exercise, ...]:
    named = set(re.findall(r"""["']([a-z]+-\d+)["']""", "\n".join(sources)))
    return tuple(exercise for exercise in exercises() if exercise.id in named)


def _job(
    sources: list[str],
    counted: tuple[Exercise, ...],
    limits: Limits,
    seed: int,
    folder: str,
) -> dict:
    cases = {
        exercise.id: {
            part.name: [wire.encode(case) for case in part.cases(seed)]
            for part in exercise.parts
            if isinstance(part, Function)
        }
        for exercise in counted
    }
    return {
        "folder": folder,
        "memory": limits.memory,
        "case_seconds": limits.case_seconds,
        "names": {e.id: [part.name for part in e.parts] for e in counted},
        "cases": cases,
        "cells": sources,
    }


def _remove(folder: Path) -> None:
    """Remove a folder, however deep it is: what lies two levels down is lifted."""
    while inner := [path for path in folder.iterdir() if _is_folder(path)]:
        for place in inner:
            place.chmod(0o700)
            for path in place.iterdir():
                if _is_folder(path):
                    path.rename(folder / secrets.token_hex(16))
                else:
                    path.unlink()
            place.rmdir()
    shutil.rmtree(folder)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _room(folder: str) -> int:
    """Bytes that a folder takes, at least a block for each thing in it."""
    total, places = 0, [folder]
    while places:
        try:
            found = list(os.scandir(places.pop()))
            sizes = [each.stat(follow_symlinks=False).st_blocks for each in found]
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return MOST_KEPT + 1  # nobody can look so deep
            continue  # it was removed meanwhile
        total += sum(max(BLOCK, 512 * size) for size in sizes)
        places += [each.path for each in found if each.is_dir(follow_symlinks=False)]
    return total


class _Run:
    """A child process from its start to its end, and what it sent."""

    def __init__(self, job: dict, limits: Limits) -> None:
        self.answers: dict[str, dict] = {}
        self.walls: list[str] = []
        self.errors: list[str] = []
        self.notes: list[str] = []
        self.printed = ""
        self.done = False
        read, write = os.pipe()
        process = _start(write, job["folder"])
        os.close(write)
        tail = _Tail(process.stdout)
        feeder = threading.Thread(target=_feed, args=(process.stdin, job), daemon=True)
        feeder.start()
        try:
            sent, stopped = _received(read, limits.seconds, job["folder"])
        except BaseException:  # whoever grades has lost patience
            process.kill()
            process.wait()
            raise
        self._take(sent)
        self.ended = _ended(process, self.done, stopped)
        self.printed = tail.text()

    def _take(self, sent: bytes) -> None:
        for line in sent.split(b"\n"):
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                continue  # the end of a line that was cut off, or a prank
            if isinstance(message, dict):
                self._take_one(message)

    def _take_one(self, message: dict) -> None:
        if isinstance(message.get("answers"), dict):
            self.answers[str(message.get("id"))] = message["answers"]
        if isinstance(message.get("walls"), list) and not self.walls:
            self.walls = [str(wall) for wall in message["walls"]]
        for kind, kept in (("error", self.errors), ("note", self.notes)):
            if kind in message:
                text = f"cell {message.get('cell')}: {message[kind]}"
                kept.append(wire.printable(text))
        self.done = self.done or message.get("done") is True


def _start(descriptor: int, folder: str) -> subprocess.Popen:
    command = [sys.executable, "-I", "-B", "-c", START, str(ROOT), str(descriptor)]
    bare = {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
    bare |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(descriptor,),
        env=bare,
        cwd=folder,
        start_new_session=True,
    )


def _feed(pipe: IO[bytes], job: dict) -> None:
    try:
        with pipe:
            pipe.write(json.dumps(job).encode())
    except BrokenPipeError:
        pass  # it ended before it had read its job; how it ended is told elsewhere


class _Tail:
    """Reads all that a process prints, and keeps the end of it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.kept = b""
        self.thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self.thread.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while chunk := pipe.read1(2**16):
                self.kept = (self.kept + chunk)[-4000:]

    def text(self) -> str:
        self.thread.join(timeout=5)
        return self.kept.decode("utf-8", errors="replace")


def _received(descriptor: int, seconds: float, folder: str) -> tuple[bytes, str]:
    """All bytes until the other end closes, and why that was not waited for.

    The time runs from the first message on, which says what the walls are.
    """
    sent, deadline = bytearray(), time.monotonic() + STARTING
    look = 0.0
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while (left := deadline - time.monotonic()) > 0:
            if time.monotonic() >= look:
                if _room(folder) > MOST_KEPT:
                    return bytes(sent), "its files take too much room"
                look = time.monotonic() + 0.5
            if not select.select([pipe], [], [], min(left, 0.5))[0]:
                continue
            chunk = pipe.read(2**16)
            if not chunk:
                return bytes(sent), ""
            deadline = deadline if sent else time.monotonic() + seconds
            sent += chunk
            if len(sent) > MOST_SENT:
                return bytes(sent), "its answers are too long"
    return bytes(sent), "out of time"


def _ended(process: subprocess.Popen, done: bool, stopped: str) -> str:
    try:
        status = process.wait(timeout=0 if stopped else 5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"stopped: {stopped or 'out of time'}"
    if done and status == 0:
        return "finished"
    if status < 0:
        return f"stopped by signal {-status}"
    return f"ended by itself before its last cell, with status {status}"


# Judging.

UNREADABLE = (ValueError, KeyError, TypeError, RuntimeError, RecursionError)


def _result(exercise: Exercise, answers: dict, seed: int) -> dict:
    findings = [_finding(p, answers.get(p.name), seed) for p in exercise.parts]
    share = sum(finding.passed is True for finding in findings) / len(findings)
    return {
        "id": exercise.id,
        "passed": share == 1,
        "points": round(exercise.difficulty * share, 3),
        "possible": exercise.difficulty,
        "parts": [finding.__dict__ for finding in findings],
    }


def _finding(part: object, answer: object, seed: int) -> Verdict:
    if not isinstance(answer, dict):
        return Verdict(part.name, None, say("not answered"))
    try:
        if isinstance(part, Function) and "outcomes" in answer:
            outcomes = [wire.decode(value) for value in answer["outcomes"]]
            return judge_outcomes(part, outcomes, seed)
        return judge_part(part, wire.decode(answer["value"]), seed)
    except UNREADABLE as error:
        text = say("no answer that can be read: {error}", error=str(error)[:200])
        return Verdict(part.name, False, wire.printable(text))
