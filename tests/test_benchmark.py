"""The benchmark: what it measures, checks, records and reports. No time is asserted."""

import copy
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import types

import jsonschema
import pytest
import torch
from conftest import ROOT

import attn_tutorial as at
from attn_tutorial import benchmark
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
    measure,
    report,
    revisions,
)
from attn_tutorial.benchmark import record as writing
from attn_tutorial.benchmark.contenders import CONTENDERS, Contender, Unavailable

reading = sys.modules[benchmark.load.__module__]  # `load` is the function, too

SMALL = [
    Case(mechanism, 96, size, causal=causal, heads=2, d=8)
    for mechanism in ("local", "blocks")
    for size in (4, 16, 96)
    for causal in (False, True)
]
QUICK = measure.Settings(rounds=4, least=3, budget=60, limit=60, memory=False)
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
    assert {case.n for case in known} >= {512, 1024, 2048, 4096, 16384, 65536, 2**20}
    sizes = {case.size for case in known if case.n == 16384}
    assert sizes == {64, 128, 256, 512, 1024, 2048, 4096}
    assert {case.heads for case in known} == {8, 16, 32}
    assert {case.d for case in known} == {64, 128}
    assert {case.dtype for case in known} == {"float32", "bfloat16"}
    assert any(plan.memory for plan in plans)
    for n in (4096, 16384, 65536):
        for size in (64, 128, 256, 512):
            for mechanism, causal in (
                ("local", False),
                ("local", True),
                ("blocks", False),
            ):
                assert Case(mechanism, n, size, causal, dtype=usual) in known


def test_a_case_on_two_sweeps_is_measured_once_by_all_who_compete():
    case = Case("local", 16384, 128)
    plan = next(p for p in benchmark.suite("full") if p.case == case)
    assert set(plan.sweeps) == {"length", "size", "grid", "memory"}
    assert plan.contenders is None and plan.memory


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
    assert found["tiled"]["rounds"] == entry["matmul"]["rounds"] == 4
    assert found["tiled"]["largest_error"] < 1e-5


def test_all_contenders_of_a_round_run_before_the_next_round():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abcde"}
    samples = measure.timed(runs, dataclasses.replace(QUICK, rounds=12), Ticks())
    rounds = [order[i : i + 5] for i in range(0, 60, 5)]
    assert all(sorted(one) == list("abcde") for one in rounds)
    assert len(set(map(tuple, rounds))) > 1, "always the same order"
    assert all(len(found) == 12 for found in samples.values())


def test_no_round_starts_after_the_budget_but_the_least_do():
    settings = dataclasses.replace(QUICK, rounds=9, least=3, budget=0)
    samples = measure.timed({"a": lambda: None}, settings, Ticks())
    assert len(samples["a"]) == 3


def test_who_is_too_slow_is_reported(few):
    settings = dataclasses.replace(QUICK, limit=0.0)
    entry = measure.measure_case(Plan(SMALL[0]), settings, Ticks())
    assert entry["not_run"]["tiled"] == "one call takes longer than the limit of 0 s"
    settings = dataclasses.replace(QUICK, limit=1.0)
    entry = measure.measure_case(Plan(SMALL[0]), settings, Ticks(), ceiling=1.0)
    assert "a call would take at least" in entry["not_run"]["tiled"]


def test_medians_and_quartiles():
    found = measure.summary([5.0, 1.0, 2.0, 3.0, 4.0])
    assert found == {"median": 3.0, "quartiles": [2.0, 4.0], "minimum": 1.0}


def test_peak_memory_of_a_call_is_measured_in_a_process_of_its_own():
    case = Case("local", 2048, 16, heads=8, d=64)  # the result takes 4 MiB
    peak = measure.peak_in_child(case, "tiled")
    assert case.tensor_bytes <= peak < 8 * case.tensor_bytes
    dense = measure.peak_in_child(case, "masked dense")
    assert dense > 4 * 8 * 2048**2  # the scores
    assert measure.peak_in_child(case, "triton") is None


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
    entry = measure.measure_case(
        Plan(case), measure.Settings(), clocks.CudaClock(), "cuda"
    )
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
    return benchmark.Record("here-1", __main__.run(plans, "quick", QUICK, say=str))


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


def test_the_schema_requires_what_the_book_promises():
    required = {".".join(path) for path in REQUIRED}
    for name in ("device", "driver", "cuda", "torch", "threads", "revision", "date"):
        assert f"provenance.{name}" in required
    for name in ("seconds", "rounds", "peak_bytes", "executed_flops", "largest_error"):
        assert f"cases.*.results.*.{name}" in required
    for name in ("median", "quartiles", "minimum"):
        assert f"cases.*.results.*.seconds.*.{name}" in required
    for name in ("useful_flops", "compulsory_bytes", "not_run", "matmul"):
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
    data = __main__.run(plans, "quick", QUICK, out=path, say=str)
    assert len(data["cases"]) == 2
    assert data["cases"][0] == record.data["cases"][0], "measured again"
    assert benchmark.read(path).data == data
    other = copy.deepcopy(data)
    other["provenance"]["revision"] = "0" * 40
    writing.write(other, path)
    with pytest.raises(SystemExit, match="another machine or revision"):
        __main__.run(plans, "quick", QUICK, out=path, say=str)


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
        (lambda record: '{"schema": 1}', "no 'cases'"),
        (lambda record: '{"schema": 1, "cases": 7}', "not iterable"),
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
    assert f"invalid count value: '{value}'" in capsys.readouterr().err


