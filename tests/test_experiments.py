"""Experiments: nothing lost, nothing doubled, nothing leaked, the same for a seed."""

import functools
import json
import os
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
import torch
from conftest import ROOT

from attn_tutorial import patterns
from attn_tutorial.experiments import latch
from attn_tutorial.experiments.__main__ import main
from attn_tutorial.experiments.named import named_pattern, named_patterns
from attn_tutorial.experiments.records import FOLDER, SCHEMA, Record, Run, Runs, load
from attn_tutorial.experiments.registry import EXPERIMENTS
from attn_tutorial.experiments.runner import (
    Experiment,
    Tuning,
    pending,
    run_experiment,
)
from attn_tutorial.tasks import latch_distance

FORMAT = json.loads(SCHEMA.read_text())
COMMAND = [sys.executable, "-m", "attn_tutorial.experiments"]
MADE = {
    "started": "2026-01-01T00:00:00+00:00",
    "seconds": 1.0,
    "cpu_seconds": 1.0,
    "device": "cpu",
    "threads": 1,
    "python": "3",
    "torch": "2",
    "revision": "unknown",
    "dirty": False,
}


@pytest.fixture(autouse=True)
def same_number_of_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def check(path):
    jsonschema.validate(json.loads(path.read_text()), FORMAT)


