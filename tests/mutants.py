"""Break the package on purpose, one small change at a time, and see who notices.

    python tests/mutants.py             every mutant: unit tests, then notebooks
    python tests/mutants.py --unit      the unit tests only (minutes, not an hour)
    python tests/mutants.py -k dense:   only the mutants of one module

A mutant that survives the unit tests is a hole in them: the exit status is then 1.
One that survives the notebooks changes no number that the book prints.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("attn_tutorial", "tests", "notebooks", "pyproject.toml")


class Mutant(NamedTuple):
    """One change: in ``module``, the text ``before`` becomes ``after``."""

    module: str
    before: str
    after: str

    def __str__(self) -> str:
        change = f"{self.before.strip()}  ->  {self.after.strip() or '(nothing)'}"
        return f"{self.module}: {' '.join(change.split())}"


TESTS = {
    "patterns": ["tests/test_patterns.py"],
    "dense": ["tests/test_dense.py"],
    "tiled": [
        f"tests/test_{name}.py"
        for name in ("tiled", "local", "sparse", "half", "positions")
    ],
    "local": ["tests/test_local.py"],
    "sparse": ["tests/test_sparse.py"],
    "cost": ["tests/test_cost.py", "tests/test_calibration.py"],
}

CHAPTERS = {
    "patterns": ["patterns", "local_attention", "sparse_attention"],
    "dense": ["the_quadratic_bill", "self_attention"],
    "tiled": ["local_attention", "backward"],
    "local": ["local_attention"],
    "sparse": ["sparse_attention"],
    "cost": ["the_quadratic_bill", "sparse_attention", "local_attention", "patterns"],
}

MUTANTS = [
    # patterns: wrong sets of pairs
    Mutant("patterns", "(i < count) | (j < count)", "(i < count) & (j < count)"),
    Mutant("patterns", "(i < count) | (j < count)", "(i <= count) | (j <= count)"),
    Mutant("patterns", "(i < count) | (j < count)", "(j < count)"),
    Mutant("patterns", "& ((i - j) % step == 0)", "& ((i + j) % step == 0)"),
    Mutant("patterns", "(i - j) % stride == 0", "(i - j) % stride == 1"),
    Mutant("patterns", "[i // size, j // size]", "[j // size, i // size]"),
    Mutant("patterns", "n_k = n_q if n_k is None", "n_k = n_q + 1 if n_k is None"),
    Mutant(
        "patterns",
        "limit is not None and n > limit",
        "limit is not None and n > limit + 1",
    ),
    Mutant("patterns", "manual_seed(seed)", "manual_seed(0)"),
    # dense: the reference itself
    Mutant("dense", "scores.softmax(-1).to", "scores.softmax(-2).to"),
    Mutant("dense", "scores.softmax(-1).masked", "scores.softmax(-2).masked"),
    Mutant("dense", ".softmax(-1).masked_fill(~keep, 0.0)", ".softmax(-1)"),
    Mutant("dense", "torch.promote_types(q.dtype, torch.float32)", "q.dtype"),
    Mutant(
        "dense",
        "attention_weights(q, k, keep, scale=scale)",
        "attention_weights(q, k, keep)",
    ),
    Mutant(
        "dense",
        "attention_weights(q, k, keep, scale=scale)",
        "attention_weights(q, k, None, scale=scale)",
    ),
    # cost: closed forms
    Mutant(
        "cost", "n * (2 * window + 1) - window * (window + 1)", "n * (2 * window + 1)"
    ),
    Mutant(
        "cost",
        "n * (2 * window + 1) - window * (window + 1)",
        "n * 2 * window - window * (window + 1)",
    ),
    Mutant("cost", 'window = min(base["window"], n - 1)', 'window = base["window"]'),
    Mutant("cost", "(pairs + diagonal) // 2", "pairs // 2"),
    Mutant("cost", "n * n - rest * rest", "n * n - rest"),
    Mutant("cost", "first = min(n, size - offset % size)", "first = min(n, size)"),
    Mutant("cost", "(middle - 1) * size**2", "middle * size**2"),
    Mutant("cost", "own + 2 * first * last", "own + first * last"),
    Mutant("cost", "return 4 * d *", "return 2 * d *"),
    Mutant("cost", "(d_model + kv_width)", "(d_model + d_model)"),
    Mutant("cost", "mlp = 4 * expansion", "mlp = 2 * expansion"),
    Mutant(
        "cost",
        'return (2 + check_count("expansion"',
        'return (4 + check_count("expansion"',
    ),
    Mutant(
        "cost", "(layers > 1 or position < count)", "(layers > 2 or position < count)"
    ),
    Mutant("cost", "return min(2, layers)", "return layers"),
    Mutant("cost", "window * (window + 1) / 3", "window * (window + 1) / 12"),
    # cost: tiles on a grid
    Mutant("cost", "range(first // columns, last", "range(0, last"),
    Mutant(
        "cost",
        "range(first // columns, last // columns + 1)",
        "range(first // columns, last // columns)",
    ),
    Mutant(
        "cost",
        "range(first // columns, last // columns + 1)",
        "range(-(-(last - first + 1) // columns))",
    ),
    Mutant("cost", "sum(tiles) * rows * columns", "sum(tiles) * columns**2"),
    Mutant(
        "cost",
        "_met(pattern, n, rows, columns))\n    return sum(tiles)",
        "_met(pattern, n, columns, columns))\n    return sum(tiles)",
    ),
    Mutant("cost", "(pattern, n, rows, columns) / pairs", "(pattern, n, 1, 1) / pairs"),
    Mutant("cost", "columns) / pairs if pairs else 1.0", "columns) / max(pairs, 1)"),
    # local: the window
    Mutant("local", "max(0, i - window)", "max(0, i - window + 1)"),
    Mutant("local", "i if causal else i + window)", "i + window)"),
    Mutant("local", "@ keys.mT / d**0.5", "@ keys.mT / d"),
    # sparse: the blocks
    Mutant("sparse", "b = min(check_block", "b = 1 + min(check_block"),
    Mutant("sparse", "adjacent_blocks(b) &", "adjacent_blocks(b) |"),
    Mutant("sparse", "block_size + first, right", "block_size, right"),
    Mutant("sparse", "2 * block_size - end", "2 * block_size - end - 1"),
    Mutant("sparse", "range(0, block_size, rows)", "range(0, block_size - 1, rows)"),
    # tiled: edges, masks and the hand-written backward pass
    Mutant("tiled", "masked_fill_(~keep, -math.inf)", "masked_fill_(keep, -math.inf)"),
    Mutant(
        "tiled", "(head, step * row, row, feature)", "(head, size * row, row, feature)"
    ),
    Mutant("tiled", "x.storage_offset() + start * row", "start * row"),
    Mutant("tiled", "q = q * scale\n", "pass\n"),
    Mutant("tiled", "weights += bias", "pass"),
    Mutant("tiled", "torch.softmax(weights, -1, out", "torch.softmax(weights, -2, out"),
    Mutant("tiled", ".sub_(mean)", ".add_(mean)"),
    Mutant("tiled", "(grad * output)", "(grad * grad)"),
    Mutant("tiled", "beta=0, alpha=scale", "beta=0"),
    Mutant("tiled", "dv[some].baddbmm_(weights", "dv[some].baddbmm_(dscores"),
    Mutant("tiled", ".mT, q[some])", ".mT, q[some] / scale)"),
    Mutant("tiled", "slice(first, None, apart)", "slice(first, None, 2 * apart)"),
    Mutant("tiled", "min(apart, len(k))", "min(apart, len(k) - 1)"),
    Mutant("tiled", "weights.masked_fill_(bias == -math.inf, 0)", "pass"),
    Mutant(
        "tiled",
        "promote_types(x.dtype, torch.float32)",
        "promote_types(x.dtype, x.dtype)",
    ),
    Mutant("tiled", "not plan.with_lse and multiplies_half", "multiplies_half"),
    Mutant("tiled", "x.dtype != torch.bfloat16 or", "x.dtype == torch.float64 or"),
    Mutant("tiled", "and keys <= 512", "or keys <= 512"),
    Mutant("tiled", "slab.tiles(dq[:, head]).copy_(tiles[3])", "pass"),
    Mutant("cost", "part * price for part", "part + price for part"),
    # positions, sides, shared heads
    Mutant("patterns", "return j <= i\n", "return j < i\n"),
    Mutant("patterns", "return j <= i\n", "return j >= i\n"),
    Mutant("patterns", "(j >= i - left) & (j", "(j > i - left) & (j"),
    Mutant("patterns", "& (j <= i + right)", "& (j <= i + left)"),
    Mutant("patterns", " - j // size).abs() <= beside", " - j // size) <= beside"),
    Mutant("patterns", "pattern.keep(i + first, j)", "pattern.keep(i - first, j)"),
    Mutant("patterns", "reduce(torch.logical_or", "reduce(torch.logical_and"),
    Mutant("patterns", "min(right * step, FAR)", "min(right, FAR)"),
    Mutant("patterns", "(number(i) == number(j))", "(number(i) <= number(j))"),
    Mutant("dense", "scores.masked_fill(~keep, lowest)", "scores"),
    Mutant("dense", "scale = check_scale(scale, q.shape[-1])", "scale = 1.0"),
    Mutant("local", "max(first + n_q - 1, 0)", "max(n_q - 2, 0)"),
    Mutant("local", "right = 0 if causal else min", "right = min"),
    Mutant("local", "left, 0 if causal else right)", "left, right)"),
    Mutant("sparse", "patterns.causal() if causal else None", "patterns.causal()"),
    Mutant("tiled", "bottom = max(place, first), min", "bottom = max(place, 0), min"),
    Mutant("tiled", "// self.step + 1, most", "// self.step + 2, most"),
    Mutant("tiled", "place >= max(first, self.left)", "place >= first"),
    Mutant("tiled", "hidden + self.bias", "hidden"),
    Mutant("tiled", "mean = mean - more", "mean = mean + more"),
    Mutant(
        "tiled",
        "bias.masked_fill_(~keep, -math.inf)",
        "bias.masked_fill_(keep, -math.inf)",
    ),
]


def apply(mutant: Mutant, root: Path) -> None:
    """Change one file below ``root``; the text must stand there exactly once."""
    path = root / "attn_tutorial" / f"{mutant.module}.py"
    source = path.read_text()
    if source.count(mutant.before) != 1:
        found = source.count(mutant.before)
        raise ValueError(f"{mutant}: found {found} times, expected once")
    path.write_text(source.replace(mutant.before, mutant.after))


def passes(root: Path, *arguments: str) -> bool:
    """Whether pytest passes on the copy; -x stops it at the first failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    run = subprocess.run(
        [*command, *arguments], cwd=root, env=environment, capture_output=True
    )
    if run.returncode not in (0, 1, 2):
        raise RuntimeError(run.stdout.decode() + run.stderr.decode())
    return run.returncode == 0


