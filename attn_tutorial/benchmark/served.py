"""Prefill and decoding of a model of Transformers, attended to in four ways.

    python -m attn_tutorial.benchmark models --out models.json

The model has Mistral's code and random weights: a decoder whose layers all have a
window. Three ways compute the same (this package's tiles, PyTorch's fused attention
with a mask, the library's eager code), and the fourth is the same model without a
window. For each length a prompt is read, all ways in turn, round after round; then
single tokens are written behind it. Peak memory of a prefill is measured in a process
of its own.

A way that would need more seconds or memory than is allowed, by what it needed for the
length before, is left out, and the reason is recorded.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attn_tutorial.backends import hf
from attn_tutorial.benchmark import clocks, protocol, record
from attn_tutorial.benchmark.protocol import Settings, Tell, five_digits, silent

if TYPE_CHECKING:
    import transformers

__all__ = [
    "LENGTHS",
    "WAYS",
    "Effort",
    "ModelShape",
    "measure",
    "median",
    "peak_here",
    "table",
]

LENGTHS = (4096, 8192, 16384, 32768)
WAYS = {  # what attends, and whether the model has its window
    "ours": ("attn_tutorial", True),
    "SDPA": ("sdpa", True),
    "eager": ("eager", True),
    "full causal, SDPA": ("sdpa", False),
}
TOLERANCE = 1e-3
HEAD = ("n", "way", "prefill, s", "a token, ms", "peak, MiB", "cache, MiB", "rounds")


@dataclass(frozen=True)
class ModelShape:
    """The model: Mistral's proportions, small.

    Attributes:
        layers: All of them have the window.
        d_model: Width of the residual stream.
        heads: Heads of queries.
        kv_heads: Heads of keys and values.
        intermediate: Width inside the feed-forward layers.
        window: W, keys that a query meets, its own among them.
        vocabulary: Different tokens.
    """

    layers: int = 2
    d_model: int = 512
    heads: int = 8
    kv_heads: int = 2
    intermediate: int = 1792
    window: int = 1024
    vocabulary: int = 256


@dataclass(frozen=True)
class Effort:
    """How long is measured, and what is not tried.

    Attributes:
        rounds: Rounds at most.
        budget: Seconds of a length's prefills after which no new round starts.
        steps: Tokens written in a round.
        seconds: A prefill may take so long, by what the last length took.
        memory: And may need so many bytes.
    """

    rounds: int = 5
    budget: float = 45.0
    steps: int = 16
    seconds: float = 150.0
    memory: int = 12 * 2**30

    @property
    def prefills(self) -> Settings:
        """The protocol of prefills, one try however disturbed, which is recorded."""
        return Settings(self.rounds, 1, self.budget, repeats=0)

    @property
    def writing(self) -> Settings:
        """The protocol of steps."""
        return Settings(self.rounds + 2, self.rounds, 1.0, repeats=0)


# The model, in four ways


def model_of(way: str, shape: ModelShape) -> transformers.PreTrainedModel:
    """A model with random weights, the same ones in every way."""
    import transformers

    name, has_window = WAYS[way]
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.d_model,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        sliding_window=shape.window if has_window else None,
        max_position_embeddings=2**17,
        attn_implementation="eager" if name == "eager" else "sdpa",
    )
    return transformers.MistralForCausalLM(config).eval()


@contextlib.contextmanager
def serving(way: str, shape: ModelShape) -> Iterator[Session]:
    """A model that attends in this way, ready to read."""
    model = model_of(way, shape)
    ours = hf.use(model) if WAYS[way][0] == "attn_tutorial" else None
    with ours or contextlib.nullcontext(), torch.no_grad():
        session = Session(model)
        session.read(64)  # warm
        yield session


class Session:
    """A model and the cache of what it has read.

    Args:
        model: A decoder of Transformers.

    Attributes:
        cache: The library's growing cache, which knows the windows of the config.
        scores: Of the last token, shape (vocabulary,).
    """

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        self.model, self.cache, self.scores = model, None, None

    def read(self, n: int) -> None:
        """Read a prompt of n tokens, the same ones in every session."""
        from transformers import DynamicCache

        self.cache = None  # the old one goes before the new one comes
        self.cache = DynamicCache(config=self.model.config)
        source = torch.Generator().manual_seed(n)
        size = self.model.config.vocab_size
        self._next(torch.randint(size, (1, n), generator=source))

    def write(self, steps: int) -> None:
        """Write tokens, each the one with the highest score."""
        for _ in range(steps):
            self._next(self.scores.argmax().view(1, 1))

    def _next(self, tokens: Tensor) -> None:
        options = {"past_key_values": self.cache, "use_cache": True}
        self.scores = self.model(tokens, logits_to_keep=1, **options).logits[0, -1]

    @property
    def bytes(self) -> int:
        """Memory of the keys and values."""
        layers = self.cache.layers
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


# Measuring


def measure(
    shape: ModelShape,
    limits: Effort,
    lengths: Sequence[int] = LENGTHS,
    tell: Tell = silent,
) -> dict[str, Any]:
    """Read and write at every length.

    Args:
        shape: The model.
        limits: How long, and what is not tried.
        lengths: Tokens of the prompts, growing.
        tell: Is told what is being done.

    Returns:
        The record: ``shape``, ``limits``, ``provenance``, and what each way needed at
        each length, with the reasons of those that were not run.
    """
    clock, found = clocks.CpuClock(), []
    provenance = record.provenance("cpu", clock.name)
    with contextlib.ExitStack() as stack:
        sessions = {w: stack.enter_context(serving(w, shape)) for w in WAYS}
        for n in lengths:
            tried, not_run = allowed(n, found, limits)
            peaks = {way: peak(way, n, shape, tell) for way in tried}
            chosen = {way: sessions[way] for way in tried}
            found.append(at_length(n, chosen, limits, clock, tell))
            for result in found[-1]["results"]:
                result["peak_bytes"] = peaks[result["way"]]
            found[-1]["not_run"] = not_run
    head = {"shape": asdict(shape), "limits": asdict(limits)}
    return head | {"provenance": provenance, "lengths": found}


def allowed(
    n: int, found: list[dict], limits: Effort
) -> tuple[list[str], dict[str, str]]:
    """Which ways are tried at a length, and why the others are not.

    What a way needed at the last length is taken to grow with the square.
    """
    if not found:
        return list(WAYS), {}
    known = {result["way"]: result for result in found[-1]["results"]}
    square = (n / found[-1]["n"]) ** 2
    not_run = dict.fromkeys(WAYS.keys() - known, "not run at the length before")
    for way, result in known.items():
        seconds = square * min(result["prefill"])
        memory = square * (result["peak_bytes"] or 0)
        if seconds > limits.seconds:
            not_run[way] = f"would take about {seconds:.0f} s"
        elif memory > limits.memory:
            not_run[way] = f"would need about {memory / 2**30:.0f} GiB"
    return [way for way in WAYS if way not in not_run], not_run


def at_length(
    n: int,
    sessions: dict[str, Session],
    limits: Effort,
    clock: clocks.Clock,
    tell: Tell = silent,
) -> dict[str, Any]:
    """Prefills and steps of all ways at one length."""
    tell(f"n = {n:,}: prefill")
    reading = {way: lambda s=s: s.read(n) for way, s in sessions.items()}
    prefills, disturbed = protocol.undisturbed(reading, limits.prefills, clock, tell)
    errors = differences({way: s.scores for way, s in sessions.items()})
    held = {way: session.bytes for way, session in sessions.items()}
    writing = {way: lambda s=s: s.write(limits.steps) for way, s in sessions.items()}
    steps, _ = protocol.undisturbed(writing, limits.writing, clock, tell)
    results = [
        {
            "way": way,
            "prefill": seconds(prefills[way], clock),
            "step": seconds(steps[way], clock, limits.steps),
            "cache_bytes": held[way],
            "largest_difference": errors[way],
        }
        for way in sessions
    ]
    return {"n": n, "disturbance": disturbed, "results": results}


def seconds(samples: list[dict], clock: clocks.Clock, each: int = 1) -> list[float]:
    """Every round's seconds, in the order of the rounds."""
    return [five_digits(one[clock.name] / each) for one in samples]


