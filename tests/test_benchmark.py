"""The benchmark: what it measures, checks, records and reports. No time is asserted."""

import copy
import dataclasses
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import types

import jsonschema
import pytest
import torch
from conftest import ROOT
from made_up_records import entry, limits

import attn_tutorial as at
from attn_tutorial import benchmark, provenance
from attn_tutorial.backends import flex
from attn_tutorial.benchmark import (
    Case,
    Plan,
    Records,
    Spread,
    __main__,
    cases,
    clocks,
    contenders,
    disturbance,
    measure,
    protocol,
    report,
    revisions,
)
from attn_tutorial.benchmark import record as writing
from attn_tutorial.benchmark.contenders import CONTENDERS, Contender, Unavailable
from attn_tutorial.benchmark.disturbance import Share, Usage
from attn_tutorial.benchmark.estimate import Estimate
from attn_tutorial.benchmark.progress import Life
from attn_tutorial.benchmark.protocol import Settings

reading = sys.modules[benchmark.load.__module__]  # `load` is the function, too

SMALL = [
    Case(mechanism, 96, size, causal=causal, heads=2, d=8)
    for mechanism in ("local", "blocks")
    for size in (4, 16, 96)
    for causal in (False, True)
]
QUICK = Settings(
    rounds=8, least=7, budget=60, limit=60, memory=False, disturbance=9e9, spread=9e9
)
COMMITTED = sorted((ROOT / "book/data/benchmarks").glob("*.json"))


class Ticks:
    """A clock that runs what it measures and counts instead of measuring."""

    name = "processor"

    def __init__(self):
        self.count = 0

    def seconds(self, run):
        run()
        self.count += 1
        return {"wall": float(self.count), "processor": float(self.count)}


def absent(case, device):
    raise Unavailable("no module named nothing")


def broken(case, device):
    return lambda q, k, v: q @ v


def wrong(case, device):
    return lambda q, k, v: v.clone()


@pytest.fixture
def few(monkeypatch):
    """Contenders of all kinds, most of which fail."""
    chosen = {name: CONTENDERS[name] for name in ("tiled", "sdpa + mask")}
    for make in (absent, broken, wrong):
        name = make.__name__
        chosen[name] = Contender(name, make, pairs=contenders.pairs_of_pattern)
    for module in (contenders, measure):
        monkeypatch.setattr(module, "CONTENDERS", chosen)
    return chosen


# Cases and suites


@pytest.mark.parametrize("backward", [False, True])
def test_operations_count_useful_pairs_only(backward):
    case = Case("local", 50, 3, backward=backward, heads=2, d=8)
    pairs = int(at.dense_mask(case.pattern, 50).sum())
    assert case.useful_flops == 4 * 8 * 2 * pairs * (3.5 if backward else 1)


def test_compulsory_traffic_counts_each_tensor_once_per_pass():
    case = Case("local", 50, 3, heads=2, d=8, dtype="bfloat16")
    assert case.tensor_bytes == 2 * 50 * 8 * 2
    assert case.compulsory_bytes == 4 * case.tensor_bytes  # q, k, v, output
    both = dataclasses.replace(case, backward=True)  # those, dO again; dq, dk, dv
    assert both.compulsory_bytes == (4 + 5 + 3) * case.tensor_bytes


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_full_suite_covers_what_is_promised(device):
    plans = benchmark.suite("full", device)
    known = {plan.case for plan in plans}
    assert len(known) == len(plans)
    usual = "bfloat16" if device == "cuda" else "float32"
    lengths = {512, 1024, 2048, 4096, 8192, 16384}
    for dtype in ("float32", "bfloat16"):
        for causal in (False, True):
            forward = Case("local", 0, 128, causal, dtype=dtype)
            line = on_line(known, forward)
            assert line >= (lengths if dtype == usual else lengths - {1024})
            assert on_line(known, dataclasses.replace(forward, backward=True)) >= {
                512, 2048, 4096}  # fmt: skip
            assert Case("local", 4096, 128, causal, True, 8, 128, dtype) in known
    n, largest = (16384, {4096}) if device == "cuda" else (8192, set())
    sizes = {case.size for case in known if case.n == n}
    assert sizes == {64, 128, 256, 512, 1024} | largest
    assert {case.d for case in known} == {64, 128}
    assert any(plan.memory for plan in plans)
    for size in (64, 128, 512):
        for mechanism, causal in cases.PATTERNS:
            assert Case(mechanism, 4096, size, causal, dtype=usual) in known


def on_line(known, line):
    """Lengths at which cases lie on a line."""
    return {case.n for case in known if dataclasses.replace(case, n=0) == line}


def test_every_causal_window_has_full_attention_in_its_table():
    plans = benchmark.suite("full")
    full = {blind(p.case) for p in plans if "sdpa full" in p.contenders}
    causal = {p.case for p in plans if p.case.causal and p.case.d == 64}
    told = {x for x in causal if x.n <= (4096 if x.backward else 8192)}
    assert len(told) > 20
    assert all(blind(case) in full for case in told)


def blind(case):
    """A case without what full attention ignores."""
    return dataclasses.replace(case, mechanism="", size=0)


def test_a_run_of_one_core_takes_a_quarter_of_an_hour_by_the_records():
    known = benchmark.load("cpu")
    estimate = Estimate(known, Settings(), "cpu")
    assert 300 < estimate.suite(benchmark.suite("full")) <= 900
    assert estimate.suite(benchmark.suite("quick")) <= 120
    one = Plan(Case("local", 8192, 128), contenders=("tiled", "sdpa full", "natten"))
    calls = estimate.calls(one)
    assert list(calls) == ["tiled", "sdpa full"], "natten is in no record"
    assert calls["tiled"] == known.seconds("tiled", one.case).median
    assert estimate.case(one) > 8 * sum(calls.values())  # once to check, seven rounds


def test_what_is_not_recorded_is_estimated_from_its_operations():
    estimate = Estimate(RUNS, Settings(limit=10), "cpu")
    case, one = Case("local", 4096, 256), CONTENDERS["tiled"]
    rate = statistics.median(x.executed_flops / x.seconds for x in RUNS.select("tiled"))
    assert estimate.call("tiled", case) == pytest.approx(
        one.executed_flops(case) / rate
    )
    assert estimate.call("sdpa full", Case("local", 2**20, 256)) == 0, "too slow"


def test_a_case_on_two_sweeps_is_measured_once_by_all_who_compete():
    case = Case("local", 8192, 128)
    plan = next(p for p in benchmark.suite("full") if p.case == case)
    assert set(plan.sweeps) == {"length", "size", "grid"}
    assert {"sdpa full", "flex 32", "tiled"} <= set(plan.contenders)
    assert len(set(plan.contenders)) == len(plan.contenders)


