"""The benchmark command: what it compares, checks and records. No time is asserted."""

import json
import subprocess
import sys

import pytest
import torch

import attn_tutorial as at
from attn_tutorial import benchmark
from attn_tutorial.benchmark import Case, Unavailable

CASES = [
    Case(mechanism, 96, size, causal=causal, heads=2, d=8)
    for mechanism in ("local", "blocks")
    for size in (4, 16, 96)
    for causal in (False, True)
]


@pytest.fixture
def small(monkeypatch):
    """Contenders of all kinds on one small case."""

    def absent(case):
        raise Unavailable("no module named nothing")

    def broken(case):
        return lambda q, k, v: q @ v

    contenders = {
        "attn_tutorial": benchmark.ours,
        "absent": absent,
        "broken": broken,
        "wrong": lambda case: lambda q, k, v: v.clone(),
    }
    monkeypatch.setattr(benchmark, "CONTENDERS", contenders)
    monkeypatch.setattr(benchmark, "memory_cases", lambda quick: [])
    monkeypatch.setattr(benchmark, "cases", lambda quick: CASES[:1])


@pytest.mark.parametrize("backward", [False, True])
def test_operations_count_useful_pairs_only(backward):
    case = Case("local", 50, 3, backward=backward, heads=2, d=8)
    pairs = int(at.dense_mask(case.pattern, 50).sum())
    assert case.flops == 4 * 8 * 2 * pairs * (3.5 if backward else 1)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_ours_agrees_with_the_reference(case, backward):
    case = Case(**{**vars(case), "backward": backward})
    tensors = case.inputs()
    results = benchmark.work(benchmark.ours(case), tensors, backward)
    assert len(results) == (4 if backward else 1)
    assert benchmark.largest_error(case, results, tensors) < 1e-5
    results[-1 if not backward else 1][..., 0, 0] += 1  # the output, or q's gradient
    assert benchmark.largest_error(case, results, tensors) > 0.9


def test_masked_sdpa_agrees_with_the_reference():
    case = CASES[0]
    results = benchmark.work(benchmark.masked_sdpa(case), case.inputs(), False)
    assert benchmark.largest_error(case, results, case.inputs()) < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES[:10], ids=str)
def test_the_packages_agree_with_the_reference_where_installed(case):
    for make in (benchmark.local_attention_package, benchmark.longformer_chunks):
        try:
            attend = make(case)
        except Unavailable:
            continue
        results = benchmark.work(attend, case.inputs(), False)
        assert benchmark.largest_error(case, results, case.inputs()) < 1e-4


def test_contenders_that_would_fill_the_memory_say_so():
    case = Case("local", 65536, 512)
    for make in (benchmark.local_attention_package, benchmark.longformer_chunks):
        with pytest.raises(Unavailable, match=r"about 13 GB|No module"):
            make(case)


def test_every_contender_is_recorded_or_its_absence_is(small):
    record = benchmark.measure(CASES[0], rounds=4, budget=60)
    results = {result["name"]: result for result in record["results"]}
    assert set(results) == {*benchmark.CONTENDERS, "matmul"}
    for name in ("attn_tutorial", "matmul"):
        assert results[name]["rounds"] == 4 and "not_run" not in results[name]
        low, high = results[name]["wall"]["quartiles"]
        assert results[name]["wall"]["minimum"] <= low <= high
    assert results["attn_tutorial"]["largest_error"] < 1e-5
    assert "no module named nothing" in results["absent"]["not_run"]
    assert "RuntimeError" in results["broken"]["not_run"]
    assert "wrong: differs" in results["wrong"]["not_run"]


def test_a_contender_above_the_limit_is_reported(small):
    record = benchmark.measure(CASES[0], rounds=3, budget=0, limit=0.0)
    assert "the limit is 0" in record["results"][0]["not_run"]


def test_at_least_three_rounds(small):
    record = benchmark.measure(CASES[0], rounds=9, budget=0)
    assert record["results"][0]["rounds"] == 3


def test_a_record_can_be_written_and_shown(small, tmp_path, capsys):
    file = tmp_path / "new" / "record.json"
    threads = torch.get_num_threads()
    benchmark.main(["run", "--quick", "--out", str(file), "--threads", str(threads)])
    printed = capsys.readouterr().out
    record = json.loads(file.read_text())
    known = record["provenance"]
    assert known["torch"] == torch.__version__ and known["threads"] == threads
    assert {"processor", "python", "date", "revision", "packages"} <= set(known)
    benchmark.main(["show", str(file)])
    assert capsys.readouterr().out.endswith(printed)
    assert "100% of matmul" in printed and "not run: no module named" in printed


def test_the_cases_cover_what_is_promised():
    everything = list(benchmark.cases(quick=False))
    assert len(set(everything)) == len(everything) == 3 * 4 * 3 * 2
    assert all(case.n <= 1024 for case in benchmark.cases(quick=True))
    assert Case("local", 262144, 128, backward=True) in [
        case for case, _ in benchmark.memory_cases(quick=False)
    ]


def test_peak_memory_is_measured_in_a_process_of_its_own():
    case = Case("local", 200, 5, backward=True, heads=1, d=8)
    record = benchmark.peak_memory(case, "attn_tutorial")
    assert record["peak_bytes"] > 10**7 and record["tensors_returned"] == 4
    assert "attn_tutorial: peak" in benchmark.memory_line(record)
    large = Case("local", 8192, 5, heads=1, d=8)
    refused = benchmark.peak_memory(large, "sdpa, n x n mask")
    assert "measured up to n = 4096" in refused["not_run"]
    assert "not run" in benchmark.memory_line(refused)


def test_the_package_does_not_import_the_benchmark():
    code = "import sys, attn_tutorial; print('attn_tutorial.benchmark' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
