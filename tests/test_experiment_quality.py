"""Quality: contenders in pairs, trajectories, sinks, searches, advice on new tasks."""

import itertools
import math
import re

import pytest
import torch

from attn_tutorial import patterns
from attn_tutorial.experiments.data import puzzles
from attn_tutorial.experiments.data.puzzles import PUZZLES
from attn_tutorial.experiments.figures.pairs import (
    differences,
    headline_pairs,
    leads,
    sink_pairs,
    sink_pairs_longer,
)
from attn_tutorial.experiments.models import kv_bytes, mean_bits
from attn_tutorial.experiments.records import Run, Runs
from attn_tutorial.experiments.studies import (
    advice_tasks,
    deep_recall,
    headline,
    headline_adamw,
    language_model,
    layer_search,
    recall,
    sinks,
    trajectories,
)
from attn_tutorial.experiments.tables import table
from attn_tutorial.networks.layers import MultiHeadAttention
from attn_tutorial.networks.sinks import SinkAttention, with_sink
from attn_tutorial.networks.tasks import IGNORE

CPU = torch.device("cpu")


# Headline.


def batches_of(setting, seed, monkeypatch):
    """The first batches that a setting would be trained on, and its first weights."""
    seen = {}

    def look(setting, model, batch_fn, seed):
        generator = torch.Generator().manual_seed(seed)
        seen["batches"] = [batch_fn(generator) for _ in range(3)]
        seen["weights"] = {k: v.clone() for k, v in model.state_dict().items()}
        return [0.0]

    monkeypatch.setattr(language_model, "train_as", look)
    headline.train(setting, seed, CPU)
    return seen["batches"], seen["weights"]


def test_a_seed_draws_the_same_batches_and_weights_for_all(monkeypatch):
    every = [*headline.settings(True), *headline_adamw.settings(True)]
    batches, weights = batches_of(every[0], 3, monkeypatch)
    for setting in every[1:]:
        others, first = batches_of(setting, 3, monkeypatch)
        for one, other in zip(batches, others, strict=True):
            assert all(map(torch.equal, one, other))
        if "num_kv_heads" not in setting:
            assert all(torch.equal(weights[k], first[k]) for k in weights)
    assert not torch.equal(batches_of(every[0], 4, monkeypatch)[0][0][0], batches[0][0])


def test_the_headline_is_trained_like_the_language_models_of_the_book():
    known = {
        s["pattern"]: s for s in language_model.settings(False) if s["equal"] == "steps"
    }
    for setting in headline.settings(False):
        same = known[setting["pattern"]]
        changed = {k for k in setting if setting[k] != same.get(k)}
        assert changed <= {"name", "num_kv_heads"}
    assert not headline.TUNING.changes and not headline_adamw.TUNING.changes


def headline_runs(seeds):
    """Made-up runs: a contender's bits are its place plus what a seed does to all."""
    return Runs(
        Run(s, seed, {"test_bits": place / 100 + seed / 7, "kv_bytes": 1024}, {})
        for place, s in enumerate(headline.settings(True))
        for seed in range(seeds)
    )


def test_pairs_of_the_headline_are_told_and_drawn():
    runs = headline_runs(3)
    text = headline.differences(runs)
    row = next(x for x in text.splitlines() if "local 16 less full" in x)
    assert "| +0.030    | [+0.030, +0.030] | clear" in row
    assert len(text.splitlines()) == 2 + len(headline.PAIRS)
    picture = headline_pairs(runs)
    assert "local 16 less full +0.030 [+0.030, +0.030] (clear), 3 seeds" in picture.alt
    assert "local 16 less full +0.030;" in headline_pairs(headline_runs(1)).alt
    assert len(headline.differences(headline_runs(2)).splitlines()) == 2


def test_an_interval_is_drawn_where_it_lies():
    figure = differences({"a": [1.0, 2.0, 3.0]}, title="t", xlabel="x")
    spans = [
        line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2
    ]
    assert [pytest.approx(span, abs=1e-3) for span in spans[:1]] == [[-0.4841, 4.4841]]