def test_plans_of_one_case_can_be_joined():
    case = SMALL[0]
    a, b = Plan(case, ("x",), ("tiled",)), Plan(case, ("y",), ("loop", "tiled"), True)
    assert a | b == Plan(case, ("x", "y"), ("tiled", "loop"), True)
    assert (a | Plan(case)).contenders is None


def test_a_sweep_can_be_chosen():
    plans = benchmark.suite("full", only=("memory",))
    assert plans and all(plan.sweeps == ("memory",) for plan in plans)


def test_unknown_suites_and_sweeps_are_refused():
    with pytest.raises(ValueError, match="'quick' or 'full', got 'huge'"):
        benchmark.suite("huge")
    with pytest.raises(ValueError, match=r"only must name sweeps .*got \{'weight'\}"):
        benchmark.suite("full", only=("weight",))


def test_the_plans_name_contenders_that_exist():
    for device in ("cpu", "cuda"):
        for plan in benchmark.suite("full", device):
            assert set(plan.contenders or ()) <= set(CONTENDERS)


# Contenders


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_contenders_agree_with_the_reference(case, backward):
    case = dataclasses.replace(case, backward=backward)
    tensors, ran = case.inputs(), []
    for name, one in CONTENDERS.items():
        if name.startswith("flex"):
            continue  # compiling takes long: one test of its own
        try:
            attend = one.make(case, "cpu")
        except Unavailable:
            continue
        results = measure.work(attend, tensors, backward)
        assert len(results) == (4 if backward else 1)
        assert measure.largest_error(one, case, results, tensors) < 1e-4, name
        ran.append(name)
    assert {"loop", "masked dense", "sdpa + mask", "sdpa full", "tiled"} <= set(ran)


@pytest.mark.filterwarnings("ignore")  # uncompiled, it says that it is slow
def test_flexattention_masks_in_every_block_or_only_where_it_must(monkeypatch):
    try:
        flex.flex_module()
    except RuntimeError as reason:
        pytest.skip(str(reason))
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    case, one = Case("local", 300, 40, heads=2, d=8), CONTENDERS["flex 128 partial"]
    results = measure.work(one.make(case, "cpu"), case.inputs(), False)
    assert measure.largest_error(one, case, results, case.inputs()) < 1e-5


@pytest.mark.parametrize("part", range(4))
def test_the_error_covers_the_output_and_every_gradient(part):
    case, one = Case("local", 96, 5, backward=True, heads=2, d=8), CONTENDERS["tiled"]
    tensors = case.inputs()
    results = measure.work(one.make(case, "cpu"), tensors, True)
    assert measure.largest_error(one, case, results, tensors) < 1e-5
    results[part][..., 0, 0] += 1
    assert measure.largest_error(one, case, results, tensors) > 0.9


def test_with_large_windows_the_gradients_of_keys_are_left_out():
    case = Case("local", 4096, 2000, backward=True)
    rows, keys = measure.checked_positions(
        case, case.pattern, True, torch.device("cpu")
    )
    assert len(rows) == 12 and len(keys) == 0


@pytest.mark.parametrize("backward", [False, True])
def test_a_contender_with_other_edges_is_compared_in_the_interior(backward):
    case = Case("local", 96, 10, backward=backward)
    rows, keys = measure.checked_positions(case, case.pattern, False, "cpu")
    assert (rows.min(), rows.max(), len(keys)) == (10, 85, 0)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_pairs_of_tiles_are_those_that_hold_a_kept_pair(case):
    keep = at.dense_mask(case.pattern, case.n)
    assert contenders.visited_pairs(case, 1) == keep.sum()
    tiles = keep.view(6, 16, 6, 16).any(3).any(1)
    assert contenders.visited_pairs(case, 16, 16) == 256 * tiles.sum()
    ours = CONTENDERS["tiled"].pairs(case)
    assert keep.sum() <= ours <= case.n**2
    rows = 32 if case.mechanism == "local" else case.size
    assert ours == at.cost.computed_pairs(case.pattern, case.n, rows)


def test_executed_operations_follow_what_backward_computes_again():
    case = Case("local", 96, 4, backward=True, heads=2, d=8)
    pairs = 2 * 8 * 2 * 96**2  # operations of one product, all heads
    assert CONTENDERS["masked dense"].executed_flops(case) == 6 * pairs
    assert CONTENDERS["sdpa + mask"].executed_flops(case) == 7 * pairs
    forward = dataclasses.replace(case, backward=False)
    assert CONTENDERS["sdpa + mask"].executed_flops(forward) == 2 * pairs


REFUSALS = [
    ("flex 32", Case("local", 96, 4, backward=True), "no backward pass on CPU"),
    ("flex 128", Case("blocks", 128, 64), "larger block than the pattern's"),
    ("flex 32", Case("local", 2**20, 128), "table of blocks takes 17 GB"),
    ("loop", Case("local", 4096, 128), "up to n = 2048"),
    ("masked dense", Case("local", 8192, 128), "up to n = 4096"),
    ("sdpa + mask", Case("local", 16384, 128), "up to n = 8192"),
    ("tiled", Case("full", 96), "windows and blocks only"),
    ("local-attention", Case("full", 96), "windows and blocks only"),
    ("longformer chunks", Case("local", 96, 4, causal=True), "both sides only"),
    ("longformer chunks", Case("local", 90, 4), "2w to divide n"),
    ("longformer chunks", Case("local", 65536, 256), "take about 6 GB, the limit is 4"),
    ("triton", Case("local", 96, 4), "needs a CUDA device"),
    ("flash-attn", Case("local", 96, 4), "needs a CUDA device"),
    ("xformers", Case("local", 96, 4), "needs a CUDA device"),
    ("natten", Case("local", 96, 4), "needs a CUDA device"),
]


@pytest.mark.parametrize(("name", "case", "reason"), REFUSALS)
def test_contenders_say_why_they_cannot_run(name, case, reason):
    with pytest.raises(Unavailable, match=reason):
        CONTENDERS[name].make(case, "cpu")


@pytest.mark.parametrize("name", ["flash-attn", "xformers", "natten"])
def test_gpu_packages_that_are_missing_are_named(name):
    case = Case("local", 96, 4, dtype="bfloat16")
    with pytest.raises(Unavailable, match="No module named"):
        CONTENDERS[name].make(case, "cuda")
    with pytest.raises(Unavailable, match="windows only"):
        CONTENDERS[name].make(Case("blocks", 96, 4, dtype="bfloat16"), "cuda")


def test_flash_attn_is_called_as_its_documentation_says(monkeypatch):
    """A stand-in with the package's layout, (batch, n, heads, d), and its window."""

    def flash_attn_func(q, k, v, window_size):
        left, right = window_size
        n = q.shape[1]
        i, j = torch.arange(n)[:, None], torch.arange(n)
        keep = (j >= i - left) & (j <= i + right)
        flat = (x.float().transpose(1, 2) for x in (q, k, v))
        return at.attention(*flat, keep).transpose(1, 2).to(q.dtype)

    module = types.SimpleNamespace(flash_attn_func=flash_attn_func)
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    for causal in (False, True):
        case = Case("local", 96, 5, causal=causal, heads=2, d=8, dtype="bfloat16")
        one, tensors = CONTENDERS["flash-attn"], case.inputs()
        results = measure.work(one.make(case, "cuda"), tensors, False)
        assert measure.largest_error(one, case, results, tensors) < 4e-2


