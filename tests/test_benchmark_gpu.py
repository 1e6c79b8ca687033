"""The run on a borrowed GPU, here on a CPU: its script, its suite, its table."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from made_up_records import entry, limits

from attn_tutorial.benchmark import gpu_suite, gpu_table, measure, record
from attn_tutorial.benchmark.cases import Case, Plan
from attn_tutorial.benchmark.contenders import CONTENDERS, Contender, Unavailable
from attn_tutorial.benchmark.load import read

ROOT = Path(__file__).resolve().parents[1]
SMALL = Case("local", 40, 5, True, heads=2, d=8, dtype="bfloat16")
MISSING = ("jsonschema", "filelock", "tqdm", "hypothesis", "local_attention")


@pytest.fixture
def quick(monkeypatch):
    """The machine's limits take seconds to measure: no test here needs them."""
    limit = limits(product=1.0, copy=1.0)
    both = {"float32": limit, "bfloat16": limit}
    monkeypatch.setattr(measure, "ceilings", lambda *arguments: both)


def run(plans, out, seconds=100.0):
    """Measure on the CPU; what was said and what the record holds."""
    said = []
    gpu_suite.run(plans, out, seconds, "cpu", say=said.append)
    return said, read(out / "gpu-1.json").data


@pytest.mark.skipif(sys.platform != "linux", reason="the script is for Linux")
def test_the_script_ends_with_a_table_and_a_valid_record(tmp_path):
    pytest.importorskip("triton", reason="Triton is not installed")
    for name in MISSING:  # as on a machine that has no more than PyTorch
        text = f"raise ImportError('No module named {name}')\n"
        (tmp_path / f"{name}.py").write_text(text)
    environment = os.environ | {
        "DEVICE": "cpu",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(tmp_path),
        "SUITE": "--cases 1 --only triton tiled",
        "TESTS": "-k the_tiles",
    }
    out = tmp_path / "out"
    done = subprocess.run(
        ["bash", str(ROOT / "scripts/gpu.sh"), str(out), "5"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 cases measured" in done.stdout.splitlines()[-1]
    assert "passed" in (out / "tests.txt").read_text()
    assert "NOT ALL TESTS PASSED" not in done.stdout
    assert done.stdout.endswith((out / "table.txt").read_text())
    found = json.loads((out / "gpu-1.json").read_text())
    record.validate(found)
    (case,) = found["cases"]
    assert {result["name"] for result in case["results"]} == {"triton", "tiled"}
    assert case["case"]["kv_heads"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the script is for Linux")
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["out", "1"], 1)])
def test_the_script_says_what_it_needs(tmp_path, arguments, status):
    done = subprocess.run(
        ["bash", str(ROOT / "scripts/gpu.sh"), *arguments],
        env=os.environ | {"PYTHON": sys.executable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert ("usage" if status == 2 else "no CUDA device") in done.stderr


def test_no_case_begins_that_would_not_end_in_time(tmp_path, quick, monkeypatch):
    ticks = itertools.count(0, 4)  # each look at the clock takes 4 seconds
    monkeypatch.setattr(gpu_suite, "time", SimpleNamespace(monotonic=ticks.__next__))
    cases = [replace(SMALL, size=size) for size in (1, 2, 3)]
    plans = [Plan(case, contenders=("tiled",)) for case in cases]
    said, data = run(plans, tmp_path, seconds=13)
    assert [Case(**entry["case"]) for entry in data["cases"]] == cases[:1]
    assert "the time is over; not measured: case 2" in said[-1]
    text = gpu_table.table(tmp_path)
    assert str(cases[0]) in text and text.endswith("1 cases measured")
    record.validate(data)
    monkeypatch.undo()
    _, data = run(plans[:2], tmp_path)  # and it goes on where it stopped
    assert [Case(**entry["case"]) for entry in data["cases"]] == cases[:2]


def test_a_contender_that_raises_ends_nothing(tmp_path, quick, monkeypatch):
    def make(case, device):
        def attend(q, k, v):
            raise RuntimeError("an illegal instruction\nwas met")

        return attend

    bad = Contender("bad", make, pairs=lambda case: 1)
    monkeypatch.setitem(CONTENDERS, "bad", bad)
    _, data = run([Plan(SMALL, contenders=("bad", "tiled"))], tmp_path)
    (entry,) = data["cases"]
    assert entry["not_run"] == {"bad": "RuntimeError: an illegal instruction\nwas met"}
    assert [result["name"] for result in entry["results"]] == ["tiled"]
    text = gpu_table.table(tmp_path)
    assert "bad               not run: RuntimeError: an illegal instruction was" in text
    record.validate(data)


def test_a_case_that_fails_is_noted_and_left_out_later(tmp_path, quick, monkeypatch):
    whole = measure.measure_case
    asked = []

    def failing(plan, *arguments):
        asked.append(plan.case)
        if plan.case == SMALL:
            raise MemoryError("out of it")
        return whole(plan, *arguments)

    monkeypatch.setattr(measure, "measure_case", failing)
    other = replace(SMALL, size=2)
    plans = [Plan(case, contenders=("tiled",)) for case in (SMALL, other)]
    run(plans, tmp_path)
    run(plans, tmp_path)
    assert asked == [SMALL, other]
    assert f"failed: {SMALL}: MemoryError: out of it" in gpu_table.table(tmp_path)


def test_a_lost_device_asks_for_another_process(tmp_path, monkeypatch):
    def broken():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(gpu_suite.DeviceLost, match="illegal memory access"):
        gpu_suite.check_device("cuda")

    def lost(*arguments):
        raise gpu_suite.DeviceLost("an illegal memory access")

    monkeypatch.setattr(gpu_suite, "run", lost)
    assert gpu_suite.main([str(tmp_path), "--minutes", "1"]) == gpu_suite.AGAIN
    assert f"-eq {gpu_suite.AGAIN} ]" in (ROOT / "scripts/gpu.sh").read_text()


def test_nothing_measured_is_said(tmp_path):
    assert gpu_table.table(tmp_path) == "no case was measured"


def test_the_suite_begins_with_what_is_published_and_covers_the_rest():
    plans = gpu_suite.plans()
    cases = [plan.case for plan in plans]
    assert len(set(cases)) == len(cases)
    cudnn = cases[0]
    assert (cudnn.n, cudnn.heads, cudnn.kv_heads, cudnn.d) == (32768, 128, 16, 64)
    assert cudnn.causal and cudnn.size + 1 == 1024 and cases[1].backward
    assert set(cases[:6]) >= set(gpu_suite.PUBLISHED)
    for size, d in itertools.product((64, 128, 256, 512, 1024, 2048, 4096), (64, 128)):
        for causal, backward in itertools.product((False, True), repeat=2):
            case = Case("local", 16384, size, causal, backward, 8, d, "bfloat16")
            assert case in cases
    assert max(case.n for case in cases) == 2**20
    for plan in plans:
        assert set(plan.contenders) <= set(CONTENDERS)
    small = gpu_suite.plans(small=True)
    assert {plan.case.n <= 128 for plan in small} == {True} and len(small) > 20


# Heads that share keys


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backward", [False, True])
def test_contenders_with_shared_heads_agree_with_the_reference(backward):
    case = Case("local", 60, 7, True, backward, heads=6, d=8, kv_heads=2)
    tensors, ran = case.inputs(), []
    assert [x.shape[1] for x in tensors] == [6, 2, 2, 6]
    for name, one in CONTENDERS.items():
        try:
            attend = one.make(case, "cpu")
        except Unavailable:
            continue
        if name.startswith("flex"):
            continue  # compiles
        results = measure.work(attend, tensors, backward)
        assert measure.largest_error(one, case, results, tensors) < 1e-4, name
        ran.append(name)
    assert {"tiled", "sdpa + mask", "sdpa full", "sdpa flash"} <= set(ran)


def test_shared_heads_are_read_and_written_once():
    case = Case("local", 60, 7, heads=6, d=8, kv_heads=2)
    of_queries, of_keys = 6 * 60 * 8 * 4, 2 * 60 * 8 * 4
    assert case.compulsory_bytes == 2 * of_queries + 2 * of_keys
    both = replace(case, backward=True)
    assert both.compulsory_bytes == 6 * of_queries + 6 * of_keys
    assert case.useful_flops == replace(case, kv_heads=None).useful_flops
    assert "6 heads, d = 8, float32, 2 of keys" in str(case)


# The table


def test_the_table_compares_with_what_is_possible(tmp_path):
    case = Case("local", 1024, 128, True, heads=2)
    both = replace(case, backward=True)
    useful = case.useful_flops
    times = {"triton": 2.0, "sdpa flash": 4.0, "flex 128": 3.0, "flex 64": 5.0}
    entries = [
        entry(case, times, executed=4, peaks={"triton": 5_000_000}),
        entry(both, {"triton": 7.0}, executed=4),
    ]
    data = {
        "schema": record.SCHEMA_VERSION,
        "suite": "gpu",
        "settings": {},
        "provenance": record.provenance("cpu", "processor"),
        "ceilings": {},
        "cases": entries,
    }
    (tmp_path / "gpu-1.json").write_text(json.dumps(data))
    found = read(tmp_path / "gpu-1.json")
    results = {(r.name, r.case): r for r in found.results}
    ours, flash = results["triton", case], results["sdpa flash", case]
    assert gpu_table.dense_rate(found, case) == useful  # 4 useful in 4 seconds
    assert gpu_table.bound(case) == 0.5  # 128 / (128 + 128)
    assert gpu_table.bound(replace(case, causal=False)) == 2 / 3
    assert gpu_table.of_bound(found, ours) == 1.0  # half the dense rate
    assert gpu_table.of_bound(found, flash) is None
    assert gpu_table.over_flex(found, ours) == 1.5  # than the better of two
    assert gpu_table.dense_rate(found, both) is None
    assert gpu_table.backward_alone(found, results["triton", both]) == 5.0
    lines = gpu_table.table(tmp_path).splitlines()
    line = next(line for line in lines if line.startswith("  triton"))
    assert line.split()[1:3] == ["2000", "-"] and line.split()[4:] == ["1", "1.5", "5"]
