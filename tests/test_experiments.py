"""Experiments: nothing lost, nothing doubled, nothing leaked, the same for a seed."""

import dataclasses
import functools
import json
import math
import os
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
import torch
from conftest import ROOT

from attn_tutorial import cost, patterns
from attn_tutorial.benchmark.spelling import recorded_pattern
from attn_tutorial.experiments.__main__ import main
from attn_tutorial.experiments.comparison import (
    STUDENT,
    Paired,
    apart,
    clear_difference,
    difference,
    interval,
    judgement,
    paired,
)
from attn_tutorial.experiments.data import corpora
from attn_tutorial.experiments.data.number_words import english, german
from attn_tutorial.experiments.data.roles import BY_SCOPE, ROLES, roles
from attn_tutorial.experiments.figures.results import (
    FIGURES,
    bits_against_full,
    latch_blocks,
)
from attn_tutorial.experiments.models import kv_bytes, training_flops
from attn_tutorial.experiments.named import named_patterns
from attn_tutorial.experiments.records import (
    FOLDER,
    SCHEMA,
    OpenRecord,
    Run,
    Runs,
    load,
)
from attn_tutorial.experiments.registry import EXPERIMENTS
from attn_tutorial.experiments.runner import (
    Experiment,
    Tuning,
    pending,
    run_experiment,
)
from attn_tutorial.experiments.studies import (
    language_model,
    latch,
    optimisers,
    recall,
    structure,
    tagging,
    translation,
)
from attn_tutorial.instruments.graph import reach_mask
from attn_tutorial.networks.tasks import IGNORE

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
        ("adjacent_blocks 4", patterns.adjacent_blocks(4)),
        ("local 3,0 & strided 2", patterns.local((3, 0)) & patterns.strided(2)),
    ],
)
def test_names_are_patterns(name, pattern):
    assert recorded_pattern(name) == pattern
    mask = patterns.dense_mask(recorded_pattern(name, causal=True), 12)
    assert torch.equal(mask, patterns.dense_mask(pattern & patterns.causal(), 12))


def test_several_names_are_layers_in_turn():
    near, far = named_patterns("local 2, full", causal=True)
    assert near == patterns.local(2) & patterns.causal()
    assert far == patterns.causal()


@pytest.mark.parametrize("name", ["", "band 3", "local", "local -1", "local 2.5"])
def test_an_unknown_name_is_named(name):
    wrong = "text must be a pattern|is not a pattern|window must be at least 0"
    with pytest.raises(ValueError, match=wrong):
        recorded_pattern(name)


# Records.


def test_a_record_is_whole_after_every_run(tmp_path):
    with OpenRecord("toy", "What then?", tmp_path) as record:
        for seed in range(3):
            record.add(Run({"size": 1}, seed, {"loss": 0.5}, MADE))
            check(tmp_path / "toy.json")
            assert len(load("toy", tmp_path)) == seed + 1


def test_a_run_is_recorded_once(tmp_path):
    with OpenRecord("toy", "What then?", tmp_path) as record:
        record.add(Run({"size": 1, "lr": 2}, 0, {"loss": 0.5}, MADE))
        assert record.has({"lr": 2, "size": 1}, 0)
        with pytest.raises(ValueError, match="run is already recorded"):
            record.add(Run({"lr": 2, "size": 1}, 0, {"loss": 0.5}, MADE))


def test_a_result_that_is_no_number_is_refused_and_leaves_the_record(tmp_path):
    with OpenRecord("toy", "What then?", tmp_path) as record:
        record.add(Run({"size": 1}, 0, {"loss": 0.5}, MADE))
        with pytest.raises(ValueError, match="not JSON compliant"):
            record.add(Run({"size": 1}, 1, {"loss": float("nan")}, MADE))
    assert load("toy", tmp_path).values("loss") == [0.5]