# Measuring


def test_every_contender_is_recorded_or_its_absence_is(few):
    entry = measure.measure_case(Plan(SMALL[0]), QUICK, Ticks())
    found = {result["name"]: result for result in entry["results"]}
    assert set(found) == {"tiled", "sdpa + mask"}
    assert set(entry["not_run"]) == {"absent", "broken", "wrong"}
    assert entry["not_run"]["absent"] == "no module named nothing"
    assert "RuntimeError" in entry["not_run"]["broken"]
    assert "wrong: differs from the reference by" in entry["not_run"]["wrong"]
    assert found["tiled"]["rounds"] == entry["matmul"]["rounds"] == 8
    assert found["tiled"]["largest_error"] < 1e-5


def test_all_contenders_of_a_round_run_before_the_next_round():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abcde"}
    samples = protocol.timed(runs, dataclasses.replace(QUICK, rounds=12), Ticks())
    rounds = [order[i : i + 5] for i in range(0, 60, 5)]
    assert all(sorted(one) == list("abcde") for one in rounds)
    assert len(set(map(tuple, rounds))) > 1, "always the same order"
    assert all(len(found) == 12 for found in samples.values())


def test_no_round_starts_after_the_budget_but_the_least_do():
    settings = dataclasses.replace(QUICK, rounds=9, least=3, budget=0)
    samples = protocol.timed({"a": lambda: None}, settings, Ticks())
    assert len(samples["a"]) == 3


def test_a_record_has_seven_rounds_or_more():
    assert Settings().least >= protocol.LEAST == 7
    assert Settings().rounds >= Settings().least
    assert (Settings().disturbance, Settings().repeats) == (0.05, 2)


class Stalls:
    """A clock on which chosen calls of one contender take ten times as long."""

    name = "processor"

    def __init__(self, stalled):
        self.stalled, self.calls = set(stalled), 0

    def seconds(self, run):
        seconds = 1.0
        if run() == "sleeper":
            self.calls += 1
            seconds = 10.0 if self.calls in self.stalled else 1.0
        return {"wall": seconds, "processor": seconds}


def measured_with(stalled, repeats=2):
    """Timings of two contenders, one of which stalls in some of its calls."""
    runs = {name: lambda name=name: name for name in ("sleeper", "matmul")}
    settings = Settings(rounds=7, repeats=repeats)
    clock = Stalls(stalled)
    samples = protocol.timed(runs, settings, clock)
    tries = protocol.steadied(runs, samples, settings, clock, usage=lambda: None)
    found = {
        name: protocol.timing(samples[name], tries[name], settings, clock.name)
        for name in runs
    }
    assert (found["matmul"]["tries"], found["matmul"]["scattered"]) == (1, False)
    return found["sleeper"]


def test_one_stalled_call_of_seven_neither_moves_the_median_nor_is_marked():
    found = measured_with([3])
    assert (found["tries"], found["scattered"], found["spread"]) == (1, False, 0)
    assert found["seconds"]["processor"]["median"] == 1


def test_a_contender_that_stalls_is_measured_again():
    found = measured_with([2, 5])
    assert (found["tries"], found["scattered"]) == (2, False)
    assert found["seconds"]["processor"]["quartiles"] == [1, 1]


def test_a_contender_that_keeps_stalling_is_marked():
    found = measured_with(range(1, 99, 2))
    assert (found["tries"], found["scattered"]) == (3, True)
    assert found["spread"] > Settings().spread
    assert measured_with(range(1, 99, 2), repeats=0)["tries"] == 1


def busy_computer(*shares):
    """Processor times of a computer whose other processes have shares, one a try."""
    counts, now = [], Usage(0, 0, 0, 0)
    for others, stolen in shares:
        counts.append(now)
        now = Usage(now.wall + 10, now.own + 9, now.busy + 9 + 10 * others,
                    now.stolen + 10 * stolen)  # fmt: skip
        counts.append(now)
    return lambda: counts.pop(0)


@pytest.fixture
def one_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def test_a_disturbed_case_is_measured_again(one_thread):
    usage = busy_computer((0.5, 0.0), (0.01, 0.02))
    runs, settings = {"a": lambda: None}, Settings(rounds=7)
    samples, noted = protocol.undisturbed(runs, settings, Ticks(), usage=usage)
    assert noted == {"others": 0.01, "stolen": 0.02, "tries": 2, "disturbed": False}
    assert samples["a"][0]["processor"] == 8, "the first try counts"


def test_a_case_that_stays_disturbed_is_marked_and_the_calmest_try_counts(one_thread):
    usage = busy_computer((0.5, 0.1), (0.0, 0.06), (0.4, 0.0))
    runs, settings = {"a": lambda: None}, Settings(rounds=7)
    samples, noted = protocol.undisturbed(runs, settings, Ticks(), usage=usage)
    assert noted == {"others": 0, "stolen": 0.06, "tries": 3, "disturbed": True}
    assert samples["a"][0]["processor"] == 8


def test_where_the_system_does_not_say_nothing_is_repeated():
    settings = Settings(rounds=7)
    _, noted = protocol.undisturbed(
        {"a": lambda: None}, settings, Ticks(), usage=lambda: None
    )
    assert noted == {"others": None, "stolen": None, "tries": 1, "disturbed": False}


def test_a_share_is_of_the_wall_time_of_our_own_threads():
    before = Usage(wall=100, own=50, busy=500, stolen=3)
    after = Usage(wall=110, own=59, busy=519, stolen=4)  # others: 19 - 9 = 10 s of 10
    assert disturbance.share_between(before, after, 1) == Share(1.0, 0.1)
    assert disturbance.share_between(before, after, 2) == Share(0.5, 0.05)
    rounded = dataclasses.replace(after, busy=508)  # ticks are coarser than ours
    assert disturbance.share_between(before, rounded, 1).others == 0
    assert disturbance.share_between(None, after, 1) is None
    assert Settings().calm(Share(0.03, 0.02)) and not Settings().calm(Share(0.03, 0.03))


def test_processor_time_is_read_where_the_system_counts_it(tmp_path):
    assert disturbance.usage(tmp_path / "none") is None
    (tmp_path / "stat").write_text("intr 5\n")
    assert disturbance.usage(tmp_path / "stat") is None
    (tmp_path / "stat").write_text("cpu  700 100 200 9 9 30 70 50 1 1\ncpu0 1 2 3\n")
    found = disturbance.usage(tmp_path / "stat")
    ticks = os.sysconf("SC_CLK_TCK")
    assert (found.busy, found.stolen) == (1100 / ticks, 50 / ticks)


