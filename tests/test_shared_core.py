"""Two threads beside another program: what is measured, and how it is read."""

import subprocess

import torch

from attn_tutorial.benchmark import shared_core
from attn_tutorial.benchmark.cases import Case
from attn_tutorial.benchmark.decoding import recorded
from attn_tutorial.benchmark.protocol import LEAST, RUNS, Settings


def result(busy, tiled, *flex):
    times = {"tiled": tiled} | {f"flex {i}": t for i, t in enumerate(flex)}
    seconds = {name: {"median": t} for name, t in times.items()}
    return {"case": {"mechanism": "local", "n": 8, "size": 2}, "busy": busy} | {
        "seconds": seconds
    }


def test_the_fastest_rival_counts():
    assert shared_core.advantage(result(False, 2.0, 5.0, 3.0, 4.0)) == 1.5


def test_a_table_has_the_median_and_the_range_of_the_runs():
    runs = [result(True, 0.002, 0.003), result(True, 0.002, 0.004)]
    runs += [result(True, 0.001, 0.001), result(False, 0.004, 0.002)]
    lines = shared_core.table({"runs": runs}).splitlines()[2:]
    assert lines == [
        "| 8 | 2 | busy | 2.0 | 1.50 (1.00 to 2.00) |",
        "| 8 | 2 | free | 4.0 | 0.50 (0.50 to 0.50) |",
    ]


def test_a_core_is_busy_while_it_should_be(monkeypatch):
    started = []
    start = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a: started.append(start(*a)) or started[-1]
    )
    with shared_core.busy_core(True):
        assert started[0].poll() is None
    assert started[0].poll() is not None
    with shared_core.busy_core(False):
        assert len(started) == 1


def test_a_small_measurement_is_whole_and_leaves_the_threads_as_they_were(monkeypatch):
    monkeypatch.setattr(shared_core, "CONTENDERS", ("tiled", "flex 128"))
    before = torch.get_num_threads()
    settings = Settings(rounds=7, budget=0.1, memory=False, disturbance=1.0, repeats=0)
    data = shared_core.measure([Case("local", 64, 8, heads=2, d=16)], settings, 1)
    assert torch.get_num_threads() == before
    assert data["provenance"]["threads"] == 2
    assert [r["busy"] for r in data["runs"]] == [False, True]
    assert all(r["seconds"]["tiled"]["median"] > 0 for r in data["runs"])


def test_the_record_keeps_the_protocol():
    data = recorded("shared_core")
    assert data["settings"]["least"] >= LEAST
    assert not data["provenance"]["dirty"]
    groups = shared_core.grouped(data)
    assert set(groups) == {(c, b) for c in shared_core.CASES for b in (False, True)}
    assert {len(results) for results in groups.values()} == {RUNS}
    assert all(set(r["seconds"]) == set(shared_core.CONTENDERS) for r in data["runs"])