# Bits.


class Uneven(torch.nn.Module):
    """Knows the next byte from position 4 on, and guesses before."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens):
        sure = torch.nn.functional.one_hot((tokens + 1) % 256, 256) * 1e4
        return sure * (torch.arange(tokens.shape[1]) >= 4)[:, None]


def test_bits_are_counted_from_a_position_on():
    rows = torch.arange(7)[:, None] + torch.arange(9)  # (7, 8 + 1)
    assert mean_bits(Uneven(), rows, batch=3) == pytest.approx(4)  # half of 8 bits
    assert mean_bits(Uneven(), rows, first=4) == pytest.approx(0, abs=1e-6)
    assert mean_bits(Uneven(), rows, first=2, batch=2) == pytest.approx(8 / 3)


# Trajectories.


FACTORS = (1, 2, 4, 8, 16)


def trajectory_runs(patterns_of=trajectories.NAMES, seeds=3):
    """Made-up runs: windows lead by less and less, and each seed has its own level."""
    more = dict(zip(trajectories.NAMES, (0.0, -0.4, -0.8), strict=True))
    return Runs(
        Run(
            {**s, "lr": 0.04},
            seed,
            {"test_by_length": [4 + seed + more[s["pattern"]] / f for f in FACTORS]},
            {},
        )
        for s in trajectories.settings(False)
        for seed in range(seeds)
        if s["pattern"] in patterns_of
    )


def test_lengths_double_up_to_the_steps():
    for quick in (False, True):
        setting = trajectories.settings(quick)[0]
        found = trajectories.lengths(setting)
        assert found[-1] == setting["steps"] and len(found) == setting["lengths"]
        assert all(2 * a == b for a, b in itertools.pairwise(found))


def test_a_lead_is_told_at_each_length():
    runs = trajectory_runs()
    assert trajectories.lead(runs, "code", "local 64", 0) == pytest.approx([-0.4] * 3)
    assert trajectories.lead(runs, "code", "local 64", 4) == pytest.approx([-0.025] * 3)
    last = trajectories.report(runs).split("\n\n")[1]
    assert (
        last.count("-0.400 [-0.400, -0.400] (clear)") == 4
    )  # 64 at 125, 3 x 16 at 250
    alt = leads(runs).alt
    assert "local 64, code: -0.400, -0.200, -0.100, -0.050, -0.025" in alt
    assert "local 64, prose: " in alt


def test_one_rate_is_tuned_for_the_longest_training():
    assert not trajectories.TUNING.changes
    setting = trajectories.settings(True)[0]
    result = trajectories.train(setting, 0, CPU)
    assert result["validation_bits"] == result["validation_by_length"][-1]
    assert len(result["test_by_length"]) == setting["lengths"]


# Sinks.


@pytest.mark.parametrize("pattern", [None, patterns.local(2) & patterns.causal()])
def test_a_sink_is_one_more_score_without_a_value(pattern):
    """Against a softmax over keys and sink, written out."""
    torch.manual_seed(0)
    layer = SinkAttention(8, 2, pattern).double()
    layer.sink.data = torch.tensor([0.5, -1.0], dtype=torch.float64)
    x = torch.randn(3, 9, 8, dtype=torch.float64)
    q, k, v = (
        part(x).unflatten(-1, (2, 4)).transpose(1, 2)
        for part in (layer.query, layer.key, layer.value)
    )
    scores = q @ k.mT / 2
    if pattern is not None:
        scores = scores.masked_fill(~patterns.dense_mask(pattern, 9), -math.inf)
    sink = layer.sink[:, None, None].expand(3, 2, 9, 1)
    weights = torch.cat([scores, sink], -1).softmax(-1)[..., :-1]
    expected = layer.output((weights @ v).transpose(1, 2).flatten(-2))
    assert (weights.sum(-1) < 1).all()
    torch.testing.assert_close(layer(x), expected)
    ours, theirs = (
        torch.autograd.grad(y.sum(), layer.sink)[0] for y in (layer(x), expected)
    )
    torch.testing.assert_close(ours, theirs)


def test_a_sink_far_below_all_scores_changes_nothing():
    torch.manual_seed(0)
    pattern = patterns.local(3) & patterns.causal()
    layer, plain = (
        kind(8, 2, pattern, rotary=True) for kind in (SinkAttention, MultiHeadAttention)
    )
    layer.sink.data.fill_(-1e9)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "sink"})
    x = torch.randn(2, 7, 8)
    torch.testing.assert_close(layer(x), plain(x))
    gone = with_sink(torch.ones(1, 2), torch.zeros(1), torch.tensor([1e9]))
    assert gone.abs().max() == 0


def test_each_layer_with_a_sink_has_the_pattern_of_its_setting():
    for setting in sinks.settings(False):
        model = sinks.model_of(setting)
        kind = SinkAttention if setting.get("sink") else MultiHeadAttention
        found = [block.mixer for block in model.blocks]
        assert all(type(mixer) is kind for mixer in found)
        (causal,) = set(sinks.causal_layers(setting))
        assert all(mixer.pattern == causal for mixer in found)


def test_narrow_windows_meet_equally_many_keys_with_and_without_the_first():
    by_name = {setting["name"]: setting for setting in sinks.settings(False)}
    narrow = ("local 16", "local 16, sink", "local 15 and the first")
    assert len({kv_bytes(by_name[name]) for name in narrow}) == 1


@pytest.mark.parametrize("name", sinks.WITHOUT)
def test_a_model_without_its_sink_is_one_with_a_window_alone(name):
    (setting,) = (s for s in sinks.settings(False) if s["name"] == name)
    model = sinks.model_of(setting)
    with torch.no_grad():
        for block in model.blocks:  # an untrained block adds nothing
            torch.nn.init.normal_(block.mixer.output.weight)
            if setting.get("sink"):
                block.mixer.sink.fill_(3.0)
    bare = sinks.without_sink(model, setting)
    width = 15 if "first" in name else int(setting["pattern"].split()[1])
    plain = sinks.model_of({**setting, "pattern": f"local {width}", "sink": False})
    plain.load_state_dict(model.state_dict(), strict=False)
    tokens = torch.randint(256, (1, 40))
    torch.testing.assert_close(bare(tokens), plain(tokens))
    assert not torch.allclose(model(tokens), plain(tokens), atol=1e-3)


def test_pairs_of_sinks_are_told_and_drawn():
    runs = Runs(
        Run(s, seed, {"test_bits": k / 10 + seed, "test_bits_longer": k / 5 + seed}, {})
        for k, s in enumerate(sinks.settings(False))
        for seed in range(3)
    )
    text = sinks.differences(runs)
    row = next(x for x in text.splitlines() if "| local 16, sink less local 16 " in x)
    assert row.count("+0.100 [+0.100, +0.100] (clear)") == 1
    assert row.count("+0.200 [+0.200, +0.200] (clear)") == 1
    assert "local 16, sink less local 16 +0.100" in sink_pairs(runs).alt
    assert "local 16, sink less local 16 +0.200" in sink_pairs_longer(runs).alt


# Layer search.


def test_every_placement_is_there_once_and_equal_numbers_keep_equal_caches():
    found = [setting["pattern"] for setting in layer_search.settings(False)]
    assert len(set(found)) == len(found) == 2 + 4 + 6
    caches = {}
    for setting in layer_search.settings(False):
        full = setting["pattern"].split(", ").count("full")
        caches.setdefault(full, set()).add(kv_bytes(setting))
    assert sorted(caches) == [0, 1, 2, 4]
    assert all(len(sizes) == 1 for sizes in caches.values())
    for count, turns in layer_search.TURNS.items():
        assert len(turns) == count and layer_search.placement(turns) in found


def test_a_search_gives_up_what_costs_least_first():
    """Each layer has a worth; the search keeps the worthiest, and the first is one."""
    worth = {0: 0.1, 1: 0.4, 2: 0.3, 3: 0.2}
    bits = [5 - sum(worth[k] for k in full) for full in layer_search.EVERY]
    assert layer_search.searched(bits, 2) == (1, 2)
    assert layer_search.searched(bits, 1) == (1,)
    assert layer_search.recovered(bits, (1, 2)) == pytest.approx(0.7)
    assert layer_search.recovered(bits, ()) == 0


def test_a_search_may_miss_the_best_pair():
    """Two layers that only help together: given up one by one, one of them goes."""
    bits = [
        5 - (0.5 * {0, 1}.issubset(full)) - 0.1 * (2 in full) - 0.1 * (3 in full)
        for full in map(set, layer_search.EVERY)
    ]
    bits[layer_search.EVERY.index((1, 2, 3))] = 4.0
    assert layer_search.searched(bits, 2) != (0, 1)
    pairs = [full for full in layer_search.EVERY if len(full) == 2]
    best = max(pairs, key=lambda full: layer_search.recovered(bits, full))
    assert best == (0, 1)


def test_a_dense_model_is_switched_in_every_way():
    setting = layer_search.settings(True)[0]
    result = layer_search.train(setting, 0, CPU)
    switched = result["test_switched"]
    assert len(switched) == 16 and switched[-1] == result["test_bits"]
    assert "test_switched" not in layer_search.train(
        {**setting, "stage": "tuning"}, 0, CPU
    )


# Deep recall.


def test_deep_recall_is_recall_with_more_layers_and_steps():
    known = recall.settings(False)[0]
    for setting in deep_recall.settings(False):
        changed = {k for k in setting if setting[k] != known.get(k)}
        assert changed <= {"pattern", "layers", "steps"}
        assert (setting["layers"], setting["steps"]) == (4, 800)
    assert not deep_recall.TUNING.changes


def test_what_guesses_counts_as_untrained():
    def run(seed, first):
        result = {"test_accuracy": 0.5, "test_accuracy_by_band": [first] + [0.1] * 4}
        return Run({**deep_recall.settings(True)[0]}, seed, result, {})

    text = deep_recall.report(Runs([run(0, 0.95), run(1, 0.06), run(2, 0.9)]))
    assert text.splitlines()[2].split("|")[3:5] == [" 3     ", " 2       "]


# Advice on new tasks.


def drawn(name, batch=6, n=64, seed=1):
    return PUZZLES[name].draw(batch, n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PUZZLES)
def test_a_puzzle_has_the_tokens_and_labels_that_it_says(name):
    inputs, targets = drawn(name)
    puzzle = PUZZLES[name]
    assert inputs.shape == targets.shape == (6, 64)
    assert 0 <= inputs.min() and inputs.max() < puzzle.num_tokens
    known = targets[targets != IGNORE]
    assert 0 <= known.min() and known.max() < puzzle.num_labels
    assert (targets != IGNORE).float().mean() > 0.2 and known.unique().numel() > 1
    again = drawn(name)
    assert torch.equal(again[0], inputs) and torch.equal(again[1], targets)


def innermost(tokens):
    """The innermost open bracket, by looking back for one that is not closed."""
    depth = 0
    for token in reversed(tokens):
        depth += (3 <= token < 6) - (token < 3)
        if depth < 0:
            return token + 1
    return 0


ANSWERS = {
    "copy": lambda past: past[-12] if len(past) > 11 else IGNORE,
    "count": lambda past: past[-12:].count(1),
    "largest": lambda past: max(past[-6:]),
    "sum": lambda past: sum(past[-3:]) % 4,
    "brackets": innermost,
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_puzzle_is_answered_from_its_past(name):
    inputs, targets = (x.tolist() for x in drawn(name))
    for tokens, wanted in zip(inputs, targets, strict=True):
        found = [ANSWERS[name](tokens[: i + 1]) for i in range(len(tokens))]
        assert found == wanted


def test_a_key_has_the_value_that_it_had_in_its_section():
    inputs, targets = (x.tolist() for x in drawn("look up"))
    for tokens, wanted in zip(inputs, targets, strict=True):
        for i in range(0, 64, 2):
            start = i - i % 16
            section = dict(
                zip(tokens[start:i:2], tokens[start + 1 : i : 2], strict=True)
            )
            assert wanted[i] == section.get(tokens[i], 4 + IGNORE) - 4
            assert wanted[i + 1] == IGNORE


def test_a_pattern_repeats_from_its_second_time_on():
    inputs, targets = drawn("repeat")
    for tokens, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
        first = next(i for i, target in enumerate(wanted) if target != IGNORE)
        period = (first + 1) // 2
        assert 5 <= period <= 14
        assert tokens[period:] == tokens[:-period]
        assert wanted[first:-1] == tokens[first + 1 :]


def test_blocks_are_sorted_and_words_are_marked():
    blocks = (x.unflatten(1, (8, 8)).flatten(0, 1).tolist() for x in drawn("sort"))
    for (mark, *block), wanted in zip(*blocks, strict=True):
        assert mark == 10 and wanted == [IGNORE, *sorted(block)]
    inputs, marks = (x.tolist() for x in drawn("segment"))
    for letters, begins in zip(inputs, marks, strict=True):
        places = [i for i, begin in enumerate(begins) if begin]
        for start, end in itertools.pairwise(places):
            assert tuple(letters[start:end]) in puzzles._lexicon()


def test_a_chain_goes_mostly_by_its_last_three_symbols():
    inputs, targets = drawn("chain", batch=200)
    triples = inputs.unfold(1, 3, 1) @ torch.tensor([1, 6, 36])
    likely = puzzles._chain()[triples]
    share = (likely == targets[:, 2:]).float().mean()
    assert share.item() == pytest.approx(0.8 + 0.2 / 6, abs=0.02)


def test_text_is_followed_by_itself_and_held_out_text_is_other_text():
    for name in ("program", "numbers"):
        inputs, targets = drawn(name)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
    text = bytes(drawn("numbers")[0][0].tolist()).decode()
    assert re.fullmatch("[a-z ,-]+", text) and "thousand" in text
    held_out = PUZZLES["program"].held_out(4, 64, torch.Generator().manual_seed(1))[0]
    whole = language_model.source_bytes("train").numpy().tobytes()
    assert not all(bytes(row.tolist()) in whole for row in held_out)


def test_every_power_of_two_is_trained_on_every_task():
    found = {(s["task"], s["pattern"]) for s in advice_tasks.settings(False)}
    several = ("full", *(f"local {2**k}" for k in range(6)))
    assert found == {(name, p) for name in PUZZLES for p in several}
    assert len(PUZZLES) >= 10 and not advice_tasks.TUNING.changes


def advice_runs(losses, narrow=4):
    """Made-up runs of one task: the loss of each window; models ask for ``narrow``."""
    known = {"advised_by_loss": narrow, "validation_accuracy": 0.5}
    return Runs(
        Run(
            {"task": "copy", "pattern": pattern, "n": 64, "layers": 2},
            seed,
            {"validation_loss": loss, **known},
            {},
        )
        for pattern, loss in losses.items()
        for seed in range(3)
    )


@pytest.mark.parametrize(
    ("advised", "kind", "lost", "steps"),
    [
        (4, "hit", 0.01, 0),
        (8, "wide", 0.0, 1),
        (9, "wide", 0.0, 2),
        (2, "narrow", 0.5, -1),
    ],
)
def test_advice_is_judged_by_the_loss(advised, kind, lost, steps):
    losses = {"full": 1.0, "local 2": 1.5, "local 4": 1.01, "local 8": 1.0}
    (task,) = advice_tasks.tasks(advice_runs(losses, advised))
    outcome = task.outcome("window on all layers")
    assert task.smallest_as_good() == 4
    assert (outcome.kind, outcome.lost) == (kind, pytest.approx(lost))
    assert outcome.steps == steps


# Tables.


def test_a_bar_in_a_cell_does_not_end_it():
    rows = table(["kept", "keys"], [["prefix 1 | local 15", 17]]).splitlines()
    assert rows[2] == r"| prefix 1 \| local 15 | 17   |"
    assert len({len(row) for row in rows}) == 1