def test_the_time_of_children_is_our_own():
    before = disturbance.usage() or pytest.skip("the system does not count")
    subprocess.run([sys.executable, "-c", "for _ in range(10**7): pass"], check=True)
    assert disturbance.usage().own - before.own > 0.05


def test_who_is_too_slow_is_reported(few):
    settings = dataclasses.replace(QUICK, limit=0.0)
    entry = measure.measure_case(Plan(SMALL[0]), settings, Ticks())
    assert entry["not_run"]["tiled"] == "one call takes longer than the limit of 0 s"
    settings = dataclasses.replace(QUICK, limit=1.0)
    entry = measure.measure_case(Plan(SMALL[0]), settings, Ticks(), ceiling=1.0)
    assert "a call would take at least" in entry["not_run"]["tiled"]


def test_medians_and_quartiles():
    found = protocol.summary([5.0, 1.0, 2.0, 3.0, 4.0])
    assert found == {"median": 3.0, "quartiles": [2.0, 4.0], "minimum": 1.0}


def test_peak_memory_of_a_call_is_measured_in_a_process_of_its_own():
    case = Case("local", 2048, 16, heads=8, d=64)  # the result takes 4 MiB
    names = ("masked dense", "tiled", "triton", "sdpa full")  # triton ends it
    peaks = measure.peaks_in_child(case, names)
    assert list(peaks) == ["masked dense", "tiled"]
    assert case.tensor_bytes <= peaks["tiled"] < 8 * case.tensor_bytes
    assert peaks["masked dense"] > 4 * 8 * 2048**2  # the scores
    alone = measure.peaks_in_child(case, ["tiled"])["tiled"]
    assert abs(alone - peaks["tiled"]) < case.tensor_bytes  # no matter who was before


# Clocks


class FakeCuda:
    """Stands in for torch.cuda: a device whose work takes 3 ms and 1000 bytes."""

    def __init__(self):
        self.log, self.now, self.held, self.peak = [], 0.0, 50, 50

    def synchronize(self):
        self.log.append("synchronize")

    def Event(self, enable_timing):
        assert enable_timing
        event = types.SimpleNamespace(at=None)
        event.record = lambda: (
            setattr(event, "at", self.now),
            self.log.append("event"),
        )
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def reset_peak_memory_stats(self):
        self.peak = self.held

    def memory_allocated(self):
        return self.held

    def max_memory_allocated(self):
        return self.peak

    def work(self):
        self.log.append("work")
        self.now += 3.0
        self.peak = max(self.peak, self.held + 1000)


def test_cuda_time_is_taken_between_events_on_a_cold_cache():
    cuda = FakeCuda()
    clock = clocks.CudaClock(cuda, flushed=64, device="cpu")
    clock.buffer.fill_(1)
    seconds = clock.seconds(cuda.work)
    assert cuda.log == ["synchronize", "event", "work", "event", "synchronize"]
    assert seconds["device"] == 0.003 and seconds["wall"] > 0
    assert clock.buffer.sum() == 0, "the cache was not overwritten"
    assert clock.name == "device"


def test_cuda_memory_is_the_allocators_peak_above_what_was_there():
    cuda = FakeCuda()
    cuda.peak = 10**6  # from before
    assert clocks.cuda_peak(cuda.work, cuda) == 1000


def test_with_one_thread_the_processors_time_counts():
    assert clocks.CpuClock().name == (
        "processor" if torch.get_num_threads() == 1 else "wall"
    )
    assert set(clocks.CpuClock().seconds(lambda: None)) == {"wall", "processor"}
    assert clocks.clock_for("cpu").name == clocks.CpuClock().name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_case_on_a_gpu():
    case = Case("local", 2048, 64, backward=True, dtype="bfloat16")
    entry = measure.measure_case(Plan(case), Settings(), clocks.CudaClock(), "cuda")
    found = {result["name"]: result for result in entry["results"]}
    assert {"tiled", "triton"} <= set(found), entry["not_run"]
    assert all(result["peak_bytes"] > 0 for result in entry["results"])


# Records


@pytest.fixture(scope="module")
def record():
    """A small record, measured here."""
    plans = [
        Plan(case, ("length",), ("tiled", "sdpa full", "triton")) for case in SMALL[:2]
    ]
    return benchmark.Record("here-1", __main__.run(plans, "quick", QUICK))


def test_a_new_record_keeps_to_the_schema(record):
    benchmark.validate(record.data)


def paths(schema, at=()):
    """Paths of all the required fields of a schema, through references."""
    schema = resolved(schema)
    for name in schema.get("required", ()):
        yield (*at, name)
    for name, part in schema.get("properties", {}).items():
        yield from paths(part, (*at, name))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from paths(schema["additionalProperties"], (*at, "*"))
    if "items" in schema:
        yield from paths(schema["items"], (*at, "*"))


def resolved(schema):
    whole = json.loads(writing.SCHEMA.read_text())
    name = schema.get("$ref", "").rpartition("/")[2]
    return whole["$defs"][name] if name else schema


REQUIRED = list(paths(json.loads(writing.SCHEMA.read_text())))


def without(data, path):
    """The record without the (first) field at a path."""
    data = copy.deepcopy(data)
    holder = data
    for key in path[:-1]:
        if key == "*":
            holder = next(iter(holder.values() if isinstance(holder, dict) else holder))
        else:
            holder = holder[key]
    del holder[path[-1]]
    return data


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_a_record_that_lacks_a_field_is_refused(record, path):
    with pytest.raises(jsonschema.ValidationError):
        benchmark.validate(without(record.data, path))


def test_a_new_record_has_seven_rounds_by_its_settings(record):
    data = copy.deepcopy(record.data)
    data["settings"]["least"] = 6
    with pytest.raises(jsonschema.ValidationError):
        benchmark.validate(data)
    assert all(result.rounds >= 7 for result in record.results)


def test_the_schema_requires_what_the_book_promises():
    required = {".".join(path) for path in REQUIRED}
    for name in ("device", "driver", "cuda", "torch", "threads", "revision", "date"):
        assert f"provenance.{name}" in required
    for name in ("seconds", "rounds", "peak_bytes", "executed_flops", "largest_error"):
        assert f"cases.*.results.*.{name}" in required
    for name in ("median", "quartiles", "minimum"):
        assert f"cases.*.results.*.seconds.*.{name}" in required
    for name in ("spread", "tries", "scattered"):
        assert f"cases.*.results.*.{name}" in required
        assert f"cases.*.matmul.{name}" in required
    assert {f"settings.{name}" for name in ("least", "disturbance")} <= required
    for name in ("useful_flops", "compulsory_bytes", "not_run", "disturbance"):
        assert f"cases.*.{name}" in required
    assert {"ceilings.*.matmul", "ceilings.*.copy"} <= required


