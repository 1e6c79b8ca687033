"""Decoding, measured: all ways compute the same, and the records are whole."""

import json
import re

import pieces
import pytest
import torch
from cache_splits import tried

from attn_tutorial.benchmark import clocks, decoding
from attn_tutorial.benchmark.__main__ import parser

FEW = decoding.Steps(tokens=40, band=10, heads=4, kv_heads=2, d=8)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Token after token.


@pytest.fixture
def small(monkeypatch):
    """Windows that are full after a few tokens."""
    shares = {"causal": 0.5, "local 7,0": 1.0, "(prefix 2 | local 5,0) & causal": 1.0}
    monkeypatch.setattr(decoding, "PATTERNS", shares)
    return decoding.measure(FEW)


def test_bytes_stay_where_there_is_a_window_and_double_where_there_is_none(small):
    token = 2 * 2 * 8 * 4  # keys and values of two heads of width 8, float32
    found = small["patterns"]
    assert found["local 7,0"]["bytes"] == [8 * token] * 4
    assert found["(prefix 2 | local 5,0) & causal"]["bytes"] == [8 * token] * 4
    assert found["causal"]["bytes"] == [16 * token, 32 * token]


def test_full_attention_stops_early_and_the_record_says_so(small):
    found = small["patterns"]
    assert found["causal"]["token"] == [10, 20]
    assert found["local 7,0"]["token"] == [10, 20, 30, 40]
    assert all(len(one["seconds"]) == len(one["token"]) for one in found.values())
    assert "| causal | 20 |" in decoding.table(small)
    assert small["steps"]["tokens"] == 40


def test_the_seconds_of_a_band_are_those_of_its_middle_step():
    class Clock:
        name = "processor"

        def __init__(self):
            self.calls = 0

        def seconds(self, run):
            run()
            self.calls += 1
            return {"processor": 100.0 if self.calls == 3 else float(self.calls)}

    cache = decoding.RollingCache(decoding.parse("causal"))
    assert decoding.band(cache, FEW, Clock()) == 6.5  # of 1, 2, 100, 4, ... 10
    assert len(cache) == FEW.band


def test_the_command_writes_what_it_prints(tmp_path, capsys):
    out = tmp_path / "steps.json"
    chosen = parser().parse_args(
        ["decode", "--tokens", "20", "--band", "10", "--out", str(out)]
    )
    chosen.command(chosen)
    assert decoding.table(json.loads(out.read_text())) in capsys.readouterr().out


def test_an_unknown_record_is_named():
    with pytest.raises(LookupError, match="name must be .*got 'stairs'"):
        decoding.recorded("stairs")


# A model of Transformers, in four ways.


@pytest.fixture
def served():
    pytest.importorskip("transformers", reason="transformers is not installed")
    from attn_tutorial.benchmark import served

    return served


@pytest.fixture
def tiny(served):
    sizes = {"d_model": 32, "heads": 4, "kv_heads": 2, "intermediate": 48}
    return served.ModelShape(window=8, vocabulary=31, **sizes)


def test_all_ways_with_the_window_compute_the_same(served, tiny):
    scores, held = {}, {}
    for way in served.WAYS:
        with served.serving(way, tiny) as session:
            session.read(40)
            held[way] = session.bytes
            first = session.scores
            session.write(5)
            scores[way] = torch.stack([first, session.scores])
    for way, (_, has_window) in served.WAYS.items():
        off = (scores[way] - scores["SDPA"]).abs().max()
        assert off < 1e-5 if has_window else off > 1e-3, way
    token = tiny.layers * 2 * 2 * 8 * 4
    assert held == {
        way: (7 if w else 40) * token for way, (_, w) in served.WAYS.items()
    }


def test_our_way_goes_by_tiles(served, tiny):
    with served.serving("ours", tiny) as session:
        implementation = session.model.config._attn_implementation
    assert implementation.startswith("attn_tutorial")
    with served.serving("eager", tiny) as session:
        assert session.model.config._attn_implementation == "eager"


def pretended(seconds, peak, way="SDPA", n=100):
    result = {"way": way, "prefill": [seconds, 9 * seconds], "peak_bytes": peak}
    return [{"n": n, "results": [result]}]


def test_what_would_take_too_long_is_left_out_with_the_reason(served):
    limits = served.Effort(seconds=10, memory=2**30)
    others = dict.fromkeys(
        ("ours", "eager", "full causal, SDPA"), "not run at the length before"
    )
    tried = served.allowed(200, pretended(2.4, 0), limits)
    assert tried == (["SDPA"], others)
    tried = served.allowed(200, pretended(2.6, 0), limits)
    assert tried == ([], others | {"SDPA": "would take about 10 s"})
    tried = served.allowed(200, pretended(1, 2**29), limits)
    assert tried == ([], others | {"SDPA": "would need about 2 GiB"})
    assert served.allowed(200, [], limits) == (list(served.WAYS), {})