def notebooks(module: str) -> list[str]:
    """All chapters, the ones most likely to notice first: -x then ends soon."""
    first = [f"notebooks/{name}.ipynb" for name in CHAPTERS[module]]
    rest = sorted(f"notebooks/{path.name}" for path in ROOT.glob("notebooks/*.ipynb"))
    return first + [name for name in rest if name not in first]


def survivals(mutant: Mutant, unit_only: bool) -> list[str]:
    """Names of the suites that do not notice the mutant."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, root / name)
        apply(mutant, root)
        suites = {"unit tests": TESTS[mutant.module]}
        if not unit_only:
            suites["notebooks"] = ["--nbval", *notebooks(mutant.module)]
        return [name for name, args in suites.items() if passes(root, *args)]


def main() -> int:
    """Run the chosen mutants, print a line for each, and say who survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--unit", action="store_true", help="without the notebooks")
    parser.add_argument("-k", default="", help="only mutants whose line contains this")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.k in str(mutant)]
    survived = Counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(partial(survivals, unit_only=options.unit), chosen)
        for number, (mutant, suites) in enumerate(zip(chosen, results, strict=True), 1):
            survived.update(suites)
            verdict = f"SURVIVES {', '.join(suites)}" if suites else "noticed"
            print(f"{number:3}/{len(chosen)}  {verdict:10}  {mutant}", flush=True)
    for suite in ("unit tests",) if options.unit else ("unit tests", "notebooks"):
        print(f"{len(chosen)} mutants, {survived[suite]} survive the {suite}")
    return 1 if survived["unit tests"] else 0


if __name__ == "__main__":
    sys.exit(main())
