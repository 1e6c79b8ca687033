"""The canonical benchmark: time and memory of every routine, with provenance.

    python -m attn_tutorial.benchmark run --suite quick      measure and print
    python -m attn_tutorial.benchmark run --out FILE         the full suite, recorded
    python -m attn_tutorial.benchmark show cpu               tables, ratios, findings
    python -m attn_tutorial.benchmark compare A B            two records or devices
    python -m attn_tutorial.benchmark compare --base main    this code and a revision

All contenders of a case run in turn, in random order, round after round, so that what
else the computer does hits all of them alike. Each result is compared with a float64
reference on some rows before anything is timed. A contender that cannot run is
recorded with the reason. Trust the ratios within a case more than the seconds.

`load("cpu")` reads the recorded runs of a device.
"""

from attn_tutorial.benchmark.cases import SWEEPS, Case, Plan, suite
from attn_tutorial.benchmark.conclusions import Finding, changes, findings, limits
from attn_tutorial.benchmark.load import (
    Record,
    Records,
    Result,
    Spread,
    devices,
    load,
    read,
)
from attn_tutorial.benchmark.record import validate
from attn_tutorial.benchmark.report import compare, show, table

__all__ = [
    "SWEEPS",
    "Case",
    "Finding",
    "Plan",
    "Record",
    "Records",
    "Result",
    "Spread",
    "changes",
    "compare",
    "devices",
    "findings",
    "limits",
    "load",
    "read",
    "show",
    "suite",
    "table",
    "validate",
]
