"""Rules that name a window: their answers, and what becomes of those who follow."""

import statistics

import pytest
import torch

import attn_tutorial as at
from attn_tutorial.cost import influence_spread
from attn_tutorial.experiments.models import WINDOWS
from attn_tutorial.experiments.records import FOLDER, Run, Runs, load, record_path
from attn_tutorial.experiments.studies import advice_tasks, window_advice
from attn_tutorial.experiments.window_rules import (
    NAIVE,
    RULES,
    Task,
    distance_moment,
    score,
)


def runs_with(qualities, full=0.9, kind="local", **evidence):
    """Runs of sizes with given accuracies, and of full attention with evidence."""
    results = {"full": {"validation_accuracy": full, **evidence}}
    for size, accuracy in qualities.items():
        results[f"{kind} {size}"] = {"validation_accuracy": accuracy}
    size = {"n": 64, "layers": 2}
    return Runs(
        Run({"pattern": p, **size}, s, r, {})
        for p, r in results.items()
        for s in (0, 1)
    )


KNEE = {4: 0.5, 8: 0.89, 16: 0.9}  # does as well from 8 on


@pytest.mark.parametrize(
    ("advice", "verdict", "times", "lost"),
    [
        ([5, 3], "5 (hit)", 5 / 8, 0.01),
        ([8], "8 (hit)", 1, 0.01),
        ([4], "4 (narrow)", 1 / 2, 0.4),
        ([9], "9 (wide)", 9 / 8, 0),
        ([40], "40 (wide)", 5, 0),
        ([400], "400 (wide)", 63 / 8, 0),
    ],
)
def test_advice_is_a_hit_if_the_next_trained_window_is_as_good(
    advice, verdict, times, lost
):
    task = Task("made up", runs_with(KNEE, advised_by_attention=advice))
    assert task.smallest_as_good() == 8
    outcome = task.outcome("widest head")
    assert str(outcome) == verdict
    assert outcome.times == pytest.approx(times)
    assert outcome.lost == pytest.approx(lost)


def test_no_window_may_be_good_enough_and_less_may_be_better():
    none = Task("", runs_with({4: 0.5, 8: 0.6}, advised_by_loss=8))
    assert none.smallest_as_good() is None
    assert none.outcome("window on all layers").kind == "narrow"
    assert none.outcome("largest that fits").kind == "hit"
    bits = Task("", runs_with({4: 2.5, 8: 1.9}, full=1.91), sign=-1)
    assert bits.smallest_as_good() == 8
    assert bits.lost(4) == pytest.approx(0.59)
    assert bits.lost(8) == pytest.approx(-0.01)


def test_the_spread_of_full_attention_is_allowed_for():
    def runs(spread):
        full = [
            Run({"pattern": "full"}, s, {"validation_accuracy": 0.9 + x}, {})
            for s, x in enumerate((-spread, 0, spread))
        ]
        return Runs(
            [*full, Run({"pattern": "local 2"}, 0, {"validation_accuracy": 0.8}, {})]
        )

    assert Task("", runs(0.01)).smallest_as_good() is None
    assert Task("", runs(0.06)).smallest_as_good() == 2


def test_a_score_shows_both_kinds_of_misses():
    tasks = [
        Task("", runs_with(KNEE, advised_by_loss=w), "validation_accuracy")
        for w in (8, 4, 16, 32)
    ]
    found = score(tasks, "window on all layers")
    assert str(found) == "1 of 4"
    assert found.wide == [2, 4]
    assert found.narrow == [pytest.approx(0.4)]
    assert score(tasks, "gradient").tasks == 0  # nothing recorded, nothing said
    always = score(tasks, "largest that fits")
    assert (always.hits, len(always.wide), always.narrow) == (0, 4, [])
    assert "| 1 of 4 | 2 (2.8x)         | 1 (0.400)" in window_advice.scores(tasks)


def test_evidence_of_models_that_were_asked_elsewhere_counts():
    asked = runs_with({}, needed_context=15)
    task = Task("", runs_with(KNEE), asked=asked)
    assert str(task.outcome("context the loss needs")) == "8 (hit)"
    assert Task("", runs_with(KNEE)).outcome("context the loss needs") is None


def test_naive_rules_know_the_length_only():
    run = Run({"n": 128, "layers": 2}, 0, {}, {})
    found = [
        [rule(run, kind) for rule in NAIVE.values()]
        for kind in ("local", "adjacent_blocks")
    ]
    assert found == [[127, 16, 16], [64, 16, 16]]
    for rule in set(RULES) - set(NAIVE):
        assert RULES[rule](run, "local") is None