def differences(scores: dict[str, Tensor]) -> dict[str, float | None]:
    """Largest difference of the last scores from the first way's; None if none counts.

    Raises:
        ValueError: If one of the ways with a window computes something else.
    """
    first, errors = scores[next(iter(scores))], {}
    for way, found in scores.items():
        off = (found - first).abs().max().item()
        errors[way] = float(f"{off:.1e}") if WAYS[way][1] else None
        if WAYS[way][1] and not off < TOLERANCE:
            raise ValueError(f"{way} differs from {next(iter(scores))} by {off:.1e}")
    return errors


# Peak memory


def peak(way: str, n: int, shape: ModelShape, tell: Tell = silent) -> int | None:
    """Peak bytes of a prefill in a process of its own, where the system tells."""
    tell(f"n = {n:,}: peak memory, {way}")
    code = "from attn_tutorial.benchmark.served import ModelShape, peak_here; "
    code += f"print(peak_here({way!r}, {n}, {shape!r}))"
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | settings,
    )
    return int(done.stdout) if done.stdout.strip().isdecimal() else None


def peak_here(way: str, n: int, shape: ModelShape) -> int:
    """Peak bytes of a prefill in this process, above the model's own."""
    with serving(way, shape) as session:
        return clocks.cpu_peak(lambda: session.read(n), warm=lambda: session.read(64))


# In words


def median(samples: Sequence[float]) -> float:
    """Median of the rounds."""
    return statistics.median(samples)


def rows(data: dict[str, Any]) -> list[list[str]]:
    """A row of texts for each length and way, under ``HEAD``; medians of the rounds.

    Args:
        data: A record.
    """
    found = []
    for entry in data["lengths"]:
        length = f"{entry['n']:,}"
        found += [[length, *cells(one)] for one in entry["results"]]
        left_out = sorted(entry["not_run"].items())
        found += [[length, way, reason, "", "", "", "0"] for way, reason in left_out]
    return found


def cells(one: dict[str, Any]) -> list[str]:
    """What one way needed at one length."""
    mebibytes = [(one[name] or 0) / 2**20 for name in ("peak_bytes", "cache_bytes")]
    numbers = [median(one["prefill"]), 1e3 * median(one["step"]), *mebibytes]
    return [one["way"], *map(three_digits, numbers), str(len(one["prefill"]))]


def three_digits(number: float) -> str:
    """Write a number as a measurement deserves.

    Example:
        >>> three_digits(1234.5), three_digits(12.34), three_digits(0.0123)
        ('1,234', '12.3', '0.0123')
    """
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def table(data: dict[str, Any]) -> str:
    """The rows as Markdown.

    Args:
        data: A record.
    """
    lines = [HEAD, ["---"] * len(HEAD), *rows(data)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