# Several runs


def invented(name, factor=1.0, times=None):
    """A record in which each contender's time is known."""
    times = times or {"tiled": lambda n: 1e-6 * n, "sdpa full": lambda n: 1e-9 * n * n}
    entries = []
    for n in (512, 1024, 2048, 4096, 8192):
        case = Case("local", n, 128)
        results = [
            {
                "name": who,
                "computes": "pattern",
                "executed_flops": 2 * case.useful_flops,
                "largest_error": 1e-7,
                "rounds": 3,
                "seconds": same(time(n) * (factor if who == "tiled" else 1)),
                "peak_bytes": 100 * n if who == "tiled" else None,
            }
            for who, time in times.items()
        ]
        matmul = {"flops": 10**9, "rounds": 3, "seconds": same(0.01)}  # 100 GFLOP/s
        entries.append(
            {
                "case": dataclasses.asdict(case),
                "sweeps": ["length", "grid"] if n == 4096 else ["length"],
                "useful_flops": case.useful_flops,
                "compulsory_bytes": case.compulsory_bytes,
                "matmul": matmul,
                "results": results,
                "not_run": {"natten": "needs a CUDA device"},
            }
        )
    limit = {
        "matmul": {"flops": 10**9, "seconds": same(0.01)},
        "copy": {"bytes": 10**9, "seconds": same(0.1)},
    }
    data = {
        "schema": 1,
        "suite": "full",
        "settings": dataclasses.asdict(QUICK),
        "provenance": writing.provenance("cpu", "processor"),
        "ceilings": {"float32": limit, "bfloat16": limit},
        "cases": entries,
    }
    benchmark.validate(data)
    return benchmark.Record(name, data)


def same(seconds):
    summary = {"median": seconds, "quartiles": [seconds, seconds], "minimum": seconds}
    return {"wall": summary, "processor": summary}


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
    assert (result.tile_tax, result.run, result.rounds) == (2.0, "x-1", 3)
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
    assert "float32   matmul 100.0 GFLOP/s, copy 10.0 GB/s" in text
    assert "local, n = 512, w = 128: forward" in text
    assert "tiled             0.768 (0.512 to 1.024) ms" in text
    assert "natten            not run: needs a CUDA device" in text
    assert "local, w = 128, forward: sdpa full: 2.000\n" in text
    assert "than sdpa full: n = 1500 (1000 to 2000)" in text
    assert "local, forward: sdpa full: 2.73x to 2.73x in 1 cases" in text
    assert "local, n = 512, w = 128: forward: tiled: 0.0488 tensors" in text
    assert "Findings" in report.show(RUNS, tables=False)
    assert "n = 512, w = 128: forward\n" not in report.show(RUNS, tables=False)


def test_compare_prints_changes_case_by_case():
    text = benchmark.compare(Records(RUNS[:1]), Records(RUNS[1:2]))
    assert "tiled: median 2.00x in 5 cases" in text
    assert "sdpa full: median 1.00x in 5 cases" in text
    assert "highest 2.00x: local, n = " in text
    assert "no case in common" in benchmark.compare(RUNS, Records())


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
        assert len(runs) >= 2, f"{name}: one run is no evidence"
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


def test_the_quick_suite_from_end_to_end(few, tmp_path, monkeypatch, capsys):
    def tiny(device):
        yield Plan(SMALL[0], memory=True)

    monkeypatch.setattr(cases, "quick_sweep", tiny)
    path = tmp_path / "tiny-1.json"
    options = ["run", "--suite", "quick", "--rounds", "3", "--out", str(path)]
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
    assert "tiled: median 1.00x in 1 cases" in capsys.readouterr().out


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
    assert len(lines) == len(TINY)
    for case, text in zip(TINY, lines, strict=True):
        form = (
            r" +[\d.]+ ms +[\d.]+ ms  [\d.]+ \([\d.]+ to [\d.]+\) +[\d.]+ MB +[\d.]+ MB"
        )
        assert re.fullmatch(re.escape(str(case)) + form + "(  slower)?", text)
    slower = sum("slower" in text for text in lines)
    assert last == f"{slower} of 2 cases slower than 1.05 times HEAD."
    assert stopped.value.code == (1 if slower else 0)
    assert len(worktrees(clone)) == 1, "the temporary worktree is gone"


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


def test_every_command_explains_itself():
    for command in ((), ("run",), ("show",), ("compare",)):
        assert run_command(*command, "--help").stdout.startswith("usage: python -m")


def test_the_package_does_not_import_the_benchmark():
    code = "import sys, attn_tutorial; print('attn_tutorial.benchmark' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