def test_rules_on_recorded_evidence():
    evidence = {
        "advised_by_attention": [3, 9],
        "blocks_by_attention": [2, 7],
        "advised_by_gradient": 11,
        "needed_context": 0,
        "narrowed": [1, 4],
        "narrowed_blocks": [1, 9],
    }
    run = Run({"n": 64, "layers": 2}, 0, evidence, {})
    rules = (
        "widest head",
        "gradient",
        "context the loss needs",
        "window layer by layer",
    )
    assert [RULES[rule](run, "local") for rule in rules] == [9, 11, 0, 3]
    assert [RULES[rule](run, "adjacent_blocks") for rule in rules] == [7, 11, 1, 5]


@pytest.mark.parametrize("window", [1, 4, 16])
def test_moments_of_uniform_distances_are_exact(window):
    """Half at 0 and the rest evenly on 1 ... w, if w is one of the recorded windows."""
    within = [0.5 + 0.5 * min(w, window) / window for w in WINDOWS]
    distances = torch.arange(1.0, window + 1)
    for power in (1, 2):
        expected = distances.pow(power).mean().item() / 2
        assert distance_moment(within, 1024, power) == pytest.approx(expected)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_spread_of_a_window_is_found_again(layers):
    """A gradient with the spread of a stack of windows asks for that window."""
    spread = influence_spread(8, layers)
    distance = next(w for w in WINDOWS if w >= spread)
    share = (spread / distance) ** 2
    within = [float(w >= distance) * share + 1 - share for w in WINDOWS]
    run = Run({"n": 512, "layers": layers}, 0, {"gradient_within": within}, {})
    moment = distance_moment(within, 512, power=2)
    found = RULES["spread of the gradient"](run, "local")
    assert influence_spread(found, layers) >= moment**0.5
    assert influence_spread(found - 1, layers) < moment**0.5


def test_settings_lie_around_what_theory_needs():
    latch = [s for s in window_advice.settings(False) if s["task"] == "latch"]
    for gap in window_advice.GAPS:
        need = window_advice.needed(gap, 2)
        assert 2 * need == gap - 1
        patterns = {s["pattern"] for s in latch if s["max_gap"] == gap}
        assert {"full", f"local {need}", f"local {need // 2}"} <= patterns


def test_the_models_of_other_experiments_are_asked_for_context():
    setting = {**window_advice.ASKED[0], "n": 32, "steps": 2, "batch": 4, "d_model": 16}
    setting |= {"pattern": "full"}
    result = window_advice.train(setting, 0, torch.device("cpu"))
    assert 0 <= result["needed_context"] < 32
    assert len(result["narrowed"]) == 2
    assert len(result["loss_with_context"]) == len(window_advice.CONTEXTS)


@pytest.mark.skipif(
    not record_path("window_advice", FOLDER).exists(), reason="nothing is recorded"
)
def test_the_hit_rate_on_the_api_page_is_that_of_the_records():
    tasks = window_advice.tasks(load("window_advice").final)
    fresh = advice_tasks.tasks(load("advice_tasks").final)
    text = " ".join(at.advise_window.__doc__.split())
    loss, new = (score(x, "context the loss needs") for x in (tasks, fresh))
    known = [score([t], "context the loss needs").hits for t in tasks if t.known]
    others = loss.hits - sum(known), loss.tasks - len(known)
    assert f"on {sum(known)} of {len(known)} tasks where theory knows it" in text
    assert "on {} of {} others".format(*others) in text
    assert f"on {new.hits} of {new.tasks} that were made to test it" in text
    rest = [
        score(fresh, rule).hits for rule in RULES if rule != "context the loss needs"
    ]
    assert new.hits == 2 * max(rest) and "twice as many as any other rule" in text
    counts = (len(loss.narrow + new.narrow), len(loss.wide + new.wide))
    assert counts == (1, 5) and "Of the six misses one was too narrow" in text
    attention = score(fresh, "widest head")
    times = statistics.geometric_mean(attention.wide)
    assert len(attention.wide) == attention.tasks
    assert f"too wide on all {attention.tasks}, on average {times:.1f} times" in text


def test_three_seeds_of_every_setting_are_recorded():
    if not record_path("window_advice", FOLDER).exists():
        pytest.skip("nothing is recorded")
    runs = load("window_advice")
    for setting in window_advice.settings(False):
        assert [run.seed for run in runs.where(**setting)] == [0, 1, 2], setting