def test_a_gpu_record_names_its_driver(record):
    data = copy.deepcopy(record.data)
    data["provenance"]["device"]["kind"] = "cuda"
    with pytest.raises(jsonschema.ValidationError):
        benchmark.validate(data)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_records_keep_to_the_schema(path):
    benchmark.validate(json.loads(path.read_text()))


def test_a_record_says_who_could_not_run(record):
    assert record.not_run(SMALL[0]) == {"triton": "needs a CUDA device"}
    with pytest.raises(LookupError, match="here-1 has no case"):
        record.not_run(Case("local", 7, 1))


def test_a_record_is_written_and_read_unchanged(record, tmp_path):
    path = tmp_path / "new" / "here-1.json"
    writing.write(record.data, path)
    assert benchmark.read(path) == record
    lines = path.read_text().splitlines()
    assert sum('"largest_error"' in line for line in lines) == len(record.results)
    assert max(map(len, lines)) < 700


def test_a_run_that_was_interrupted_is_continued(record, tmp_path, monkeypatch):
    path = tmp_path / "here-1.json"
    monkeypatch.setattr(writing, "provenance", lambda *device: record.provenance)
    writing.write(record.data | {"cases": record.data["cases"][:1]}, path)
    plans = [Plan(case, ("length",), ("tiled",)) for case in SMALL[:2]]
    data = __main__.run(plans, "quick", QUICK, out=path)
    assert len(data["cases"]) == 2
    assert data["cases"][0] == record.data["cases"][0], "measured again"
    assert benchmark.read(path).data == data
    other = copy.deepcopy(data)
    other["provenance"]["revision"] = "0" * 40
    writing.write(other, path)
    with pytest.raises(SystemExit, match="another machine or revision"):
        __main__.run(plans, "quick", QUICK, out=path)