def noisy(setting, seed, device):
    """A stand-in for training: quick, and different for every run."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand((), generator=generator).item()
    return {"loss": (setting["lr"] - setting["size"]) ** 2 + noise / 100}


def toy(**changes):
    given = {
        "name": "toy",
        "question": "What then?",
        "settings": lambda quick: [{"size": s, "lr": 1} for s in (1, 2)],
        "train": noisy,
        "report": lambda runs: f"{len(runs)} runs",
    }
    return Experiment(**{**given, **changes})


# Names of patterns.


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("full", patterns.full()),
        ("local 3", patterns.local(3)),
        ("blocks 4", patterns.adjacent_blocks(4)),
        ("local 3 + global 1", patterns.local(3) | patterns.global_tokens(1)),
    ],
)
def test_names_are_patterns(name, pattern):
    assert named_pattern(name, causal=False) == pattern
    mask = patterns.dense_mask(named_pattern(name, causal=True), 12)
    assert torch.equal(mask, patterns.dense_mask(pattern & patterns.causal(), 12))


def test_several_names_are_layers_in_turn():
    near, far = named_patterns("local 2, full", causal=True)
    assert near == patterns.local(2) & patterns.causal()
    assert far == patterns.causal()


@pytest.mark.parametrize("name", ["", "band 3", "local", "local -1", "local 2.5"])
def test_an_unknown_name_is_named(name):
    with pytest.raises(ValueError, match="name must be 'full' or have terms"):
        named_pattern(name, causal=False)


# Records.


def test_a_record_is_whole_after_every_run(tmp_path):
    with Record("toy", "What then?", tmp_path) as record:
        for seed in range(3):
            record.add(Run({"size": 1}, seed, {"loss": 0.5}, MADE))
            check(tmp_path / "toy.json")
            assert len(load("toy", tmp_path)) == seed + 1


def test_a_run_is_recorded_once(tmp_path):
    with Record("toy", "What then?", tmp_path) as record:
        record.add(Run({"size": 1, "lr": 2}, 0, {"loss": 0.5}, MADE))
        assert record.has({"lr": 2, "size": 1}, 0)
        with pytest.raises(ValueError, match="run is already recorded"):
            record.add(Run({"lr": 2, "size": 1}, 0, {"loss": 0.5}, MADE))


def test_a_result_that_is_no_number_is_refused_and_leaves_the_record(tmp_path):
    with Record("toy", "What then?", tmp_path) as record:
        record.add(Run({"size": 1}, 0, {"loss": 0.5}, MADE))
        with pytest.raises(ValueError, match="not JSON compliant"):
            record.add(Run({"size": 1}, 1, {"loss": float("nan")}, MADE))
    assert load("toy", tmp_path).values("loss") == [0.5]


def test_only_one_process_writes_a_record(tmp_path):
    pytest.importorskip("fcntl")
    with Record("toy", "What then?", tmp_path):
        with pytest.raises(BlockingIOError, match="another process holds .*toy.lock"):
            Record("toy", "What then?", tmp_path).__enter__()
    with Record("toy", "What then?", tmp_path):
        pass


def test_runs_are_selected_and_summarised():
    runs = Runs(
        Run({"w": w, "stage": stage}, s, {"x": w + s, "xs": [w, s], "y": None}, MADE)
        for w in (1, 3)
        for s in (0, 2)
        for stage in (None, "tuning")
    )
    assert len(runs.final) == 4
    assert runs.where(w=3).values("x") == [3, 3, 5, 5]
    assert [group for group, _ in runs.groups("w", "stage")][:2] == [
        (1, None),
        (1, "tuning"),
    ]
    assert runs.final.where(w=1).mean("xs") == [1, 1]
    assert runs.final.where(w=1).deviation("x") == pytest.approx(2**0.5)
    assert runs.final[:1].deviation("x") == 0
    assert (runs.lowest("x"), runs.highest("x"), runs.lowest("y")) == (1, 5, None)


# Running.


def test_what_is_recorded_is_not_trained_again(tmp_path):
    first = run_experiment(toy(), seeds=2, folder=tmp_path)
    assert [(r.setting["size"], r.seed) for r in first] == [
        (1, 0),
        (2, 0),
        (1, 1),
        (2, 1),
    ]

    def refuse(*_):
        raise AssertionError("trained again")

    again = run_experiment(toy(train=refuse), seeds=2, folder=tmp_path)
    assert again.values("loss") == first.values("loss")
    assert len(run_experiment(toy(), seeds=3, folder=tmp_path)) == 6


def test_an_error_keeps_the_runs_before_it(tmp_path):
    def fail(setting, seed, device):
        if seed == 1:
            raise RuntimeError("out of luck")
        return noisy(setting, seed, device)

    with pytest.raises(RuntimeError, match="out of luck"):
        run_experiment(toy(train=fail), folder=tmp_path)
    assert len(load("toy", tmp_path)) == 2


def test_tuning_gives_every_setting_the_same_trials_and_its_own_best(tmp_path):
    tuning = Tuning((1, 2, 3), "loss", {"short": True})
    tuned = toy(tuning=tuning)
    runs = run_experiment(tuned, seeds=2, folder=tmp_path)
    trials = runs.where(stage="tuning")
    assert len(trials) == 6 and len(runs.final) == 4
    assert all(t.setting["short"] and t.seed == tuning.seed for t in trials)
    for size, lr in ((1, 1), (2, 2)):
        assert [r.setting["lr"] for r in runs.final.where(size=size)] == [lr, lr]
        assert len(trials.where(size=size)) == 3
    assert list(runs[:6]) == list(trials)


def test_quick_runs_are_not_tuned(tmp_path):
    tuned = toy(tuning=Tuning((1, 2, 3), "loss"))
    assert len(run_experiment(tuned, quick=True, seeds=1, folder=tmp_path)) == 2


def test_several_workers_record_the_same(tmp_path):
    quick = functools.partial(run_experiment, latch.EXPERIMENT, quick=True, seeds=1)
    alone = quick(folder=tmp_path / "alone")
    together = quick(folder=tmp_path / "together", workers=2)
    assert {r.identity: r.result for r in alone} == {
        r.identity: r.result for r in together
    }


def wait_for_runs(path, count, process):
    """Wait until the record holds some runs; fails if the process ends before."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if path.exists() and len(json.loads(path.read_text())["runs"]) >= count:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    raise AssertionError("no run was recorded in time")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    options = ["latch", "--quick", "--seeds", "1", "--device", "cpu", "--folder"]
    command = [*COMMAND, "run", *options, str(tmp_path)]
    path = tmp_path / "latch.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    start = functools.partial(
        subprocess.Popen, command, env=environment, stderr=subprocess.PIPE, text=True
    )
    with start(stdout=subprocess.DEVNULL) as process:
        wait_for_runs(path, 1, process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    check(path)
    before = load("latch", tmp_path)
    assert 1 <= len(before) < 3
    with start(stdout=subprocess.DEVNULL) as process:
        assert process.wait(120) == 0, process.stderr.read()
    after = load("latch", tmp_path)
    assert after.values("accuracy")[: len(before)] == before.values("accuracy")
    assert [r.made for r in after[: len(before)]] == [r.made for r in before]
    expected = pending_of(latch.EXPERIMENT, tmp_path / "empty")
    assert [(r.setting, r.seed) for r in after] == expected


def pending_of(experiment, folder):
    with Record("empty", "What?", folder) as record:
        return pending(experiment, record, quick=True, seeds=1)


def test_the_command_line_lists_runs_and_reports(tmp_path, capsys):
    folder = ["--folder", str(tmp_path)]
    assert main(["list", *folder]) == 0
    assert "latch: Up to which distance" in capsys.readouterr().out
    assert main(["report", "latch", *folder]) == 0
    assert "No runs yet." in capsys.readouterr().out
    main(["run", "latch", "--quick", "--seeds", "1", "--device", "cpu", *folder])
    printed = capsys.readouterr().out
    assert "| local 4 | 2      | 8" in printed
    main(["report", "latch", *folder])
    assert capsys.readouterr().out == printed


# Every experiment.


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Quick records, each made once."""
    folder = tmp_path_factory.mktemp("records")

    @functools.cache
    def made(name):
        return run_experiment(EXPERIMENTS[name], quick=True, seeds=1, folder=folder)

    made.folder = folder
    return made


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_quick_runs_are_recorded_and_reported(name, quick):
    runs = quick(name)
    check(quick.folder / f"{name}.json")
    assert len(runs) == len(EXPERIMENTS[name].settings(True))
    text = EXPERIMENTS[name].report(runs)
    assert text.startswith("|") and "nan" not in text


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_same_seed_gives_the_same_result(name, quick):
    run = quick(name)[0]
    torch.set_num_threads(1)
    again = EXPERIMENTS[name].train(run.setting, run.seed, torch.device("cpu"))
    for key, value in run.result.items():
        if "seconds" not in key:
            assert again[key] == pytest.approx(value, abs=1e-5), key


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_are_different_and_can_be_recorded(name):
    for small in (True, False):
        settings = EXPERIMENTS[name].settings(small)
        texts = {json.dumps(setting, sort_keys=True) for setting in settings}
        assert len(texts) == len(settings)


@pytest.mark.parametrize(
    "path",
    sorted(FOLDER.glob("*.json")),
    ids=lambda path: path.stem,
)
def test_published_records_keep_to_the_schema(path):
    check(path)
    runs = load(path.stem)
    assert len({run.identity for run in runs}) == len(runs)
    assert EXPERIMENTS[path.stem].report(runs.final).startswith("|")


# Latch.


@pytest.mark.parametrize(
    ("pattern", "layers", "edge"),
    [
        ("local 4", 1, 4),
        ("local 4", 3, 12),
        ("blocks 5", 1, 5),
        ("blocks 5", 2, 10),
        ("full", 1, 49),
        ("local 3, full", 2, 49),
        ("local 3 + global 1", 2, 6),
    ],
)
def test_theory_says_where_memory_ends(pattern, layers, edge):
    setting = {"pattern": pattern, "layers": layers}
    heard = latch.heard(setting, 50)
    lag = torch.arange(50)[:, None] - torch.arange(50)
    always = [bool(heard[lag == d].all()) for d in range(50)]
    # A value at the very start is in reach of a global first token.
    assert latch.edge([float(a) for a in always]) == edge


def test_a_trained_latch_ends_where_theory_says(quick):
    runs = quick("latch")
    for layers, end in ((1, 4), (2, 8)):
        run = runs.where(pattern="local 4", layers=layers)[0]
        assert latch.edge(run.result["accuracy_by_distance"]) == end
        assert run.result["accuracy_outside"] < 0.2
    assert runs.where(pattern="full")[0].result["accuracy"] > 0.9


def test_the_test_sequences_are_drawn_from_their_own_seed():
    setting = EXPERIMENTS["latch"].settings(True)[0]
    inputs, _ = latch.draw(2, setting["n"], torch.Generator().manual_seed(0))
    others, _ = latch.draw(
        2, setting["n"], torch.Generator().manual_seed(latch.TEST_SEED)
    )
    assert not torch.equal(inputs, others)
    assert latch_distance(inputs).max() < setting["n"] // 2
