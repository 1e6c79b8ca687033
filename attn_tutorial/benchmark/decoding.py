"""What a token costs that is written: 100,000 of them, one after the other.

    python -m attn_tutorial.benchmark decode --out steps.json

Each pattern has a `RollingCache` for one layer, which reads a token at a time. The
caches take turns, band after band of tokens, so that what else the computer does hits
all of them. Recorded for each band are the seconds of a step and the bytes that the
cache holds at its end.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attn_tutorial import provenance
from attn_tutorial.benchmark import clocks, disturbance, record
from attn_tutorial.benchmark.protocol import Tell, five_digits, silent
from attn_tutorial.cache import RollingCache
from attn_tutorial.patterns import parse

__all__ = ["FOLDERS", "PATTERNS", "Steps", "measure", "recorded", "table"]

BESIDE = Path(__file__).resolve().parent
FOLDERS = provenance.data_folders("practice", BESIDE / "practised")

# Pattern -> the share of the tokens that it reads. Full attention stops early: what it
# needs for all of them grows with their square.
PATTERNS = {
    "causal": 0.32,
    "local 1023,0": 1.0,
    "(prefix 4 | local 1019,0) & causal": 1.0,
}


@dataclass(frozen=True)
class Steps:
    """How many tokens are read, and of what size.

    Attributes:
        tokens: Read in all.
        band: Tokens whose steps are summarised together; divides ``tokens``.
        heads: Heads of queries.
        kv_heads: Heads of keys and values.
        d: Width of a head.
    """

    tokens: int = 100_000
    band: int = 2_000
    heads: int = 8
    kv_heads: int = 2
    d: int = 64


def measure(steps: Steps, tell: Tell = silent) -> dict[str, Any]:
    """Let every pattern's cache read the tokens.

    Args:
        steps: How many, and of what size.
        tell: Is told what is being done.

    Returns:
        The record: ``steps``, ``provenance``, ``disturbance``, and for each pattern
        the last token of each band, the median seconds of its steps, and the bytes
        of keys and values after it.
    """
    clock, before = clocks.CpuClock(), disturbance.usage()
    caches = {text: RollingCache(parse(text)) for text in PATTERNS}
    found = {text: {"token": [], "seconds": [], "bytes": []} for text in PATTERNS}
    for last in range(steps.band, steps.tokens + 1, steps.band):
        tell(f"token {last:,}")
        for text, share in PATTERNS.items():
            if last <= max(share * steps.tokens, steps.band):
                seconds = band(caches[text], steps, clock)
                add(found[text], last, seconds, caches[text].bytes)
    share = disturbance.share_between(before, disturbance.usage(), 1)
    return {
        "steps": asdict(steps),
        "provenance": record.provenance("cpu", clock.name),
        "disturbance": None if share is None else round(share.both, 4),
        "patterns": found,
    }


def band(cache: RollingCache, steps: Steps, clock: clocks.CpuClock) -> float:
    """Median seconds of the steps of one band."""
    tokens = drawn(steps)
    samples = []
    for _ in range(steps.band):
        q, k, v = next(tokens)
        took = clock.seconds(lambda qkv=(q, k, v): cache.attend(*qkv))
        samples.append(took[clock.name])
    return statistics.median(samples)


def drawn(steps: Steps, different: int = 64) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Queries, keys and values of single tokens, (heads, 1, d), a few in turn."""
    source = torch.Generator().manual_seed(0)
    shapes = [(different, h, 1, steps.d) for h in (steps.heads, *[steps.kv_heads] * 2)]
    pools = [torch.randn(shape, generator=source) for shape in shapes]
    while True:
        yield from zip(*pools, strict=True)


def add(found: dict[str, list], token: int, seconds: float, size: int) -> None:
    """Append a band to what is known of a pattern."""
    found["token"].append(token)
    found["seconds"].append(five_digits(seconds))
    found["bytes"].append(size)


def table(data: dict[str, Any]) -> str:
    """The last band of each pattern, as Markdown.

    Args:
        data: A record.
    """
    lines = ["| pattern | tokens | a step, ms | cache, MiB |", "|---|---|---|---|"]
    for text, found in data["patterns"].items():
        token, seconds, held = (found[name][-1] for name in found)
        lines.append(
            f"| {text} | {token:,} | {1e3 * seconds:.3g} | {held / 2**20:.3g} |"
        )
    return "\n".join(lines)


def recorded(name: str) -> dict[str, Any]:
    """A stored record: "steps", "models", "splits" or "shared_core".

    Raises:
        LookupError: If there is none of that name.
    """
    for path in (folder / f"{name}.json" for folder in FOLDERS):
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
    raise LookupError(f"name must be that of a stored record, got {name!r}")