def test_a_run_that_is_killed_while_it_writes_leaves_the_record(
    record, tmp_path, monkeypatch
):
    path = tmp_path / "here-1.json"
    writing.write(record.data, path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        writing.write(record.data | {"suite": float("nan")}, path)
    monkeypatch.setattr(writing.os, "fsync", lambda file: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        writing.write(record.data | {"cases": []}, path)
    assert benchmark.read(path) == record


def test_two_runs_do_not_write_one_record(tmp_path, capsys):
    path = tmp_path / "here-1.json"
    command = ["run", "--suite", "quick", "--out", str(path)]
    with writing.alone(path), pytest.raises(SystemExit, match="holds .*here-1.lock"):
        __main__.main(command)
    with writing.alone(path):
        pass


def test_a_record_that_cannot_be_written_is_said_before_it_is_measured(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="file"):
        __main__.main(["run", "--out", str(tmp_path / "file" / "here-1.json")])


def test_a_folder_is_refused_as_a_record_before_anything_is_measured(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(measure, "ceilings", lambda *a: 1 / 0)
    with pytest.raises(SystemExit, match="is a folder: --out needs the name of a file"):
        __main__.main(["run", "--out", str(tmp_path)])
    foreign = tmp_path / "package.json"
    foreign.write_text('{"name": "left-pad"}')
    with pytest.raises(SystemExit, match="cannot be written: choose another place"):
        __main__.main(["run", "--out", str(foreign / "mine-1.json")])
    with pytest.raises(SystemExit, match="is no record of a benchmark"):
        __main__.main(["run", "--out", str(foreign)])
    assert foreign.read_text() == '{"name": "left-pad"}'


def test_a_record_is_not_continued_with_other_settings(record, tmp_path, monkeypatch):
    path = tmp_path / "here-1.json"
    monkeypatch.setattr(writing, "provenance", lambda *device: record.provenance)
    writing.write(record.data, path)
    other = dataclasses.replace(QUICK, budget=1.0)
    with pytest.raises(SystemExit, match="begun with other settings"):
        __main__.run([Plan(SMALL[0])], "quick", other, out=path)


def test_ctrl_c_leaves_the_finished_cases_and_says_so(
    record, tmp_path, monkeypatch, capsys
):
    finished = record.data["cases"][0]
    answers = iter([finished])

    def measure_case(*arguments):
        for answer in answers:
            return answer
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "measure_case", measure_case)
    monkeypatch.setattr(measure, "ceilings", lambda *a: record.data["ceilings"])
    path = tmp_path / "here-1.json"
    with pytest.raises(SystemExit) as ended:
        __main__.main(["run", "--suite", "quick", "--out", str(path)])
    assert ended.value.code == 130
    assert benchmark.read(path).data["cases"] == [finished]
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("Stopped.") and "holds the finished cases (1)" in said


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_of_life_says_what_is_being_done():
    stream, written = Terminal(), threading.Event()
    stream.flush = written.set
    with Life(2, expected=60, stream=stream, every=0.001) as life:
        life.begin("a case")
        life.tell("round 3, tiled")
        for _ in range(3):  # the thread goes on by itself
            written.clear()
            assert written.wait(10)
    assert "[1/2, 0:00 of about 1:00] a case: round 3, tiled" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K"), "the line is left behind"
    assert not life.thread.is_alive()


def test_without_a_terminal_the_line_of_life_is_plain_and_rare(capsys):
    stream = io.StringIO()
    with Life(2, stream=stream) as life:
        assert life.every == 30
        life.say("a table")
    assert stream.getvalue() == "[0/2, 0:00] starting\n"
    assert capsys.readouterr().out == "a table\n"


def test_who_cannot_run_is_told_once(record, monkeypatch, capsys):
    monkeypatch.setattr(measure, "ceilings", lambda *_: record.data["ceilings"])
    plans = [Plan(case, contenders=("tiled", "triton")) for case in SMALL[:3]]
    __main__.run(plans, "quick", QUICK)
    printed = capsys.readouterr().out
    assert printed.count("local, n = 96") == 3
    assert printed.count("needs a CUDA device") == 1


def spoilt(record, text):
    """The text of a record in which the first median is something else."""
    found = re.compile(r'"median": [\d.e-]+')
    return found.sub(f'"median": {text}', json.dumps(record.data), count=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lambda record: json.dumps(record.data)[:-40], "no whole JSON file"),
        (lambda record: "", "no whole JSON file"),
        (lambda record: "\udcff", "no whole JSON file"),
        (lambda record: "[1, 2]", "names no schema"),
        (lambda record: '{"runs": []}', "names no schema"),
        (lambda record: '{"schema": 2}', "no 'cases'"),
        (lambda record: '{"schema": 2, "cases": 7}', "not iterable"),
        (lambda record: '{"schema": 1}', "has schema 1; this"),
        (
            lambda record: json.dumps(record.data | {"schema": 99}),
            "has schema 99; this",
        ),
        (lambda record: json.dumps(record.data | {"provenance": {}}), "no 'clock'"),
        (lambda record: spoilt(record, "NaN"), "NaN is no number"),
        (lambda record: spoilt(record, "-Infinity"), "-Infinity is no number"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(record, tmp_path, text, message):
    path = tmp_path / "odd-1.json"
    path.write_bytes(text(record).encode("utf-8", "surrogateescape"))
    for command in (["show", str(path)], ["compare", str(path), str(path)]):
        with pytest.raises(SystemExit) as stopped:
            __main__.main(command)
        said = str(stopped.value)
        assert "odd-1.json" in said and message in said and "\n" not in said


@pytest.mark.parametrize("seconds", [0.0, -1.0, "1", None])
def test_seconds_are_positive_numbers(record, tmp_path, seconds):
    data = copy.deepcopy(record.data)
    kinds = data["cases"][0]["results"][0]["seconds"]
    kinds[record.clock]["median"] = seconds
    path = tmp_path / "odd-1.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="odd-1"):
        benchmark.read(path)


def test_a_folder_is_no_record(tmp_path):
    with pytest.raises(SystemExit, match="is neither a file nor a device"):
        __main__.main(["show", str(tmp_path / "none.json")])
    with pytest.raises(SystemExit, match="is a folder, not a record"):
        __main__.main(["show", str(tmp_path)])


@pytest.mark.parametrize("option", ["--rounds", "--least", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_nothing_is_counted_below_one(option, value, capsys):
    with pytest.raises(SystemExit):
        __main__.main(["run", f"{option}={value}"])
    said = capsys.readouterr().err
    assert "must be a whole number of at least" in said and f"'{value}'" in said
    assert said.count("\n") == 1


# Several runs


def invented(name, factor=1.0, times=None):
    """A record in which each contender's time is known."""
    times = times or {"tiled": lambda n: 1e-6 * n, "sdpa full": lambda n: 1e-9 * n * n}
    limit = limits(product=0.01, copy=0.1)  # 100 GFLOP/s and 10 GB/s
    data = {
        "schema": 2,
        "suite": "full",
        "settings": dataclasses.asdict(QUICK),
        "provenance": writing.provenance("cpu", "processor"),
        "ceilings": {"float32": limit, "bfloat16": limit},
        "cases": [invented_case(2**p, factor, times) for p in range(9, 14)],
    }
    benchmark.validate(data)
    return benchmark.Record(name, data)


def invented_case(n, factor, times):
    return entry(
        Case("local", n, 128),
        {x: t(n) * (factor if x == "tiled" else 1) for x, t in times.items()},
        executed=2,
        peaks={"tiled": 100 * n},
        sweeps=["length", "grid"] if n == 4096 else ["length"],
    )


RUNS = Records([invented("x-1"), invented("x-2", 2.0), invented("x-3", 1.5)])
LINE = Case("local", 512, 128)


def test_values_are_medians_and_ranges_over_the_runs():
    assert RUNS.seconds("tiled", LINE) == pytest.approx((768e-6, 512e-6, 1024e-6, 3))
    assert RUNS.ratio("sdpa full", "tiled", LINE).high == pytest.approx(0.512)
    share = RUNS.share("tiled", LINE)
    assert share.high == pytest.approx(LINE.useful_flops / 512e-6 / 100e9)
    assert RUNS.ceiling("matmul").median == pytest.approx(100e9)
    assert RUNS.ceiling("copy", "bfloat16").median == pytest.approx(10e9)
    assert RUNS.peak_bytes("tiled", LINE).median == 51200
    result = RUNS.select("tiled", n=1024)[0]
    assert (result.tile_tax, result.run, result.rounds) == (2.0, "x-1", 7)
    assert result.intensity == result.useful_flops / result.case.compulsory_bytes
    assert RUNS.swept("grid") == [Case("local", 4096, 128)]


def test_lines_slopes_and_crossovers():
    series = RUNS.series("tiled", LINE)
    assert list(series) == [512, 1024, 2048, 4096, 8192]
    assert series[1024].low == pytest.approx(1024e-6)
    assert RUNS.slope("tiled", LINE).median == pytest.approx(1)
    assert RUNS.slope("sdpa full", LINE, least=1024).median == pytest.approx(2)
    assert RUNS.crossover("sdpa full", "tiled", LINE) == pytest.approx(
        (1500, 1000, 2000, 3), rel=1e-6
    )
    memory = RUNS.slope("tiled", LINE, value="peak_bytes")
    assert memory.median == pytest.approx(1)
    with pytest.raises(LookupError, match="longest length"):
        RUNS.crossover("tiled", "sdpa full", LINE)


def test_what_is_in_no_record_is_refused():
    for measurement in (
        lambda: RUNS.seconds("triton", LINE),
        lambda: RUNS.seconds("tiled", Case("local", 7, 1)),
        lambda: RUNS.peak_bytes("sdpa full", LINE),
        lambda: RUNS.ratio("triton", "tiled", LINE),
        lambda: Records().ceiling("matmul"),
    ):
        with pytest.raises(LookupError):
            measurement()


def test_spreads_print_as_median_and_range():
    assert f"{Spread(4.236, 4.0, 4.5, 3):.2g}" == "4.2 (4 to 4.5)"
    assert f"{Spread(4.236, 4.236, 4.236, 1):.2f}" == "4.24"
    assert f"{Spread(4.236, 4.235, 4.237, 3):.2g}" == "4.2"
    assert str(Spread(1.0, 0.5, 2.0, 2)) == "1 (0.5 to 2)"


def test_the_source_names_device_software_revision_and_date():
    source = RUNS.source
    known = RUNS[0].provenance
    assert source.startswith(f"3 runs on {known['device']['name']}, ")
    for part in (torch.__version__, known["revision"][:7], known["date"][:10]):
        assert part in source
    assert Records().source == "no records"


def test_records_are_found_by_device(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "FOLDERS", (tmp_path / "no", tmp_path / "yes"))
    for name in ("x-1", "x-2", "x-y-1"):
        writing.write(RUNS[0].data, tmp_path / "yes" / f"{name}.json")
    assert benchmark.devices() == ["x", "x-y"]
    assert [run.name for run in benchmark.load("x")] == ["x-1", "x-2"]
    assert benchmark.load("z") == []


# Reports


def test_show_prints_limits_tables_and_findings():
    text = benchmark.show(RUNS)
    assert "  float32   100.0            10.0\n" in text
    assert "local, n = 512, w = 128: forward" in text
    assert "tiled             0.768 (0.512 to 1.024) ms" in text
    assert "natten            not run: needs a CUDA device" in text
    rows = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    line = "local, w = 128, forward"
    assert [line, "sdpa full", "2.000"] in rows
    assert [line, "sdpa full", "1500 (1000 to 2000)"] in rows
    assert ["local, forward", "sdpa full", "2.73x", "2.73x", "1", "2.05x"] in rows
    assert ["local, n = 512, w = 128: forward", "tiled", "0.0488", "0.0512 MB"] in rows
    assert "Findings" in report.show(RUNS, tables=False)
    assert "n = 512, w = 128: forward\n" not in report.show(RUNS, tables=False)


def test_compare_prints_changes_case_by_case():
    text = benchmark.compare(Records(RUNS[:1]), Records(RUNS[1:2]))
    rows = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    assert ["tiled", "5", "2.00", "2.00", "2.00"] in [row[:5] for row in rows]
    assert ["sdpa full", "5", "1.00", "1.00", "1.00"] in [row[:5] for row in rows]
    assert rows[-1][5].startswith("local, n = ")
    assert "no case in common" in benchmark.compare(RUNS, Records())


def test_runs_that_were_measured_differently_say_so():
    other = invented("x-4")
    other.data["settings"]["budget"] = 2.5
    mixed = Records([*RUNS, other])
    assert RUNS.differing_settings == {}
    assert mixed.differing_settings["budget"] == [60, 60, 60, 2.5]
    text = report.protocol(mixed)
    assert "measured with different settings" in text
    assert "budget: 60 (x-1), 60 (x-2), 60 (x-3), 2.5 (x-4)" in text
    assert "different settings" not in report.protocol(RUNS)
    assert "runs: 3; a published number needs 5" in report.protocol(RUNS)
    assert "a published number" not in report.protocol(Records([*RUNS, *RUNS]))


def test_show_prints_what_was_marked():
    marked = invented("x-5")
    first, second = marked.data["cases"][:2]
    first["disturbance"] = {
        "others": 0.5, "stolen": 0.25, "tries": 3, "disturbed": True}  # fmt: skip
    second["results"][0] |= {"spread": 0.4, "tries": 3, "scattered": True}
    text = report.show(Records([marked]))
    assert "marked: 2" in text
    assert (
        "disturbed, x-5: local, n = 512, w = 128: forward (others 50%, host 25%)"
        in text
    )
    assert (
        "scattered, x-5: tiled, local, n = 1024, w = 128: forward (spread 0.40)" in text
    )
    lines = [line for line in text.splitlines() if "ms," in line]
    assert sum(line.endswith(", disturbed") for line in lines) == 2
    assert sum(line.endswith(", scattered") for line in lines) == 1
    assert "marked: nothing" in report.show(RUNS)


def test_full_attention_is_told_in_every_table_of_its_length():
    one = invented("x-1")
    wide = copy.deepcopy(one.data["cases"][0])
    wide["case"]["size"] = 64
    wide["results"] = wide["results"][:1]  # tiled alone
    runs = Records([benchmark.Record("x-1", one.data | {
        "cases": [*one.data["cases"], wide]})])  # fmt: skip
    text = report.table(runs, Case("local", 512, 64))
    assert "sdpa full         0.2621 ms, in the case: local, n = 512, w = 128" in text
    other = Case("local", 512, 64, causal=True)
    assert runs.beside("sdpa full", other) is None
    assert runs.beside("sdpa full", LINE) == LINE


def test_the_best_block_size_of_flexattention_is_named():
    times = {"tiled": lambda n: 1e-6 * n, "flex 32": lambda n: 3e-6 * n}
    times["flex 64"] = lambda n: 2e-6 * n
    runs = Records([invented("x-1", times=times)])
    lines = report.table(runs, LINE).splitlines()
    assert [x.split(",")[0][:9].strip() for x in lines if "best block" in x] == [
        "flex 64"
    ]
    assert "best flex (blocks of 64)  2.00x   2.00x" in report.show(runs)


def test_records_of_two_versions_of_pytorch_can_be_compared():
    other = invented("y-1", 2.0)
    other.data["provenance"] |= {"torch": "99.0", "vector_instructions": ["sve"]}
    text = benchmark.compare(Records(RUNS[:1]), Records([other]))
    assert f"They differ in torch: A {torch.__version__}, B 99.0" in text
    assert "They differ in vector instructions: A " in text
    assert "different settings" not in text
    assert ["tiled", "2.00"] in [line.split()[0:4:2] for line in text.splitlines()[2:]]
    both = Records([RUNS[0], other])
    assert f"PyTorch {torch.__version__} and 99.0" in both.source
    assert "Vector instructions of y-1: sve; PyTorch uses " in report.show(both)


def test_vector_instructions_are_a_short_list_in_the_systems_words():
    intel = "processor : 0\nflags\t\t: fpu sse avx2 avx512f amx_tile amx_bf16\n"
    assert provenance.vectors_of_linux(intel) == [
        "avx2", "avx512f", "amx_tile", "amx_bf16"]  # fmt: skip
    arm = "processor : 0\nFeatures\t: fp asimd sve bf16\n"
    assert provenance.vectors_of_linux(arm) == ["asimd", "bf16", "sve"]
    assert provenance.vectors_of_linux("cpu : unknown\n") is None
    apple = "hw.optional.arm.FEAT_BF16: 1\nhw.optional.AdvSIMD: 1\nhw.optional.x: 1"
    assert provenance.vectors_of_macos(apple) == ["bf16", "asimd"]


def test_where_the_system_does_not_tell_the_instructions_are_not_known(monkeypatch):
    class Nowhere(type(ROOT)):
        def exists(self, **how):
            return False

    monkeypatch.setattr(provenance, "Path", Nowhere)
    monkeypatch.setattr(provenance, "output_of", lambda command: None)
    assert provenance.vector_instructions() is None


# The page of the book


def test_the_page_shows_the_runs_and_the_schema_as_they_are():
    sys.path.insert(0, str(ROOT / "scripts"))
    import benchmark_page

    text = benchmark_page.PAGE.read_text(encoding="utf-8")
    assert benchmark_page.page(text) == text, "run 'make index'"
    included = re.search(r"literalinclude\} (\S+)", text)[1]
    assert (benchmark_page.PAGE.parent / included).resolve() == writing.SCHEMA
    for name in benchmark.devices():
        for run in benchmark.load(name):
            assert f"| `{run.name}` | " in text
            assert run.provenance["revision"][:10] in text


def test_every_device_of_the_book_has_several_clean_runs():
    for name in benchmark.devices():
        runs = benchmark.load(name)
        beside = any(name.startswith(f"{other}_") for other in benchmark.devices())
        assert beside or len(runs) >= 2, f"{name}: one run is no evidence"
        assert not any(run.provenance["dirty"] for run in runs)
        assert len({run.provenance["date"] for run in runs}) == len(runs)


# The command


def run_command(*arguments):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "attn_tutorial.benchmark",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_quick_suite_from_end_to_end(few, record, tmp_path, monkeypatch, capsys):
    def tiny(device):
        yield Plan(SMALL[0], memory=True)

    monkeypatch.setattr(measure, "ceilings", lambda *_: record.data["ceilings"])
    monkeypatch.setattr(cases, "quick_sweep", tiny)
    path = tmp_path / "tiny-1.json"
    options = ["run", "--suite", "quick", "--rounds", "7", "--out", str(path)]
    __main__.main([*options, "--threads", str(torch.get_num_threads())])
    printed = capsys.readouterr().out
    assert "absent            not run: no module named nothing" in printed
    assert "Findings" in printed and "1 cases in" in printed
    benchmark.validate(json.loads(path.read_text()))
    found = benchmark.read(path).results
    assert {result.name for result in found} == {"tiled", "sdpa + mask"}
    assert all(result.peak_bytes is not None for result in found)
    __main__.main(["show", str(path)])
    shown = capsys.readouterr().out
    assert shown.splitlines()[-3:] == printed.rstrip().splitlines()[-5:-2]
    __main__.main(["compare", str(path), str(path)])
    assert re.search(r"tiled +1 +1\.00 +1\.00", capsys.readouterr().out)


def test_a_dry_run_lists_the_cases_and_their_time_and_measures_nothing(
    monkeypatch, capsys
):
    monkeypatch.setattr(measure, "ceilings", lambda *a: 1 / 0)
    __main__.main(["run", "--suite", "quick", "--device", "cpu", "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(benchmark.suite("quick"))
    assert re.match(r" +[\d.]+ s  local, n = 512, w = 128: forward, loop, ", lines[0])
    assert re.match(r"6 cases in about \d:\d\d minutes, without repeats", lines[-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "6"], "must be a whole number of at least 7, got '6'"),
        (["--threads", "none"], "must be a whole number of at least 1, got 'none'"),
        (["--budget", "nan"], "must be a number of seconds above 0, got 'nan'"),
        (["--limit", "-2"], "must be a number of seconds above 0, got '-2'"),
        (["--suite", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_wrong_options_are_said_in_one_line(options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main(["run", *options])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and said.count("\n") == 1
    with pytest.raises(SystemExit, match="--rounds must be at least --least"):
        __main__.main(["run", "--rounds", "8", "--least", "9"])


# Two revisions

TINY = [
    Case("local", 64, 4, heads=1, d=8),
    Case("blocks", 64, 8, causal=True, backward=True, heads=1, d=8),
]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository whose one revision holds the package as it is now."""
    here = tmp_path / "clone"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "attn_tutorial", here / "attn_tutorial", ignore=ignored)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "gc.auto=0"]
    for command in (["init"], ["add", "."], [*identity, "commit", "-m", "now"]):
        subprocess.run(["git", *command], cwd=here, check=True, capture_output=True)
    monkeypatch.setattr(revisions, "ROOT", here)
    return here


def worktrees(here):
    command = ["git", "worktree", "list"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_two_revisions_are_timed_in_turn(clone, monkeypatch, capsys):
    monkeypatch.setattr(revisions, "GRID", TINY)
    monkeypatch.setattr(revisions, "LEAST", 1e-4)
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["compare", "--base", "HEAD"])
    head, *lines, last = capsys.readouterr().out.splitlines()
    assert head.split() == "case here base ratio peak here peak base".split()
    first, again = lines[:2], lines[3:]
    looked = [case for case, text in zip(TINY, first, strict=True) if "slow" in text]
    assert lines[2:3] == ["Again, 21 rounds, in new processes:"] * bool(looked)
    for case, text in zip(TINY + looked, first + again, strict=True):
        form = (
            r" +[\d.]+ ms +[\d.]+ ms  [\d.]+ \([\d.]+ to [\d.]+\) +[\d.]+ MB +[\d.]+ MB"
        )
        assert re.fullmatch(re.escape(str(case)) + form + "(  slower)?", text)
    slower = sum("slower" in text for text in again)
    assert last == f"{slower} of 2 cases slower than 1.05 times HEAD."
    assert stopped.value.code == (1 if slower else 0)
    assert len(worktrees(clone)) == 1, "the temporary worktree is gone"


@pytest.mark.parametrize("twice", [False, True])
def test_only_what_is_slower_twice_counts(clone, monkeypatch, twice):
    asked = []

    def time_revisions(here, base, cases, rounds):
        asked.append((list(cases), rounds))
        ratio = 1.2 if twice or len(asked) == 1 else 1.0
        for case in cases:
            own = ratio if case == TINY[1] else 1.0
            yield revisions.Change(case, [own] * rounds, [1.0] * rounds)

    monkeypatch.setattr(revisions, "time_revisions", time_revisions)
    said = []
    assert revisions.compare("HEAD", TINY, say=said.append) == twice
    assert asked == [(TINY, 7), ([TINY[1]], 21)]
    assert said[-1] == f"{int(twice)} of 2 cases slower than 1.05 times HEAD."


def test_the_checkouts_take_turns_at_going_first():
    class Timer:
        def __init__(self, name):
            self.name = name

        def ask(self, case, calls):
            asked.append(self.name)
            return self.name

    asked, timers = [], [Timer("here"), Timer("base")]
    for last_first in (0, 1):
        said = revisions.in_turn(timers, TINY[0], 1, last_first)
        assert said == ["here", "base"]
    assert asked == ["here", "base", "base", "here"]


def test_each_revision_runs_its_own_code(clone):
    source = clone / "attn_tutorial/local.py"
    source.write_text(source.read_text() + "\nraise RuntimeError('here')\n")
    with pytest.raises(ChildProcessError, match="a checkout failed"):
        revisions.compare("HEAD", TINY, say=str)
    assert len(worktrees(clone)) == 1
    with revisions.checkout("HEAD") as base, revisions.Worker(base) as worker:
        assert worker.ask(TINY[0], 1) > 0
        assert worker.ask(TINY[0], 0) is None or worker.ask(TINY[0], 0) >= 0


@pytest.mark.parametrize(
    ("here", "slower"), [([1.0] * 7, False), ([1.04] * 7, False), ([1.06] * 7, True)]
)
def test_a_case_is_slower_by_its_median_ratio(here, slower):
    noise = [1.0, 5.0, 0.1, 1.0, 2.0, 1.0, 1.0]  # hits both sides of a round
    here = [a * b for a, b in zip(here, noise, strict=True)]
    here[0] *= 9  # one round does not count
    change = revisions.Change(TINY[0], here, noise)
    assert change.slower == slower
    assert ("slower" in revisions.line(change)) == slower


def test_what_cannot_be_compared_is_said_in_one_line(clone):
    for arguments, message in (
        (["--base", "no-such-revision"], "no-such-revision"),
        (["--base", "HEAD", "--rounds", "3"], "rounds must be at least 7, got 3"),
        (["cpu"], "takes two records, or --base"),
        (["cpu", "cpu", "--base", "HEAD"], "takes two records, or --base"),
    ):
        with pytest.raises(SystemExit, match=message):
            __main__.main(["compare", *arguments])


def test_show_of_what_is_not_there_says_what_is():
    done = run_command("show", "abacus")
    assert done.returncode == 1
    assert "abacus is neither a file nor a device with records" in done.stderr


def test_every_command_explains_itself(capsys):
    for command in ((), ("run",), ("show",), ("compare",)):
        with pytest.raises(SystemExit) as ended:
            __main__.main([*command, "--help"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith("usage: python -m")