def test_only_one_process_writes_a_record(tmp_path):
    with OpenRecord("toy", "What then?", tmp_path):
        with pytest.raises(BlockingIOError, match="another process holds .*toy.lock"):
            OpenRecord("toy", "What then?", tmp_path).__enter__()
    with OpenRecord("toy", "What then?", tmp_path):
        pass


@pytest.mark.parametrize("option", ["--seeds", "--workers"])
def test_nothing_is_counted_below_one(option, capsys):
    with pytest.raises(SystemExit):
        main(["run", "latch", option, "0"])
    assert "invalid count value: '0'" in capsys.readouterr().err


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


# Comparing.


@pytest.mark.parametrize(
    ("first", "second", "different"),
    [
        ([1, 2, 3], [5, 6, 7], True),
        ([1, 2, 3], [4, 5, 6], True),  # means three deviations apart
        ([1, 2, 3], [3.1, 4.1, 5.1], True),
        ([1, 2, 3], [3, 4, 5], False),  # they touch
        ([1, 2, 9], [3, 4, 5], False),  # they overlap
        ([1, 2, 3], [3.1, 3.1, 6.2], False),  # on one side, but the spread is large
        ([1, 1, 1], [1, 1, 1], False),
        ([1, 1, 1], [1.1, 1.1, 1.1], True),
        ([1, 2], [50, 51, 52], False),  # too few seeds
    ],
)
def test_what_counts_as_a_difference(first, second, different):
    assert apart(first, second) == apart(second, first) == different
    mirrored = [[-x for x in part] for part in (first, second)]
    assert apart(*mirrored) == different


def test_the_rule_is_rarely_wrong_about_equals_and_hears_what_is_large():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 4000, 3, generator=generator, dtype=torch.float64)

    def share_apart(shift):
        pairs = zip(first.tolist(), (second + shift).tolist(), strict=True)
        return sum(apart(*pair) for pair in pairs) / 4000

    assert 0.03 < share_apart(0) < 0.05
    assert 0.35 < share_apart(2) < 0.5
    assert share_apart(6) > 0.99