def test_a_way_that_computes_something_else_is_refused(served):
    scores = {"ours": torch.zeros(3), "SDPA": torch.full((3,), 1e-5)}
    scores["full causal, SDPA"] = torch.ones(3)
    errors = {"ours": 0.0, "SDPA": 1e-5, "full causal, SDPA": None}
    assert served.differences(scores) == errors
    with pytest.raises(ValueError, match=r"eager differs from ours by 1\.0e\+00"):
        served.differences(scores | {"eager": torch.ones(3)})


def test_every_length_is_read_and_written(served, tiny, monkeypatch):
    monkeypatch.setattr(served, "peak", lambda way, n, *rest: 1000 * n)
    limits = served.Effort(rounds=2, budget=0.01, steps=3)
    data = served.measure(tiny, limits, (16, 24))
    assert [entry["n"] for entry in data["lengths"]] == [16, 24]
    for entry in data["lengths"]:
        assert [one["way"] for one in entry["results"]] == list(served.WAYS)
        assert entry["not_run"] == {}
        for one in entry["results"]:
            assert one["peak_bytes"] == 1000 * entry["n"]
            assert min(one["prefill"] + one["step"]) > 0
            assert len(one["step"]) >= 2 and len(one["prefill"]) >= 1
    assert served.table(data).count("\n") == 9
    json.dumps(data, allow_nan=False)


def test_seconds_of_a_step_are_those_of_a_call_over_its_steps(served):
    clock = clocks.CpuClock()
    samples = [{clock.name: 0.32}, {clock.name: 0.64}]
    assert served.seconds(samples, clock, 16) == [0.02, 0.04]


def test_the_peak_of_an_eager_prefill_holds_its_scores(served):
    shape = served.ModelShape(layers=1, d_model=32, heads=4, intermediate=32, window=64)
    n = 1024
    found = {way: served.peak(way, n, shape) for way in ("ours", "eager")}
    if found["eager"] is None:
        pytest.skip("the system does not tell the peak")
    scores = shape.heads * n * n * 4
    assert found["ours"] < scores < found["eager"]


# The records.


def record_of(name):
    try:
        return decoding.recorded(name)
    except LookupError:
        pytest.skip(f"{name} is not recorded")


def seeds_of(data):
    spans = [(piece["first"], piece["count"]) for piece in data["pieces"]]
    return {seed for first, count in spans for seed in range(first, first + count)}


def check_made(made):
    assert re.fullmatch("[0-9a-f]{40}", made["revision"]) and not made["dirty"]
    assert made["threads"] == 1


def test_the_recorded_steps_are_100_000_at_constant_bytes():
    data = record_of("steps")
    check_made(data["provenance"])
    for text, share in decoding.PATTERNS.items():
        found = data["patterns"][text]
        assert found["token"][-1] == share * 100_000
        if text != "causal":
            assert set(found["bytes"]) == {1024 * 2 * 2 * 64 * 4}


def test_the_recorded_models_name_every_way_at_every_length(served):
    data = record_of("models")
    check_made(data["provenance"])
    assert [entry["n"] for entry in data["lengths"]] == list(served.LENGTHS)
    for entry in data["lengths"]:
        ways = [one["way"] for one in entry["results"]]
        assert sorted([*ways, *entry["not_run"]]) == sorted(served.WAYS)
        errors = [one["largest_difference"] or 0 for one in entry["results"]]
        assert max(errors) < 1e-3


def test_the_recorded_splits_are_different_ones_without_an_error():
    data = record_of("splits")
    assert data["allowed"] == 1e-13
    for piece in data["pieces"]:
        check_made(piece["made"])
        assert sum(number for number, _ in piece["kinds"].values()) == piece["count"]
        assert all(error <= data["allowed"] for _, error in piece["kinds"].values())
    total = sum(piece["count"] for piece in data["pieces"])
    assert seeds_of(data) == set(range(total))


def test_the_recorded_predicates_are_10_000_and_none_was_named_wrong():
    data = record_of("names")
    assert data["a_seed"] == 100
    for piece in data["pieces"]:
        check_made(piece["made"])
        counts = piece["counts"]
        named = counts["right"] + counts["unknown"] + counts["wrong"]
        assert named == 100 * piece["count"]
        assert counts["wrong"] == counts["missed"] == 0
    assert sum(piece["count"] for piece in data["pieces"]) == 100
    assert len(seeds_of(data)) == 100


def test_a_piece_is_recorded_once(tmp_path):
    path, piece = tmp_path / "splits.json", {"first": 7, "count": 3}
    pieces.appended(path, {"what": "x"}, piece)
    pieces.appended(path, {"what": "x"}, {"first": 10, "count": 2})
    for first, count in ((5, 3), (7, 3), (9, 1), (11, 5), (0, 50)):
        with pytest.raises(SystemExit, match="recorded already"):
            pieces.appended(path, {"what": "x"}, {"first": first, "count": count})
    data = json.loads(path.read_text())
    assert [one["first"] for one in data["pieces"]] == [7, 10]
    assert seeds_of(data) == {7, 8, 9, 10, 11}


def test_trials_are_counted_by_kind():
    assert sum(number for number, _ in tried(7, 3).values()) == 3
