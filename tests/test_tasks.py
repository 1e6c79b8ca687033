"""The toy data: answers recomputed another way, and the same for the same seed."""

import pytest
import torch

from attn_tutorial.networks import tasks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "draw",
    [
        lambda g: tasks.reverse(3, 5, 7, g),
        lambda g: tasks.latch(3, 40, g),
        lambda g: tasks.translation(3, g),
    ],
)
def test_the_seed_decides_the_batch(draw):
    first, second, third = draw(seeded()), draw(seeded()), draw(seeded(1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(
        a.shape == b.shape and torch.equal(a, b)
        for a, b in zip(first, third, strict=True)
    )


def test_reversed_symbols_are_reversed():
    inputs, targets = tasks.reverse(4, 6, 9, seeded())
    for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert y == list(reversed(x))
    assert inputs.max() <= 8


def test_latch_names_the_most_recent_value():
    inputs, targets = tasks.latch(8, 60, seeded(), num_values=4, max_gap=12)
    for row, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
        held = tasks.IGNORE
        for token, target in zip(row, wanted, strict=True):
            held = token if token < 4 else held
            assert target == held


def test_latch_gaps_are_between_one_and_the_maximum():
    inputs, _ = tasks.latch(64, 200, seeded(), max_gap=10)
    distance = tasks.latch_distance(inputs)
    assert distance.max() == 9
    assert ((inputs < 8) == (distance == 0)).all()
    assert inputs.max() == 11


def test_every_noun_phrase_has_as_many_words_in_french():
    phrases = tasks.noun_phrases()
    assert len(phrases) == 10 * 2 * 11
    assert len(dict(phrases)) == len(phrases)
    for english, french in phrases:
        assert len(english.split()) == len(french.split())


def test_french_words_agree_and_stand_where_they_should():
    french = dict(tasks.noun_phrases())
    assert french["the white cow"] == "la vache blanche"
    assert french["a white horse"] == "un cheval blanc"
    assert french["a new girl"] == "une nouvelle fille"
    assert french["the big train"] == "le grand train"


def test_no_english_phrase_needs_an():
    for english, _ in tasks.noun_phrases():
        words = english.split()
        assert words[0] == "the" or words[1][0] not in "aeiou"


def test_no_french_determiner_or_verb_meets_a_vowel():
    for _, french in tasks.noun_phrases():
        assert french.split()[1][0] not in "aeiouhé"


def test_a_phrase_can_be_held_out():
    pairs = tasks.sentence_pairs(2000, seeded(), without="red car")
    assert not any("red car" in english for english, _ in pairs)
    assert any("red" in english for english, _ in pairs)
    assert any(" car " in english for english, _ in pairs)


def test_words_survive_encoding():
    pairs = tasks.sentence_pairs(20, seeded())
    for language, words in ((0, tasks.ENGLISH), (1, tasks.FRENCH)):
        sentences = [pair[language] for pair in pairs]
        assert tasks.decode(tasks.encode(sentences, words), words) == sentences
    assert tasks.ENGLISH[0] == tasks.FRENCH[0] == tasks.PAD


def test_an_unknown_word_is_named():
    with pytest.raises(ValueError, match=r"unknown words \['robot'\]"):
        tasks.encode(["the robot sees a cat ."], tasks.ENGLISH)


def test_translation_is_shifted_by_one_word():
    source, shifted, target = tasks.translation(16, seeded())
    assert source.shape[0] == shifted.shape[0] == target.shape[0] == 16
    assert (shifted[:, 0] == tasks.FRENCH.index(tasks.START)).all()
    known = target[:, :-1] != tasks.IGNORE
    assert torch.equal(shifted[:, 1:][known], target[:, :-1][known])
    assert ((target == tasks.IGNORE) == (source == 0)).all()