def student(t, freedom):
    """Share of Student's distribution between -t and t, by adding up its density."""
    x = torch.linspace(-t, t, 200_001, dtype=torch.float64)
    density = (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    whole = math.sqrt(freedom * math.pi) * math.gamma(freedom / 2)
    return (torch.trapezoid(density, x) * math.gamma((freedom + 1) / 2) / whole).item()


def test_the_quantiles_are_those_of_student():
    assert [student(t, 2 + k) for k, t in enumerate(STUDENT)] == pytest.approx(
        [0.95] * len(STUDENT), abs=1e-5
    )


@pytest.mark.parametrize(
    ("seeds", "alarms", "one", "two"),
    [(3, 0.05, 0.18, 0.47), (5, 0.05, 0.40, 0.91), (8, 0.05, 0.68, 0.998)],
)
def test_false_alarms_and_power_of_pairs_are_as_stated(seeds, alarms, one, two):
    """Differences of 0, 1 and 2 of their deviations, in 8000 made-up experiments."""
    generator = torch.Generator().manual_seed(seeds)
    noise = torch.randn(8000, seeds, generator=generator, dtype=torch.float64)
    for shift, share in ((0, alarms), (1, one), (2, two)):
        found = [interval(row).verdict for row in (noise + shift).tolist()]
        assert found.count("clear") / 8000 == pytest.approx(share, abs=0.015)
    text = " ".join(interval.__doc__.split())
    assert f"{seeds} {100 * one:.0f} % {100 * two:.3g} %" in text


def test_what_a_seed_does_to_both_cancels():
    def runs(*values, start=0):
        return Runs(Run({}, start + k, {"x": x}, MADE) for k, x in enumerate(values))

    first, second = runs(1.0, 2.0, 3.0), runs(1.1, 2.11, 3.09)
    assert paired(second, first, "x").verdict == "clear"
    assert not clear_difference(second, first, "x")
    assert paired(first, second, "x").mean == -paired(second, first, "x").mean
    assert paired(first, first, "x") == Paired(0, 0, 0, 3)
    more = runs(5.0, 1.1, 2.11, 3.09, start=-1)  # a seed that the other lacks
    assert paired(more, first, "x") == paired(second, first, "x")
    with pytest.raises(ValueError, match="must be 3 to 15 numbers, got 2"):
        paired(runs(1.0, 2.0), first, "x")
    twice = Runs([*first, *first])
    with pytest.raises(ValueError, match="must have each seed once, got 6 runs"):
        paired(twice, first, "x")


def test_runs_are_compared_by_one_result():
    def runs(start):
        return Runs(Run({}, s, {"x": start + s / 100, "y": 1}, MADE) for s in range(3))

    assert clear_difference(runs(1), runs(2), "x")
    assert not clear_difference(runs(1), runs(2), "y")
    assert difference(runs(2), runs(1), "x", digits=2) == "+1.00 (clear)"
    assert difference(runs(1), runs(1), "x") == "+0.000 (within the spread)"
    words = ("worse", "not clear", "better")
    for start, word, opposite in zip((1, 2, 3), words, words[::-1], strict=True):
        pair = runs(start), runs(2)
        assert judgement(*pair, "x", more_is_better=True) == word
        assert judgement(*pair, "x", more_is_better=False) == opposite


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


def test_progress_is_shown_unless_it_is_not_wanted(tmp_path, capsys):
    run_experiment(toy(), seeds=2, folder=tmp_path)
    shown = capsys.readouterr().err
    assert "toy: 100%" in shown and "4/4" in shown
    run_experiment(toy(), seeds=3, folder=tmp_path, progress=False)
    assert capsys.readouterr().err == ""


def test_an_error_keeps_the_runs_before_it(tmp_path):
    def fail(setting, seed, device):
        if seed == 1:
            raise RuntimeError("out of luck")
        return noisy(setting, seed, device)

    with pytest.raises(RuntimeError, match="out of luck"):
        run_experiment(toy(train=fail), folder=tmp_path)
    assert len(load("toy", tmp_path)) == 2


def test_tuning_gives_every_setting_the_same_trials_and_its_own_best(tmp_path):
    tuning = Tuning((1, 2, 3), "loss", {"short": True}, reach=0)
    tuned = toy(tuning=tuning)
    runs = run_experiment(tuned, seeds=2, folder=tmp_path)
    trials = runs.where(stage="tuning")
    assert len(trials) == 6 and len(runs.final) == 4
    assert all(t.setting["short"] and t.seed == tuning.seed for t in trials)
    for size, lr in ((1, 1), (2, 2)):
        assert [r.setting["lr"] for r in runs.final.where(size=size)] == [lr, lr]
        assert len(trials.where(size=size)) == 3
    assert list(runs[:6]) == list(trials)


def tuned_by(losses, folder, **options):
    """Tune over (1, 2, 4) where a rate has the loss of a function."""

    def train(setting, seed, device):
        return {"loss": float(losses(setting["lr"]))}

    tuning = Tuning((1, 2, 4), "loss", **options)
    settings = [{"size": 1, "lr": 0}]
    tuned = toy(settings=lambda quick: settings, train=train, tuning=tuning)
    runs = run_experiment(tuned, seeds=1, folder=folder)
    with OpenRecord("toy", "What then?", folder) as record:
        inside = tuning.is_inside(settings[0], record)
    trials = runs.where(stage="tuning")
    return [t.setting["lr"] for t in trials], runs.final[0].setting["lr"], inside


@pytest.mark.parametrize(
    ("losses", "tried", "best", "inside"),
    [
        (lambda lr: (lr - 2) ** 2, [1, 2, 4], 2, True),
        (lambda lr: (lr - 4) ** 2, [1, 2, 4, 8], 4, True),
        (lambda lr: (lr - 0.6) ** 2, [1, 2, 4, 0.5, 0.25], 0.5, True),
        (lambda lr: -lr, [1, 2, 4, 8, 16, 32], 32, False),
        (lambda lr: lr, [1, 2, 4, 0.5, 0.25, 0.125], 0.125, False),
        (lambda lr: 0, [1, 2, 4], 2, True),  # all equal: the middle
        (lambda lr: lr > 2, [1, 2, 4, 0.5], 1, True),  # a plateau: its middle
        (lambda lr: math.nan if lr > 4 else -lr, [1, 2, 4, 8], 4, True),
        (lambda lr: math.inf if lr > 1 else lr, [1, 2, 4, 0.5, 0.25, 0.125], 0.125, 0),
    ],
)
def test_rates_are_tried_until_the_best_lies_inside(
    losses, tried, best, inside, tmp_path
):
    assert tuned_by(losses, tmp_path) == (tried, best, inside)


def test_the_end_of_the_rates_is_told_where_no_more_may_be_tried(tmp_path):
    found = tuned_by(lambda lr: -lr, tmp_path / "none", reach=0)
    assert found == ([1, 2, 4], 4, False)
    found = tuned_by(lambda lr: -lr, tmp_path / "one", reach=1)
    assert found == ([1, 2, 4, 8], 8, False)


def test_tuning_that_was_stopped_goes_on_where_it_stopped(tmp_path):
    """Whatever was recorded when it ended, the trials are the same, and each once."""
    tuned = toy(
        settings=lambda quick: [{"size": s, "lr": 1} for s in (0.3, 40)],
        tuning=Tuning((1, 2, 4), "loss"),
    )
    whole = run_experiment(tuned, seeds=1, folder=tmp_path / "whole")
    rates = [run.setting["lr"] for run in whole.where(stage="tuning")]
    assert rates == [1, 2, 4, 0.5, 0.25, 0.125, 1, 2, 4, 8, 16, 32]
    for count in range(len(whole)):
        folder = tmp_path / str(count)
        with OpenRecord("toy", "What then?", folder) as record:
            for run in whole[:count]:
                record.add(run)
        again = run_experiment(tuned, seeds=1, folder=folder)
        assert {r.identity: r.result for r in again} == {
            r.identity: r.result for r in whole
        }


def test_a_contender_that_shares_trials_shares_the_further_ones(tmp_path):
    tuned = toy(
        settings=lambda quick: [{"size": 9, "lr": 1, "steps": n} for n in (10, 20)],
        tuning=Tuning((1, 2), "loss", {"steps": 5}),
    )
    runs = run_experiment(tuned, seeds=1, folder=tmp_path)
    trials = [run.setting["lr"] for run in runs.where(stage="tuning")]
    assert trials == [1, 2, 4, 8, 16] and runs.final[1].setting["lr"] == 8


def test_final_runs_at_a_rate_that_is_no_longer_chosen_are_not_mixed_in(tmp_path):
    """A record that was tuned with fewer rates does not go on with a new best."""
    settings = [{"size": 9, "lr": 1}]
    narrow, wide = (
        toy(settings=lambda quick: settings, tuning=Tuning((1, 2), "loss", reach=reach))
        for reach in (0, 3)
    )
    run_experiment(narrow, seeds=1, folder=tmp_path)
    wrong = "record toy has final runs with lr=2, but its trials choose 8: move it"
    with pytest.raises(ValueError, match=wrong):
        run_experiment(wide, seeds=1, folder=tmp_path)


def test_a_final_run_that_ends_in_no_number_is_refused(tmp_path):
    lost = toy(train=lambda *_: {"loss": math.nan})
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_experiment(lost, folder=tmp_path)


def test_quick_runs_are_not_tuned(tmp_path):
    tuned = toy(tuning=Tuning((1, 2, 3), "loss"))
    assert len(run_experiment(tuned, quick=True, seeds=1, folder=tmp_path)) == 2


def plain_settings(quick):
    return [{"size": size, "lr": 1} for size in (1, 2)]


def plain_report(runs):
    return f"{len(runs)} runs"


def test_several_workers_record_the_same(tmp_path):
    picklable = toy(settings=plain_settings, report=plain_report)
    alone = run_experiment(picklable, folder=tmp_path / "alone")
    together = run_experiment(picklable, folder=tmp_path / "together", workers=2)
    assert len(together) == 6
    assert [(r.identity, r.result) for r in alone] == [
        (r.identity, r.result) for r in together
    ]


def test_a_record_ends_in_the_order_of_its_settings(tmp_path):
    picklable = toy(settings=plain_settings, report=plain_report)
    run_experiment(picklable, folder=tmp_path, seeds=1)
    turned = dataclasses.replace(
        picklable, settings=lambda quick: plain_settings(quick)[::-1]
    )
    found = run_experiment(turned, folder=tmp_path, seeds=2)
    assert [(r.setting["size"], r.seed) for r in found] == [
        (2, 0), (1, 0), (2, 1), (1, 1)
    ]  # fmt: skip
    assert list(load("toy", tmp_path)) == list(found)
    again = run_experiment(picklable, folder=tmp_path, seeds=2)
    assert list(again) == list(found), "nothing was trained, and all stays as it is"


def test_contenders_that_share_a_trial_run_it_once(tmp_path):
    """Settings that differ only in what tuning changes are the same trial."""
    tuned = toy(
        settings=lambda quick: [{"size": 1, "lr": 1, "steps": n} for n in (10, 20)],
        tuning=Tuning((1, 2), "loss", {"steps": 5}, reach=0),
    )
    runs = run_experiment(tuned, seeds=1, folder=tmp_path)
    assert len(runs.where(stage="tuning")) == 2 and len(runs.final) == 2


def wait_for_runs(path, count, process):
    """Wait until the record holds some runs; fails if the process ends before."""
    until = time.monotonic() + 600
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
        assert process.wait(600) == 0, process.stderr.read()
    after = load("latch", tmp_path)
    assert after.values("accuracy")[: len(before)] == before.values("accuracy")
    assert [r.made for r in after[: len(before)]] == [r.made for r in before]
    expected = pending_of(EXPERIMENTS["latch"], tmp_path / "empty")
    assert [(r.setting, r.seed) for r in after] == expected


def pending_of(experiment, folder):
    with OpenRecord("empty", "What?", folder) as record:
        return pending(experiment, record, quick=True, seeds=1)


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


def test_the_command_line_lists_runs_and_reports(quick, capsys, tmp_path):
    quick("latch")
    empty, folder = ["--folder", str(tmp_path)], ["--folder", str(quick.folder)]
    assert main(["list", *empty]) == 0
    assert "latch: Up to which distance" in capsys.readouterr().out
    assert main(["report", "latch", *empty]) == 0
    assert "No runs yet." in capsys.readouterr().out
    options = ["--quick", "--seeds", "1", "--device", "cpu"]
    main(["run", "latch", *options, *folder])  # all is recorded: nothing is trained
    printed = capsys.readouterr().out
    assert "| local 4 | 2      | 8" in printed
    main(["report", "latch", *folder])
    assert capsys.readouterr().out == printed


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
    several = named_patterns(pattern, causal=True)
    heard = reach_mask(several, 50, layers)
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


# Nothing of the test part is trained on.


def test_no_file_and_no_message_is_in_two_parts():
    files = {part: set() for part in corpora.PARTS}
    for name in corpora.source_files():
        files[corpora.part_of(name)].add(name)
    assert all(len(names) > 10 for names in files.values())
    texts = {p: corpora.source_bytes(p).numpy().tobytes() for p in corpora.PARTS}
    for part, names in files.items():
        for name in names:
            passage = corpora.source_files()[name][200:500]
            assert passage in texts[part]
            if len(set(passage)) > 20:  # no licence, no row of dashes
                assert passage not in texts["test"] or part == "test" or is_shared(name)


def is_shared(name):
    """Files that begin alike in both packages: their text is no secret of a part."""
    files = corpora.source_files()
    passage = files[name][200:500]
    return sum(passage in text for text in files.values()) > 1


def test_the_text_is_the_one_that_was_recorded():
    assert corpora.fingerprint() == "f9eee37020c5"
    assert corpora.VERSIONS == {"docutils": "0.21.2", "Sphinx": "7.4.7"}


def test_another_version_of_the_text_is_refused(monkeypatch):
    monkeypatch.setitem(corpora.VERSIONS, "Sphinx", "1.0")
    with pytest.raises(ModuleNotFoundError, match="pip install Sphinx==1.0"):
        corpora.package_folder("Sphinx")


def test_pairs_of_numbers_are_in_one_part():
    setting = {**translation.BASE, "digits": 2}
    drawn = {part: set() for part in ("train", *translation.PARTS)}
    generator = torch.Generator().manual_seed(0)
    for part, pairs in drawn.items():
        for _ in range(100):
            pairs.add(tuple(translation.draw_numbers(setting, part, generator)))
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["test"] & drawn["validation"]


def test_held_out_sequences_have_seeds_that_no_training_has():
    seeds = {latch.TEST_SEED, *recall.HELD_OUT.values()}
    tuned = {e.tuning.seed for e in EXPERIMENTS.values() if e.tuning}
    assert min(seeds) > 1000 >= max(tuned)


# The data.


def test_passages_are_followed_by_themselves():
    text = torch.arange(100, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    inputs, targets = corpora.windows_of(text, 50, 8, generator)
    assert torch.equal(targets, inputs + 1)
    assert inputs.min() == 0 or inputs.min() < 10
    assert targets.max() <= 99


SOURCE = """\
import os, re as regex
LIMIT = 3  # a comment

class Thing(object):
    def size(self, n=LIMIT, *rest):
        total = len(rest) + n
        return f"{total}" + os.name + str(self.n)

    @property
    def one(self):
        def inner():
            return total
        return lambda x: x + LIMIT
"""


def roles_of(word, occurrence=0, source=SOURCE):
    """Roles of the letters of one occurrence of a word."""
    first = -1
    for _ in range(occurrence + 1):
        first = source.index(word, first + 1)
    found = set(roles(source)[first : first + len(word)])
    assert len(found) == 1, found
    return found.pop()


@pytest.mark.parametrize(
    ("word", "occurrence", "role"),
    [
        ("import", 0, "keyword"),
        ("# a comment", 0, "comment"),
        ("LIMIT", 0, "module"),
        ("LIMIT", 1, "module"),
        ("Thing", 0, "definition"),
        ("object", 0, "builtin"),
        ("size", 0, "definition"),
        ("self", 0, "parameter"),
        ("self", 1, "parameter"),
        ("rest", 0, "parameter"),
        ("rest", 1, "parameter"),
        ("total", 0, "local"),
        ('f"{total}"', 0, "string"),
        ("total", 2, "module"),
        ("len", 0, "builtin"),
        ("os", 1, "module"),
        (".name", 0, None),
        ("name", 0, "attribute"),
        ("3", 0, "number"),
        ("property", 0, "builtin"),
        ("x + LIMIT", 0, None),
    ],
)
def test_names_have_the_role_that_python_gives_them(word, occurrence, role):
    if role is not None:
        assert roles_of(word, occurrence) == role


def test_roles_cover_every_letter():
    found = roles(SOURCE)
    assert len(found) == len(SOURCE)
    assert set(found) <= set(ROLES)
    assert set(BY_SCOPE) < set(ROLES)


def test_labels_stand_at_their_bytes():
    text, found = tagging.labelled("validation")
    assert len(text) == len(found)
    comment = ROLES.index("comment")
    starts = (found == comment) & (found.roll(1) != comment)
    assert set(text[starts].tolist()) == {ord("#")}


@pytest.mark.parametrize(
    ("number", "in_english", "in_german"),
    [
        (0, "zero", "null"),
        (1, "one", "eins"),
        (17, "seventeen", "siebzehn"),
        (21, "twenty-one", "einundzwanzig"),
        (90, "ninety", "neunzig"),
        (101, "one hundred one", "einhunderteins"),
        (1001, "one thousand one", "eintausendeins"),
        (21_000, "twenty-one thousand", "einundzwanzigtausend"),
        (
            999_999,
            "nine hundred ninety-nine thousand nine hundred ninety-nine",
            "neunhundertneunundneunzigtausendneunhundertneunundneunzig",
        ),
        (1_000_000, "one million", "eine Million"),
        (2_000_030, "two million thirty", "zwei Millionen dreißig"),
    ],
)
def test_numbers_in_words(number, in_english, in_german):
    assert (english(number), german(number)) == (in_english, in_german)


@pytest.mark.parametrize("write", [english, german])
def test_different_numbers_have_different_words(write):
    numbers = [*range(2000), *range(0, 10**9, 10**9 // 997 + 1)]
    assert len({write(n) for n in numbers}) == len(set(numbers))
    with pytest.raises(ValueError, match=r"below 10\^9, got 1000000000"):
        write(10**9)


def test_a_recalled_value_stood_behind_the_same_key():
    drawn = recall.draw(20, 64, torch.Generator().manual_seed(0))
    for row, wanted, distances in zip(*(x.tolist() for x in drawn), strict=True):
        last = {}
        for place, (token, target, back) in enumerate(
            zip(row, wanted, distances, strict=True)
        ):
            if place % 2:
                last[row[place - 1]] = place
            elif token in last:
                assert back == place - last[token]
                assert target == row[last[token]] - recall.KEYS
            else:
                assert (target, back) == (IGNORE, 0)


def test_translations_are_written_letter_by_letter():
    setting = {**translation.BASE, "digits": 3}
    generator = torch.Generator().manual_seed(0)
    _, shifted, wanted = translation.draw(setting, "test", 8, generator)
    known = wanted[:, 1:] != IGNORE
    assert torch.equal(shifted[:, 1:][known], wanted[:, :-1][known])
    assert (shifted[:, 0] == translation.MARK).all()


# What is measured.


def test_costs_are_those_of_the_closed_forms():
    setting = {**language_model.BASE, "pattern": "full"}
    n, d, layers = setting["n"], setting["d_model"], setting["layers"]
    assert kv_bytes(setting) == layers * n * 2 * d * 4
    assert kv_bytes({**setting, "pattern": "local 16"}) == layers * 17 * 2 * d * 4
    assert kv_bytes({**setting, "num_kv_heads": 1}) == kv_bytes(setting) / 4
    for name in ("full", "local 16", "blocks 32"):
        pattern = recorded_pattern(name, causal=True)
        layer = sum(cost.layer_flops(pattern, n, d))
        passes = 3 * setting["batch"] * setting["steps"] * layers
        assert training_flops({**setting, "pattern": name}) == passes * layer


def test_equal_flops_are_equal():
    settings = EXPERIMENTS["language_model"].settings(False)
    full = next(s for s in settings if s["pattern"] == "full")
    same = [s for s in settings if s["equal"] == "FLOPs"]
    assert same
    for setting in same:
        assert training_flops(setting) == pytest.approx(training_flops(full), rel=2e-3)
        assert setting["steps"] > full["steps"]


def test_every_model_predicts_the_same_bytes():
    """A model that knows nothing takes 8 bits a byte, in pieces of any length."""

    class Blind(torch.nn.Linear):
        def forward(self, tokens):
            assert tokens.shape[-1] == self.length
            return torch.zeros(*tokens.shape, 256)

    for n in (64, 512):
        model = Blind(1, 1)
        model.length = n
        bits = language_model.bits_by_position(model, {"n": n, "passages": 3}, "test")
        assert bits.shape == (512,)
        assert torch.allclose(bits, torch.tensor(8.0))


def test_linear_attention_needs_only_a_state_that_does_not_grow():
    """Token by token, with one matrix and one vector a head."""
    torch.manual_seed(0)
    layer = structure.LinearAttention(8, 2).double()
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    q, k = (torch.nn.functional.elu(f(x)) + 1 for f in (layer.query, layer.key))
    turned = [layer.turn(part).view(9, 2, 4) for part in (q, k)]
    q, k, v = (part.view(9, 2, 4) for part in (q, k, layer.value(x)))
    state = torch.zeros(2, 4, 4, dtype=torch.float64)
    keys = torch.zeros(2, 4, dtype=torch.float64)
    for i in range(9):
        state = state + turned[1][i][:, :, None] * v[i][:, None, :]
        keys = keys + k[i]
        heads = (turned[0][i][:, None] @ state)[:, 0] / (q[i] * keys).sum(-1)[:, None]
        assert torch.allclose(layer(x)[0, i], layer.output(heads.flatten()))


def test_the_best_rate_is_chosen_by_validation():
    runs = Runs(
        Run(
            {"optimizer": "sgd", "lr": lr},
            seed,
            {"validation_bits": bits, "test_bits": -bits},
            MADE,
        )
        for lr, bits in ((0.1, 3.0), (0.2, 2.0), (0.3, 4.0))
        for seed in range(3)
    )
    assert optimisers.best_rates(runs)["sgd"][0].setting["lr"] == 0.2


# Figures.


def pretended(name, quick):
    """A full record whose results are those of one quick run."""
    experiment = EXPERIMENTS[name]
    result = dict(
        quick(name).where(pattern=quick(name)[-1].setting["pattern"])[0].result
    )
    for run in quick(name):
        result = {**run.result, **result}
    lists = {
        k: [0.5 if v is None else v for v in x]
        for k, x in result.items()
        if isinstance(x, list)
    }
    return Runs(
        Run(setting, seed, {**result, **lists}, MADE)
        for setting in experiment.settings(False)
        for seed in range(3)
    )


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name in FIGURES])
def test_figures_are_drawn_from_records(name, quick):
    for draw in FIGURES[name]:
        picture = draw(pretended(name, quick))
        assert len(picture.alt.split()) > 5
        assert picture._repr_png_()[0].startswith(b"\x89PNG")


def test_bits_lost_pair_the_seeds_of_pattern_and_full_attention():
    bands = [2.0, 1.9, 1.8, 1.7, 1.6, 1.5]
    results = {("full", 0): 0.0, ("full", 1): 1.0, ("local 4", 1): 1.5}
    runs = Runs(
        Run(
            {"pattern": pattern, "equal": "steps"},
            seed,
            {"test_bits_by_band": [bits + more for bits in bands]},
            MADE,
        )
        for (pattern, seed), more in results.items()
    )
    figure = bits_against_full(runs, shown=("local 4",))
    assert figure.alt.endswith("local 4: " + ", ".join(["+0.500"] * 6) + ".")


def test_blocks_are_drawn_against_what_theory_says():
    result = {"inside_by_distance": [1, 0.5, 0], "accuracy_by_distance": [1, 0.6, 0.2]}
    setting = {"pattern": "blocks 16", "layers": 2}
    figure = latch_blocks(Runs([Run(setting, 0, result, MADE)]))
    theory = figure.axes[0].lines[0].get_ydata().tolist()
    assert theory == [1, 0.5625, 0.125]
    assert "on average 0.037 from theory" in figure.alt


def test_figures_are_written_to_a_folder(quick, tmp_path, capsys):
    folder = ["--folder", str(quick.folder)]
    quick("structure")
    main(["report", "structure", *folder, "--figures", str(tmp_path)])
    assert (tmp_path / "structure_1.png").exists()
    assert "structure_1.png: Smaller in many ways" in capsys.readouterr().out
