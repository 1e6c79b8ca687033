"""Records of random trials that are written in pieces, each of some seeds."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from attn_tutorial.benchmark import record
from attn_tutorial.provenance import software, utc


def appended(path: Path, head: dict, piece: dict) -> None:
    """Add a piece to a record, whose pieces have no seed in common."""
    data = json.loads(path.read_text()) if path.exists() else {**head, "pieces": []}
    for old in data["pieces"]:
        lower, upper = sorted((old, piece), key=lambda one: one["first"])
        if upper["first"] < lower["first"] + lower["count"]:
            raise SystemExit(f"seeds from {old['first']} on are recorded already")
    data["pieces"].append(piece)
    record.write(data, path)


def run(about: str, head: dict, name: str, tried: Callable[[int, int], dict]) -> None:
    """The command line of trials.

    Args:
        about: What they are; its first line is the command's description.
        head: What a record says of all of its pieces.
        name: What the result of a piece is called in a record.
        tried: Tries some seeds, from a first one on; ends the program at an error.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("count", type=int, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--out", type=Path, help="a record to add them to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, started = time.perf_counter(), utc(time.time())
    result = tried(options.first, options.count)
    seconds = round(time.perf_counter() - start)
    print(json.dumps(result, indent=1), f"{seconds} s", sep="\n")
    if options.out:
        piece = {"first": options.first, "count": options.count, name: result}
        made = {"started": started, "seconds": seconds, **software()}
        appended(options.out, head, piece | {"made": made})
