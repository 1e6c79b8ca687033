"""Exercises: solutions pass, mistakes are named, and submissions are held."""

import ast
import builtins
import csv
import itertools
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT

import attn_tutorial as at
from attn_tutorial import exercises as ex
from attn_tutorial.exercises import gradebook, judging, limits, notebooks, wire
from attn_tutorial.exercises.__main__ import main
from attn_tutorial.exercises.calls import Fault, difference, outcome, same
from attn_tutorial.exercises.collection import CHAPTERS, chapter_of, exercises, find
from attn_tutorial.exercises.exercise import (
    Choice,
    Exercise,
    Function,
    Items,
    Number,
    Several,
)
from attn_tutorial.exercises.grading import Grade, Limits, grade
from attn_tutorial.exercises.judging import Verdict, judge_part
from attn_tutorial.exercises.mistakes import Tally, address
from attn_tutorial.exercises.overview import overview
from attn_tutorial.exercises.quizzes import in_html, quiz_markdown
from attn_tutorial.exercises.recognition import CHANGES

ALL = exercises()
IDS = [exercise.id for exercise in ALL]
FUNCTIONS = [
    pytest.param(part, id=f"{exercise.id}-{part.name}")
    for exercise in ALL
    for part in exercise.parts
    if isinstance(part, Function)
]
# Trains five models, two minutes; its code is run, once, on the page of solutions.
TOO_LONG = {"self-5"}


def page(name):
    return (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8")


# The data.


def test_there_are_enough_and_each_has_a_name_of_its_own():
    assert len(ALL) >= 60
    assert len(set(IDS)) == len(IDS)
    assert {e.kind for e in ALL} == {"predict", "derive", "implement", "diagnose"}
    assert all(1 <= e.difficulty <= 3 and 2 <= e.minutes <= 60 for e in ALL)
    assert all(e.question and e.because and e.parts for e in ALL)


def test_every_exercise_of_the_book_is_here_in_its_chapter():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells)
        for id in re.findall(r"^\*\*Exercise \d+ \(`?([a-z]+-\d+)", text, re.M):
            assert chapter_of(id) == path.stem


def test_the_chapters_are_those_of_the_book_in_their_order():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    found = re.findall(r"file: notebooks/(\w+)", toc)
    assert list(CHAPTERS) == [name for name in found if name in CHAPTERS]
    assert {n for n in found if re.search(r"^## Exercises", chapter(n), re.M)} <= set(
        CHAPTERS
    )


def chapter(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells)


@pytest.mark.parametrize("id", IDS)
def test_a_question_names_what_it_asks_for(id):
    exercise = find(id)
    names = [part.name for part in exercise.parts]
    assert len(set(names)) == len(names)
    if len(names) > 1:
        for part in exercise.parts:
            if type(part) is not Function:  # a function's name is in its empty cell
                assert f"`{part.name}`" in exercise.question
    prose = re.sub(r"```.*?```", "", exercise.question, flags=re.DOTALL)
    assert all(line.count("`") % 2 == 0 for line in prose.splitlines())
    for part in exercise.parts:
        if isinstance(part, Choice):
            letters = list(part.lettered)
            assert all(f"({letter})" in exercise.question for letter in letters)


def test_choices_have_one_right_option_and_a_word_on_each_wrong_one():
    for exercise in ALL:
        for part in exercise.parts:
            if isinstance(part, Choice):
                right = sum(option.right for option in part.options)
                assert right == 1 or (isinstance(part, Several) and right > 1)
                assert all(o.right or o.feedback for o in part.options)


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="kind must be one of .*'guess'"):
        Exercise("x-1", "guess", 1, 1, "Here", "?", (), "")


def headings(name):
    """The headings of a chapter's sections, large and small, in order."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    texts = (c.source for c in cells if c.cell_type == "markdown")
    return [h for text in texts for h in re.findall(r"^###? (.+)$", text, re.M)]


@pytest.mark.parametrize("name", CHAPTERS)
def test_an_exercise_names_one_section_of_its_chapter(name):
    for exercise in exercises(name):
        assert headings(name).count(exercise.section) == 1, exercise.id
        last = ("Summary", "Check yourself", "Exercises")
        assert exercise.section not in last, "none of these teaches it"


@pytest.mark.parametrize("name", CHAPTERS)
def test_an_address_has_the_identifier_that_the_site_gives(name):
    make_id = pytest.importorskip("docutils.nodes").make_id
    for exercise in exercises(name):
        page, _, anchor = address(exercise.id).partition("#")
        assert page == f"notebooks/{name}.html"
        assert anchor == make_id(exercise.section), "as Sphinx does"


def test_an_address_may_have_formulas_and_brackets():
    assert address("self-2").endswith("#why-divide-by-the-square-root-of-d-k")
    assert address("choosing-7").endswith("#b-where-does-it-look")


@pytest.mark.parametrize("call", [find, chapter_of, address, ex.check, ex.passed])
def test_an_unknown_name_gets_the_nearest_one(call):
    with pytest.raises(KeyError, match="did you mean 'local-1'"):
        call("locl-1")


def test_an_unknown_chapter_is_refused():
    with pytest.raises(KeyError, match="no chapter 'nonsense'"):
        exercises("nonsense")


# The numbers of the page of solutions are those of the source.


def entries():
    folded = r"^````\{dropdown\} (\S+)\n:name: \1\n\n(.*?)^````$"
    return dict(re.findall(folded, page("solutions"), re.DOTALL | re.M))


def forms(value):
    """How a page may write a number."""
    plain = {f"{value:,}", f"{value}", f"{value:g}"}
    plain |= {f"{value:.{digits}f}" for digits in range(1, 5)}
    return plain


IN_WORDS = {"self-3": {"at_ten"}, "self-5": {"right"}}


@pytest.mark.parametrize("id", sorted(entries()))
def test_answers_stand_on_the_page_of_solutions(id):
    text = re.sub(r"^>.*\n", "", entries()[id], flags=re.M)  # without the question
    text = text.replace("{,}", ",").replace("\\,", "").replace("_", ",")
    numbers = [p for p in find(id).parts if isinstance(p, Number)]
    missing = [p.name for p in numbers if not any(f in text for f in forms(p.value))]
    assert set(missing) <= IN_WORDS.get(id, set())


# Solutions pass, and empty cells are no mistakes.


def run(source):
    """Run a cell; return the report of its `check`."""
    reports = []

    def check(id, *answer, **answers):
        reports.append(ex.assess(id, *answer, **answers))

    exec(source, {"math": math, "torch": torch, "at": at, "check": check})
    (report,) = reports
    return report


@pytest.mark.parametrize("id", sorted(set(IDS) - TOO_LONG))
def test_the_solution_passes(id):
    report = run(find(id).solution)
    assert report.passed, report
    assert repr(report).startswith(f"{id}: right.")


@pytest.mark.parametrize("id", IDS)
def test_the_empty_cell_says_that_it_is_empty(id):
    report = run(find(id).starter)
    assert {finding.passed for finding in report.findings} == {None}
    said = repr(report)
    assert said.startswith(f"{id} is not answered yet: ") and "\n" not in said


@pytest.mark.parametrize("part", FUNCTIONS)
@pytest.mark.parametrize("seed", [0, 987_654])
def test_the_reference_passes_on_cases_that_are_drawn_anew(part, seed):
    assert judge_part(part, part.reference, seed).passed


# Mistakes are named.


@pytest.mark.parametrize("part", FUNCTIONS)
@pytest.mark.parametrize("seed", [0, 987_654])
def test_each_known_mistake_is_named_as_itself(part, seed):
    assert len(part.mistakes) >= 2
    for mistake in part.mistakes:
        finding = judge_part(part, mistake.function, seed)
        assert finding.passed is False
        assert finding.mistake == mistake.name
        assert mistake.text in finding.text
        assert "expected" in finding.text or "Error" in finding.text


def is_mask(value):
    return isinstance(value, torch.Tensor) and value.dtype == torch.bool


MASKS = [
    part
    for param in FUNCTIONS
    for part in param.values
    if is_mask(part.reference(*next(iter(part.cases(0)))))
]


def laid_over(part, one, other):
    """A function that is wrong wherever one of two wrong masks is."""

    def function(*arguments):
        want = part.reference(*arguments)
        return want ^ ((one(*arguments) ^ want) | (other(*arguments) ^ want))

    return function


def masks_of_its_size(part):
    """The mistakes whose outcomes can be laid over the right ones."""
    cases = list(part.cases(0))
    wanted = [part.reference(*case) for case in cases]
    for mistake in part.mistakes:
        got = [outcome(mistake.function, case, 2.0) for case in cases]
        pairs = zip(got, wanted, strict=True)
        if all(is_mask(x) and x.shape == want.shape for x, want in pairs):
            yield mistake


def overlaid(part):
    """Pairs of mistakes in one mask, with what is said of both at once."""
    for one, other in itertools.combinations(masks_of_its_size(part), 2):
        function = laid_over(part, one.function, other.function)
        yield one, other, judge_part(part, function)


def test_two_mistakes_in_one_mask_are_both_named():
    named = []
    for part in MASKS:
        known = {mistake.name for mistake in part.mistakes} | CHANGES.keys()
        for one, other, finding in overlaid(part):
            if finding.mistake in known:  # one of them hides the other
                continue
            named.append(finding.mistake == f"{one.name} + {other.name}")
            if named[-1]:
                assert one.text in finding.text and other.text in finding.text
            else:  # two others that make the same masks
                assert set(finding.mistake.split(" + ")) <= known
    assert len(named) > 100 and sum(named) >= 0.95 * len(named)


def pair_kept(rule):
    """A mask of n tokens from a rule for i - j and w, bool (n, n)."""

    def causal_window(n, w):
        i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
        return rule(i - j, w)

    return causal_window


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        (lambda d, w: d.abs() < w, "one key too few + mirrored"),
        (lambda d, w: (d > 0) & (d <= w + 1), "one key too many + itself forgotten"),
        (lambda d, w: (-d >= 0) & (-d <= w + 1), "one key too many + transposed"),
        (lambda d, w: ~((d >= 0) & (d < w)), "one key too few + inverted"),
        (lambda d, w: ~((-d >= 0) & (-d <= w)), "transposed + inverted"),
        (lambda d, w: ((d >= 0) & (d < w)).long(), "one key too few + integers"),
    ],
)
def test_two_mistakes_that_a_student_makes_are_both_named(rule, named):
    (part,) = find("local-8").parts
    finding = judge_part(part, pair_kept(rule))
    assert finding.mistake == named
    assert finding.text.startswith("These are two mistakes at once. ")
    assert "causal_window(n=" in finding.text, "with the smallest example"


def test_each_known_wrong_number_is_named():
    for exercise in ALL:
        for part in exercise.parts:
            if isinstance(part, Number | Items):
                assert judge_part(part, part.value).passed
                for value, text in part.wrong.items():
                    finding = judge_part(part, value)
                    assert not finding.passed, (exercise.id, value)
                    assert text in finding.text, (exercise.id, value)


def test_each_option_is_answered():
    for exercise in ALL:
        for part in exercise.parts:
            if type(part) is Choice:
                for letter, option in part.lettered.items():
                    finding = judge_part(part, letter.upper())
                    assert finding.passed == option.right
                    assert option.right or option.feedback in finding.text


def looped_window(n, w, start, stop):
    """A mask that a student wrote with two loops."""
    keep = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        for j in range(max(0, i + start), min(n, i + stop)):
            keep[i, j] = True
    return keep


def without_root(q, k, v):
    weights = torch.einsum("...id,...jd->...ij", q, k)
    weights = (weights - weights.max(-1, keepdim=True)[0]).exp()
    return torch.einsum("...ij,...jd->...id", weights / weights.sum(-1)[..., None], v)


def later_masked(q, k, v):
    weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.size(-1)), dim=-1)
    n = q.size(-2)
    keep = torch.tensor([[float(j <= i) for j in range(n)] for i in range(n)])
    return (weights * keep.to(weights.dtype)) @ v


def heads_in_one_go(x, heads):
    b, n, width = x.size()
    return x.view(b, heads, n, width // heads)


def ring_of_lists(t, slots):
    kept = list(range(t))[-slots:]
    return kept + [-1] * (slots - len(kept))


def natural_entropy(weights):
    return torch.distributions.Categorical(probs=weights).entropy()


def fetch_from_beside(lengths, rank, w):
    left = lengths[rank - 1] if rank > 0 else 0
    right = lengths[rank + 1] if rank < len(lengths) - 1 else 0
    return [min(left, w), min(right, w)] if lengths[rank] > 0 else [0, 0]


def to_be_added(n, w):
    return torch.zeros(n, n).masked_fill(~looped_window(n, w, -w, 1), -math.inf)


def softmax_first(q, k, v):
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.size(-1)), 0) @ v


def causal_by_width(q, k, v):
    scores = q @ k.transpose(-1, -2) / q.size(-1)
    future = torch.ones_like(scores).triu(1) > 0
    return torch.softmax(scores.masked_fill(future, -math.inf), -1) @ v


def columns_of_attention(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).mT


WRITTEN_ELSEWHERE = {
    "to be added": ("local-8", to_be_added),
    "first axis": ("self-7", softmax_first),
    "divided by d": ("self-8", causal_by_width),
    "result transposed": ("self-7", columns_of_attention),
    "one key too many": ("local-8", lambda n, w: looped_window(n, w, -w - 1, 1)),
    "one key too few": ("local-8", lambda n, w: looped_window(n, w, 1 - w, 1)),
    "causal forgotten": ("local-8", lambda n, w: looped_window(n, w, -w, w + 1)),
    "itself forgotten": ("local-8", lambda n, w: looped_window(n, w, -w, 0)),
    "transposed": ("local-8", lambda n, w: looped_window(n, w, 0, w + 1)),
    "inverted": ("local-8", lambda n, w: ~looped_window(n, w, -w, 1)),
    "integers": ("local-8", lambda n, w: looped_window(n, w, -w, 1).long()),
    "half open": ("local-7", lambda n, w: looped_window(n, w, -w, w)),
    "not divided": ("self-7", without_root),
    "softmax before masking": ("self-8", later_masked),
    "reshaped at once": ("self-9", heads_in_one_go),
    "in order of the tokens": ("decoding-7", ring_of_lists),
    "nats": ("inside-7", natural_entropy),
    "neighbours only": ("devices-7", fetch_from_beside),
    "top left": ("windows-7", lambda q, k: torch.ones(q, k).tril() > 0),
    "ends forgotten": ("local-10", lambda n, w: sum(2 * w + 1 for _ in range(n))),
}


@pytest.mark.parametrize("name", WRITTEN_ELSEWHERE)
def test_a_mistake_is_known_however_it_is_written(name):
    id, function = WRITTEN_ELSEWHERE[name]
    (finding,) = ex.assess(id, function).findings
    assert finding.mistake == name, finding.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (torch.Tensor.numpy, "gives a list or an array of NumPy, expected a tensor"),
        (torch.Tensor.tolist, "gives a list or an array of NumPy, expected a tensor"),
        (lambda keep: (keep, keep), "gives 2 things, expected one tensor"),
    ],
)
def test_what_is_no_tensor_is_told(change, said):
    report = ex.assess("local-8", lambda n, w: change(looped_window(n, w, -w, 1)))
    assert said in repr(report)


def test_the_example_is_the_smallest():
    one_too_many = WRITTEN_ELSEWHERE["one key too many"][1]
    text = repr(ex.assess("local-8", one_too_many))
    assert text == (
        "local-8: This keeps w + 1 keys to the left, one too many. "
        "causal_window(n=2, w=0): position 1 sees 0, 1, expected 1."
    )


def test_an_unknown_mistake_gets_its_smallest_example():
    def every_third(n, w):
        keep = looped_window(n, w, -w, 1)
        keep[3:4] = False
        return keep

    text = repr(ex.assess("local-8", every_third))
    expected = "causal_window(n=4, w=0): position 3 sees nothing, expected 3."
    assert text == f"local-8: not right. The smallest example: {expected}"


# Answers of any kind.


@pytest.mark.parametrize(
    "answer",
    [
        20_890,
        20_890.0,
        np.int64(20_890),
        np.array(20_890),
        torch.tensor(20_890),
        torch.tensor([20_890.0]),
    ],
)
def test_a_number_may_be_of_any_library(answer):
    report = ex.assess("local-1", pairs=answer)
    assert [f.passed for f in report.findings] == [True, None]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("20890", "not a number: '20890'"),
        (True, "not a number: True"),
        (None, "not a number: None"),
        (torch.ones(2), "not a number"),
        (float("nan"), "It is not a number at all."),
        (math.inf, "It is too large."),
        (10**400, "It is too large."),
        (-(10**400), "It is too small."),
        (20_889, "It is off by one."),
        (2 * 20_890, "exactly twice the right value"),
        (10_445, "exactly half of the right value"),
        (4 * 20_890, "exactly four times"),
        (-20_890, "The sign is wrong."),
        (7, "It is too small."),
    ],
)
def test_a_wrong_number_is_told(answer, said):
    assert said in repr(ex.assess("local-1", pairs=answer))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (8, "a list was asked for"),
        ([1, 2, 3], "there are 6 of them, not 3"),
        ([0, 1, 2, 3, 4, 9], "Look again at place 5"),
        ([0, 1, 2, 3, 4, True], "Look again at place 5"),
    ],
)
def test_a_wrong_list_is_told(answer, said):
    assert said in repr(ex.assess("sparse-4", rows=answer))


@pytest.mark.parametrize(
    "answer", [(49, 50), [49, 50], {50, 49}, torch.tensor([49, 50]), np.array([49, 50])]
)
def test_a_list_may_be_of_any_library(answer):
    assert ex.assess("sparse-2", positions=answer).findings[1].passed


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("z", "choose one of a, b, c, d; got 'z'"),
        (2, "choose one of a, b, c, d; got 2"),
        (" B ", "right"),
    ],
)
def test_a_choice_is_a_letter(answer, said):
    assert said in repr(ex.assess("local-11", answer))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("abdf", "right."),
        (["f", "A", "b", "d"], "right."),
        ("a, b, d, f", "right."),
        ("ab", "what you name holds, and 2 more"),
        ("abce", "not (c)."),
        ("xyz", "name some of a, b, c, d, e, f"),
        (3, "name some of"),
    ],
)
def test_several_are_letters_in_any_order(answer, said):
    assert said in repr(ex.assess("sparsity-6", answer))


@pytest.mark.parametrize(
    ("agree", "half", "passed"),
    [
        ([2, 2, 2], [1, 1, 5], [True, True]),
        ([1, 1, 5], [1, 1, 1], [False, False]),
        ([1, 1], 3, [False, False]),
        ([1, 16 / 3, 1], [1, 16 / 3, 16], [False, False]),
    ],
)
def test_an_example_is_judged_by_its_property(agree, half, passed):
    report = ex.assess("inside-4", agree=agree, half=half)
    assert [finding.passed for finding in report.findings] == passed


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (((1,), {}), "name the answers of local-1: pairs, flops"),
        (((), {"pears": 1}), "local-1 asks for pairs, flops, got pears"),
        (((1, 2), {}), "name the answers"),
    ],
)
def test_answers_have_names(answers, said):
    with pytest.raises(TypeError, match=said):
        ex.assess("local-1", *answers[0], **answers[1])


def test_check_prints_and_remembers(capsys):
    assert ex.check("local-11", "b") is None
    assert ex.passed("local-11")
    ex.check("local-11", "a")
    assert not ex.passed("local-11")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("local-11: right.") and "not (a)" in said[1]


# Functions that crash, hang, print or change their input.


def test_a_crash_is_told_with_its_case():
    def divides(n, w):
        return torch.ones(n, n) / (w // 0)

    text = repr(ex.assess("local-8", divides))
    assert "causal_window(n=1, w=0): ZeroDivisionError" in text


def test_an_endless_loop_is_stopped_soon():
    def hangs(n, w):
        while True:
            try:
                time.sleep(0)
            except Exception:
                pass

    start = time.monotonic()
    text = repr(ex.assess("local-8", hangs))
    assert time.monotonic() - start < 60
    assert "no answer after 2 s of computing: a loop that never ends?" in text


def test_a_busy_machine_makes_no_answer_wrong(monkeypatch):
    """What stands still for longer than the limit, and computes little, has time."""
    monkeypatch.setattr(judging, "CALL_SECONDS", 0.2)
    right, naps = find("local-8").parts[0].reference, [0.3]

    def sleepy(n, w):
        time.sleep(naps.pop() if naps else 0)
        return right(n, w)

    assert ex.assess("local-8", sleepy).passed


def test_what_sleeps_is_not_called_a_loop(monkeypatch):
    monkeypatch.setattr(judging, "CALL_SECONDS", 0.1)
    text = repr(ex.assess("local-8", lambda n, w: time.sleep(600)))
    assert "no answer within 1 s, and less than 0.1 s of them" in text
    assert "does it sleep, or wait for something?" in text and "loop" not in text


def test_the_time_limit_holds_in_other_threads():
    stopped = []

    def run(step, seconds):
        try:
            with limits.within(seconds):
                while True:
                    step()
        except limits.TooSlow as over:
            stopped.append(type(over))

    for step, seconds in ((int, 0.2), (lambda: time.sleep(0.01), 0.1)):
        thread = threading.Thread(target=run, args=(step, seconds))
        thread.start()
        thread.join(timeout=60)
    assert stopped == [limits.TooSlow, limits.TooLong]


def test_the_time_limit_leaves_nothing_behind():
    with limits.within(0.05):
        pass
    time.sleep(0.1)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda n, w: sys.exit(3), "SystemExit: 3"),
        (lambda n: n, "TypeError"),
        (lambda n, w: "no mask", "gives 'no mask', expected a tensor"),
        (lambda n, w: torch.ones(n), "gives shape (1,), expected (1, 1)"),
        (lambda n, w: torch.ones(n, n).half(), "gives torch.float16"),
        (5, "a function of n, w was asked for, got 5"),
    ],
)
def test_what_is_no_answer_is_told(function, said):
    assert said in repr(ex.assess("local-8", function))


def test_deep_recursion_is_told():
    def deeper(n, w):
        return deeper(n, w)

    assert "RecursionError" in repr(ex.assess("local-8", deeper))


def test_changing_the_input_is_told():
    def in_place(scores):
        weights = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
        return weights / weights.sum(-1, keepdim=True)

    assert "changes its input" in repr(ex.assess("bill-7", in_place))


def test_what_a_function_prints_is_not_shown(capsys):
    right = find("local-8").parts[0].reference

    def talks(n, w):
        print("debugging" * 1000)
        return right(n, w)

    assert ex.assess("local-8", talks).passed
    assert capsys.readouterr().out == ""


def test_interrupting_is_possible():
    def interrupted(n, w):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ex.assess("local-8", interrupted)


# Quizzes.


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_quiz_has_a_word_on_every_option(chapter):
    questions = ex.quiz(chapter)
    assert len(questions) >= 4
    for question in questions:
        assert sum(option.right for option in question.options) == 1
        assert len(question.options) >= 3
        assert all(len(option.feedback) > 10 for option in question.options)
        assert len({option.text for option in question.options}) >= 3


def test_the_right_option_stands_in_different_places():
    places = [
        [option.right for option in question.options].index(True)
        for chapter in CHAPTERS
        for question in ex.quiz(chapter)
    ]
    assert all(0.2 < places.count(p) / len(places) < 0.6 for p in (0, 1))
    assert places.count(2) > 3


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_quiz_is_markdown_that_needs_no_script(chapter):
    text = quiz_markdown(chapter)
    summaries = re.findall(r"<summary>(.*?)</summary>", text)
    options = sum(len(question.options) for question in ex.quiz(chapter))
    assert len(summaries) == options == text.count("\n\n</details>")
    assert text.count('<details class="choice right">') == len(ex.quiz(chapter))
    assert not re.search(r"[$\\`{}]", "".join(summaries))
    assert set(re.findall(r"</?(\w+)", "".join(summaries))) <= {"sub", "sup"}
    assert re.findall(r"<details[^>]*><summary>.*</summary>\n(?!\n)", text) == []
    assert "script" not in text and "onclick" not in text


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("$n^2$ pairs", "n<sup>2</sup> pairs"),
        (r"$w \le b$", "w ≤ b"),
        (r"$2r/\beta$", "2r/β"),
        (r"$e^{\text{old top}}$", "e<sup>old top</sup>"),
        ("`a < b` & c", "a &lt; b &amp; c"),
    ],
)
def test_summaries_are_html(text, html):
    assert in_html(text) == html


# Notebooks.


@pytest.mark.parametrize("variant", notebooks.VARIANTS)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_notebook_is_valid_and_asks_everything(chapter, variant):
    made = notebooks.notebook(chapter, variant)
    nbformat.validate(made)
    text = json.dumps(made)
    assert all(f"(`{e.id}`" in text for e in exercises(chapter))
    assert ("BEGIN SOLUTION" in text) == (variant == "nbgrader")


def test_a_student_s_notebook_gives_nothing_away():
    made = notebooks.notebook("local_attention", "student")
    text = json.dumps(made, ensure_ascii=False)
    for exercise in exercises("local_attention"):
        assert exercise.because not in text
        assert all(m.text not in text for p in exercise.parts for m in mistakes_of(p))


def mistakes_of(part):
    return part.mistakes if isinstance(part, Function) else ()


def test_an_instructor_s_notebook_knows_the_mistakes():
    text = json.dumps(notebooks.notebook("local_attention", "instructor"))
    assert "This keeps w + 1 keys to the left" in text
    assert "The ends are missing: the first and the last 10 tokens" in text
    assert "One key too few costs a little" in text


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="variant must be one of .*'teacher'"):
        notebooks.notebook("local_attention", "teacher")


def chapter_with(*sources):
    blank = {"cell_type": "markdown", "metadata": {}}
    cells = [{**blank, "id": f"old-{i}", "source": s} for i, s in enumerate(sources)]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


OLD = "Before.\n\n## Exercises\n\n**Exercise 1 (local-1).** Old.\n\n## Summary\n\nEnd."


@pytest.mark.parametrize(
    "sources", [(OLD,), (OLD.split("\n\n## Summary")[0], "## Summary\n\nEnd.")]
)
def test_cells_take_the_place_of_the_list_at_the_end(sources):
    old = chapter_with("# Title", *sources, "Last.")
    made = notebooks.insert(old, "local_attention", quiz_markdown("local_attention"))
    text = ["".join(cell["source"]) for cell in made["cells"]]
    assert text[:4] == ["# Title", "Before.", "## Summary\n\nEnd.", "Last."]
    assert text[4].startswith("## Check yourself")
    assert text[5].startswith("## Exercises") and "Old." not in "".join(text)
    assert text[-1] == 'check("local-11", ...)'
    assert text.count('check("local-1", pairs=..., flops=...)') == 1
    nbformat.validate(nbformat.from_dict(made))
    for quiz in ("", quiz_markdown("local_attention")):
        again = notebooks.insert(made, "local_attention", quiz)
        assert ["".join(c["source"]) for c in again["cells"]] == text


def test_cells_that_stay_keep_their_outputs():
    made = notebooks.insert(chapter_with(OLD), "local_attention")
    for cell in made["cells"]:
        cell["metadata"] = {"tags": ["run"]}
    changed = next(c for c in made["cells"] if c["id"] == "local-2-answer")
    changed["source"] = "an answer"
    again = notebooks.insert(made, "local_attention")
    anew = [c["id"] for c in again["cells"] if not c["metadata"]]
    assert anew == ["local-2-answer"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_the_cells_of_the_source(chapter):
    path = ROOT / f"notebooks/{chapter}.ipynb"
    found = json.loads(path.read_text(encoding="utf-8"))
    made = notebooks.insert(found, chapter, quiz_markdown(chapter))
    sources = [["".join(c["source"]) for c in nb["cells"]] for nb in (found, made)]
    assert sources[0] == sources[1], "stale: see An exercise in CONTRIBUTING.md"


def bound(tree):
    """Names that code binds, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]
        elif isinstance(node, ast.FunctionDef | ast.arg):
            yield getattr(node, "name", None) or node.arg


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_what_its_solutions_use(chapter):
    path = ROOT / f"notebooks/{chapter}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    text = "\n".join(
        re.sub(r"^(\s*)[%!].*$", r"\1pass", cell, flags=re.M) for cell in code
    )
    known = set(bound(ast.parse(text))) | set(dir(builtins))
    for exercise in exercises(chapter):
        tree = ast.parse(exercise.solution)
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        assert used <= known | set(bound(tree)), exercise.id


def test_a_chapter_without_the_section_is_refused():
    with pytest.raises(ValueError, match="must have one section of exercises, has 0"):
        notebooks.insert(chapter_with("# Title"), "local_attention")


def test_entries_for_the_page_of_solutions_have_its_form():
    text = notebooks.solutions(exercises("local_attention")) + "\n"
    folded = r"^````\{dropdown\} (\S+)\n:name: \1\n\n(.*?)^````$"
    found = dict(re.findall(folded, text, re.DOTALL | re.M))
    assert list(found) == [e.id for e in exercises("local_attention")]
    for entry in found.values():
        for block in re.findall(r"```python\n(.*?)```", entry, re.DOTALL):
            assert "check(" not in block
            exec(block, {"math": math, "torch": torch, "at": at})


def test_the_overview_is_the_one_on_its_page():
    made = re.search(
        r"<!-- overview -->\n\n(.*?)\n\n<!-- end -->", page("exercises"), re.S
    )
    assert made[1] == overview(), "stale: see An exercise in CONTRIBUTING.md"


# The core does without: tests/test_around.py says what it imports.


def test_the_core_finds_them_on_first_use():
    assert at.exercises.check is ex.check


# Values between two processes.


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -0.5,
        math.inf,
        "b",
        (1, (2, "c")),
        torch.tensor([[True, False]]),
        torch.arange(6).reshape(2, 3),
        torch.randn(2, 3).double(),
        torch.zeros(0, 4),
        torch.tensor(2.5),
        torch.randn(3, 2).half().mT,
        Fault("error", "ValueError: no"),
    ],
)
def test_a_value_crosses_as_it_is(value):
    back = wire.decode(json.loads(json.dumps(wire.encode(value))))
    if isinstance(value, torch.Tensor):
        assert back.dtype == value.dtype and torch.equal(back, value)
    else:
        assert back == value


def test_nan_crosses():
    assert math.isnan(wire.decode(json.loads(json.dumps(wire.encode(math.nan)))))


@pytest.mark.parametrize(
    "value",
    [
        {"tensor": "AAAA", "shape": [10**9], "dtype": "torch.float32"},
        {"tensor": "AAAA", "shape": [-1], "dtype": "torch.float32"},
        {"tensor": "AAAA", "shape": "x", "dtype": "torch.float32"},
        {"tensor": "AAAA", "shape": [1], "dtype": "object"},
        {"tensor": "Ag==", "shape": [1], "dtype": "torch.bool"},
        {"tensor": "!", "shape": [1], "dtype": "torch.bool"},
        {"reduce": "os.system"},
        [[[{}]]],
    ],
)
def test_what_is_no_value_is_refused(value):
    with pytest.raises((ValueError, RuntimeError)):
        wire.decode(value)


@pytest.mark.parametrize("value", [object(), 10**100, torch.zeros(2**19), {"a": 1}])
def test_what_is_no_data_becomes_a_name(value):
    back = wire.decode(json.loads(json.dumps(wire.encode(value))))
    assert repr(back).startswith("<") and back != value


# With nbgrader, where it is installed.


def nbgrader(course, *arguments):
    command = [sys.executable, "-m", "nbgrader", *arguments]
    places = {"PYTHONPATH": str(ROOT), "HOME": str(course), "OMP_NUM_THREADS": "1"}
    places["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=course, env=os.environ | places, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def filled_in(cell):
    """A student writes the solution of the first exercise, and a mistake elsewhere."""
    if cell["id"] == "local-1-answer":
        cell["source"] = find("local-1").solution
    if cell["id"] == "local-8-answer":
        mistake = "def causal_window(n, w):\n    return torch.ones(n, n).tril() > 0\n"
        cell["source"] = mistake + 'check("local-8", causal_window)'
    return cell


def test_nbgrader_takes_solutions_out_and_grades(tmp_path):
    pytest.importorskip("nbgrader")
    folder = tmp_path / "source" / "windows"
    folder.mkdir(parents=True)
    made = notebooks.notebook("local_attention", "nbgrader")
    notebooks.write(made, folder / "local.ipynb")
    (tmp_path / "nbgrader_config.py").write_text("")
    nbgrader(tmp_path, "generate_assignment", "windows")
    released = tmp_path / "release" / "windows" / "local.ipynb"
    handed = json.loads(released.read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in handed["cells"])
    assert "1000 * 21 - 10 * 11" not in text
    for exercise in exercises("local_attention"):
        assert exercise.because not in text
        assert all(m.text not in text for p in exercise.parts for m in mistakes_of(p))
    handed["cells"] = [filled_in(cell) for cell in handed["cells"]]
    own = tmp_path / "submitted" / "student" / "windows"
    own.mkdir(parents=True)
    notebooks.write(handed, own / "local.ipynb")
    nbgrader(tmp_path, "autograde", "windows")
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{tmp_path}/gradebook.db") as book:
        found = book.find_submission_notebook("local", "windows", "student")
        scores = {grade.name: grade.auto_score for grade in found.grades}
    assert scores["local-1-test"] == find("local-1").difficulty
    assert sum(scores.values()) == scores["local-1-test"]


# The grader.

QUICK = Limits(seconds=60, case_seconds=1.0, memory=2**31)
RIGHT = 'check("local-11", "b")'
linux = pytest.mark.skipif(sys.platform != "linux", reason="walls of Linux")


def handed_in(*sources):
    cells = [{"cell_type": "code", "source": source} for source in sources]
    return {"cells": cells}


def graded(*sources, seconds=60, **limits):
    return grade(handed_in(*sources), limits=Limits(seconds=seconds, **limits))


def worth(chapter):
    return sum(exercise.difficulty for exercise in exercises(chapter))


def test_solutions_get_all_points_and_empty_cells_none():
    full = grade(notebooks.notebook("sparse_attention", "solution"), "sparse_attention")
    assert full.ended == "finished" and full.errors == []
    assert full.points == full.as_json()["possible"] == worth("sparse_attention")
    empty = grade(notebooks.notebook("sparse_attention", "student"), "sparse_attention")
    assert empty.points == 0
    said = [part["text"] for r in empty.results for part in r["parts"]]
    assert all("not answered yet" in text for text in said)


@pytest.mark.parametrize("variant", ["instructor", "nbgrader"])
def test_instructors_notebooks_are_graded_too(variant):
    made = notebooks.notebook("backward", variant)
    assert grade(made, "backward").points == grade(made).as_json()["possible"]


def test_a_mistake_is_named_in_the_grade():
    wrong = "def causal_window(n, w):\n    return torch.ones(n, n).tril().bool()\n"
    found = graded(wrong + 'check("local-8", causal_window)', RIGHT)
    assert [r["passed"] for r in found.results] == [False, True]
    assert found.results[0]["parts"][0]["mistake"] == "window forgotten"
    assert found.points == 2


def test_parts_share_the_points():
    found = graded('check("local-1", pairs=20_890, flops=1)')
    assert found.points == 0.5


def test_the_last_answer_counts_and_errors_do_not_end_the_run():
    found = graded("%pip install x\n!ls", "1 / 0", 'check("local-11", "a")', RIGHT)
    assert found.points == 2 and found.ended == "finished"
    assert found.errors == ["cell 1: ZeroDivisionError: division by zero"]


def test_cells_for_ipython_are_skipped_with_a_note():
    hidden = "%%bash\nfor f in *; do echo $f; done"
    found = graded(hidden, "\n%%html\n<b>x</b>", "%%time\n" + RIGHT)
    assert found.points == 2 and found.errors == []
    assert found.notes == [
        "cell 0: skipped, since %%bash is not run here",
        "cell 1: skipped, since %%html is not run here",
    ]


def test_lines_for_ipython_take_no_python_with_them():
    lines = "%time keys = 40\n!ls\ntorch.ones?\n?torch\n%matplotlib inline"
    folded = "more = (100\n  % 60)\nassert more == 40"
    found = graded(lines + "\nassert keys == 40", folded, RIGHT)
    assert found.points == 2 and found.errors == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("class Mine(BaseException): pass\nraise Mine('x')", "Mine: x"),
    ],
)
def test_what_ends_a_cell_does_not_end_the_run(source, said):
    found = graded(source, RIGHT)
    assert found.points == 2 and found.ended == "finished"
    (error,) = found.errors
    assert error.startswith("cell 0: ") and error.endswith(said)


def test_a_chapter_s_exercises_count_even_if_they_are_taken_out():
    found = grade(handed_in(RIGHT), "local_attention", QUICK)
    assert (found.points, len(found.results)) == (2, len(exercises("local_attention")))


def test_cases_are_drawn_anew():
    """A function that knows the cases of the notebook by heart does not pass."""
    part = find("local-8").parts[0]
    known = {case: part.reference(*case).tolist() for case in part.cases(0)}
    learned = f"""
known = {known!r}
def causal_window(n, w):
    return torch.tensor(known.get((n, w), []), dtype=torch.bool).reshape(n, -1)
check("local-8", causal_window)
"""
    assert not graded(learned).results[0]["passed"]


# Hostile submissions. Each tries something, and answers right afterwards: the answer
# counts, and what was tried did not happen.

OUTSIDE = "outside.txt"
TRIES = {
    "reads passwords": "found = open('/etc/passwd').read()",
    "reads passwords without open": (
        "import os\nfound = os.read(os.open('/etc/passwd', os.O_RDONLY), 100)"
    ),
    "reads the solutions": (
        "from attn_tutorial.exercises.chapters import local_attention"
    ),
    "finds the solutions": "import attn_tutorial.exercises as e\ne.find('local-1')",
    "reads the page of solutions": "open({root!r} + '/book/solutions.md').read()",
    "reads what is said": "open({root!r} + '/attn_tutorial/exercises/zh.json').read()",
    "lists the questions": (
        "import os\nos.listdir({root!r} + '/attn_tutorial/exercises/questions')"
    ),
    "lists the root": "import os\nos.listdir('/')",
    "deletes a file": "import os\nos.remove({outside!r})",
    "overwrites a file": "open({outside!r}, 'w').write('gone')",
    "truncates a file": "import os\nos.truncate({outside!r}, 0)",
    "renames a file": "import os\nos.rename({outside!r}, 'mine')",
    "deletes a tree": "import os, shutil\nshutil.rmtree(os.path.dirname({outside!r}))",
    "links to a file": (
        "import os\nos.symlink({outside!r}, 'x')\nopen('x', 'w').write('gone')"
    ),
    "climbs out": "open('../' * 20 + {outside!r}, 'a').write('gone')",
    "opens a socket": "import socket\nsocket.create_connection(('127.0.0.1', {port}))",
    "asks the web": (
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}')"
    ),
    "forks": "import os\nos.fork()",
    "starts a program": "import subprocess as s\ns.run(['touch', {outside!r} + '2'])",
    "asks a shell": "import os\nif os.system('touch ' + {outside!r} + '2'): 1 / 0",
    "becomes a program": "import os\nos.execv('/bin/true', ['true'])",
    "signals its parent": "import os\nos.kill(os.getppid(), 0)",
    "raises its limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2**40, 2**40))"
    ),
    "writes a large file": (
        "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "f = open('large', 'wb')\n"
        "for _ in range(100): f.write(b'x' * 2**20)\nf.flush()"
    ),
    "opens many files": "kept = [open('f' + str(i), 'w') for i in range(1000)]",
    "starts processes": (
        "import multiprocessing as m\np = m.get_context('fork').Process(target=print)\n"
        "p.start()"
    ),
    "eats memory": "found = torch.ones(2**33)",
    "leaves by exit": "import sys\nsys.exit(0)",
}


@pytest.fixture
def outside(tmp_path):
    path = tmp_path / OUTSIDE
    path.write_text("kept")
    return path


def groups_of_tries():
    """What leaves nothing behind is tried in one submission, a cell each."""
    alone = {"writes a large file", "opens many files", "eats memory", "leaves by exit"}
    rest = [name for name in TRIES if name not in alone]
    return [rest, *([name] for name in sorted(alone))]


@linux
@pytest.mark.parametrize("names", groups_of_tries(), ids=lambda names: names[-1])
def test_a_submission_gets_nowhere(names, outside):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        facts = {"outside": str(outside), "root": str(ROOT)}
        facts["port"] = server.getsockname()[1]
        found = graded(*(TRIES[name].format(**facts) for name in names), RIGHT)
        with pytest.raises(TimeoutError):
            server.accept()
    assert outside.read_text() == "kept"
    assert [p.name for p in outside.parent.iterdir()] == [OUTSIDE]
    assert len(found.errors) == len(names), (found.ended, found.errors, found.printed)
    assert found.points == 2 and found.ended == "finished"


# Below Python: without the audit hook, the kernel holds.
BELOW = {
    "reads passwords": "ok = libc.open(b'/etc/passwd', 0) >= 0",
    "overwrites a file": "ok = libc.open({outside!r}.encode(), 1) >= 0",
    "deletes a file": "ok = libc.unlink({outside!r}.encode()) == 0",
    "forks": "ok = libc.fork() >= 0",
    "opens a socket": "ok = libc.socket(2, 1, 0) >= 0",
    "signals its parent": "ok = libc.kill(os.getppid(), 0) == 0",
    "has its parent signalled": "ok = libc.fcntl(1, 8, os.getppid()) == 0",
    "and by a longer way": (
        "ok = libc.fcntl(1, 15, (ctypes.c_int * 2)(1, os.getppid())) == 0"
    ),
    "becomes a program": "ok = libc.execv(b'/bin/true', None) == 0",
    "mounts": "ok = libc.mount(b'x', b'/mnt', b'tmpfs', 0, None) == 0",
    "raises its limits": (
        "ok = libc.setrlimit(1, (ctypes.c_ulong * 2)(2**40, 2**40)) == 0"
    ),
}


WALLS = {"files", "system calls", "network"}


@linux
def test_the_kernel_holds_without_the_hook(outside):
    tries = "".join(
        f"{text.format(outside=str(outside))}\ndone[{name!r}] = ok\n"
        for name, text in BELOW.items()
    )
    code = f"""
import ctypes, json, os, sys
from pathlib import Path
from attn_tutorial.exercises import confinement
confinement._audit = lambda *arguments: False
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(sys.argv[1])
walls = confinement.confine(Path(sys.argv[1]), [Path(sys.prefix)], [], 2**32)
print(json.dumps(walls), flush=True)
done = {{}}
if not {WALLS} <= set(walls): sys.exit()
{tries}
print(json.dumps(done))
"""
    folder = outside.parent / "own"
    folder.mkdir()
    found = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    walls, *done = map(json.loads, found.stdout.splitlines())
    if not WALLS <= set(walls):
        pytest.skip(f"this kernel has no other walls than {walls}")
    assert done == [dict.fromkeys(BELOW, False)]
    assert outside.read_text() == "kept"


@pytest.mark.parametrize("left", [0, 1])
def test_cases_that_a_submission_takes_away_are_missed(left):
    """Of a function's cases it can reach the list; a constant is right for one."""
    reach = f"""
names = check.__code__.co_freevars
held = check.__closure__[names.index("cases")].cell_contents
for cases in held["local-10"].values():
    del cases[{left}:]
"""
    guess = 'check("local-10", lambda n, w: 1)'
    found = graded(reach, guess, RIGHT)
    assert found.points == 2 and found.errors == []


def test_a_set_counts_as_it_does_for_the_reader():
    found = graded('check("sparsity-6", {"a", "b", "d", "f"})')
    assert found.points == found.as_json()["possible"]
    run_of = find("sparse-8").parts[0]
    assert not judge_part(run_of, lambda *x: set(run_of.reference(*x))).passed
    assert wire.decode(wire.encode({1, 2})) == {1, 2}


def test_forms_of_an_answer_that_count():
    assert ex.assess("sparsity-6", ["(a)", "b)", "D.", "f"]).passed
    change = find("sparsity-3").parts[1]
    assert judge_part(change, "(a)").passed and judge_part(change, " A. ").passed
    assert same(0.5, torch.tensor(0.5), 1e-6) and not same(True, torch.tensor(1), 0.0)
    assert "a tensor" not in difference(0.1, torch.tensor(0.5))
    assert same(range(3), [0, 1, 2], 0.0) and not same(range(10**30), [0], 0.0)
    assert same(torch.tensor([]), torch.zeros(0, 0, dtype=torch.bool), 0.0)


def test_its_own_folder_may_be_used():
    found = graded("open('mine.txt', 'w').write('x')\nopen('mine.txt').read()", RIGHT)
    assert found.errors == [] and found.points == 2


@pytest.mark.parametrize(
    ("source", "ended"),
    [
        ("while True: pass", "stopped: out of time"),
        (
            "while True:\n try:\n  while True: pass\n except BaseException: pass",
            "stopped: out of time",
        ),
        ("import os\nos._exit(0)", "ended by itself before its last cell"),
        ("import os\nos.abort()", "stopped by signal"),
        ("import ctypes\nctypes.string_at(0)", "finished"),
        ("import threading as t\nt.Thread(target=print).start()", "finished"),
    ],
)
def test_how_a_run_ends_is_told(source, ended):
    found = graded(RIGHT, source, seconds=2 if "time" in ended else 60)
    assert found.ended.startswith(ended)
    assert found.points == 2, "what was answered before counts"


FILLS = {
    "many files": (
        "for i in range(10**6):\n with open(str(i), 'wb') as f: f.write(b'x' * 2**23)"
    ),
    "deep folders": (
        "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\n"
        "while True: pass"
    ),
    "a closed folder": "import os\nos.mkdir('d', 0)\nos.mkdir('d/e')",
}


@linux
@pytest.mark.parametrize("name", FILLS)
def test_what_fills_a_disk_is_stopped_and_removed(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = graded(RIGHT, FILLS[name], seconds=20)
    stopped = name != "a closed folder"
    assert stopped == (found.ended == "stopped: its files take too much room")
    assert found.points == 2 and list(tmp_path.iterdir()) == []


def test_gigabytes_are_not_kept():
    start = time.monotonic()
    found = graded(RIGHT, "while True: print('x' * 2**20)", seconds=2)
    assert found.ended == "stopped: out of time"
    assert len(found.printed) <= 4000 and time.monotonic() - start < 100


CHEATS = {
    "overwrites the checker": """
import attn_tutorial.exercises as e
import attn_tutorial.exercises.judging as j
e.assess = e.check = j.judge = lambda *a, **k: "right"
check("local-11", "a")
""",
    "sends verdicts": """
import json, os
for fd in range(3, 64):
    for line in ({"done": True}, {"id": "local-11", "passed": True, "points": 99}):
        try:
            os.write(fd, (json.dumps(line) + "\\n").encode())
        except OSError:
            pass
check("local-11", "a")
""",
    "is equal to everything": """
class Yes(str):
    def __eq__(self, other): return True
    def __hash__(self): return 0
    def strip(self): return "b"
    def lower(self): return "b"
check("local-11", Yes("a"))
""",
    "sends rubbish": """
import os
for fd in range(3, 64):
    try:
        os.write(fd, b'{"id": "local-11", "answers": {"mask": {"value": 3}}}\\n')
        os.write(fd, b'{"id": "local-11", "answers": {"mask": {"tensor": 3}}}\\n')
        os.write(fd, b'[' * 100_000 + b'\\n')
    except OSError:
        pass
""",
}


def test_what_an_error_says_spoils_no_file_and_no_terminal(tmp_path, capsys):
    path = tmp_path / "ada.ipynb"
    source = 'raise Exception("\\ud800\\nlocal-11     9 of 9\\x1b[2J")'
    path.write_text(json.dumps(handed_in(source, RIGHT)))
    assert main(["grade", str(path)]) == 0
    (error,) = json.loads((tmp_path / "ada.grade.json").read_text())["errors"]
    assert error.isprintable() and "9 of 9" in error
    assert "\nlocal-11     9 of 9" not in capsys.readouterr().out


@pytest.mark.parametrize("shape", [[2**20, 2**20], [3], []])
def test_a_tensor_without_its_bytes_is_refused(shape):
    value = {"tensor": "", "shape": shape, "dtype": "torch.float64"}
    with pytest.raises(ValueError, match="do not fill"):
        wire.decode(value)


def test_a_view_of_one_number_is_no_large_tensor():
    view = torch.ones(1).expand(10**6, 10**6)
    assert "a tensor of shape (1000000, 1000000)" in wire.encode(view)["other"]


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_gets_no_points(name):
    found = graded(CHEATS[name], "'local-11'")
    assert found.points == 0 and len(found.results) == 1


def test_an_answer_that_hangs_is_bounded():
    source = "def causal_window(n, w):\n    while True: pass\n"
    found = graded(source + 'check("local-8", causal_window)', case_seconds=0.5)
    assert "no answer after 0.5 s" in found.results[0]["parts"][0]["text"]


@pytest.mark.parametrize("made", [{}, [], {"cells": 3}])
def test_what_is_no_notebook_is_refused(made):
    with pytest.raises(ValueError, match="no notebook"):
        grade(made)


# The command line.


def test_commands_print(capsys):
    for command in ("list", "cells", "quiz", "solutions"):
        assert main([command, "local_attention"]) == 0
        assert "local-1" in capsys.readouterr().out or command == "quiz"
    assert main(["overview"]) == 0
    assert capsys.readouterr().out == overview() + "\n"


def test_a_notebook_is_made_and_graded_from_the_command_line(tmp_path, capsys):
    path = tmp_path / "x.ipynb"
    assert main(["make", "backward", "--variant", "solution", "--out", str(path)]) == 0
    assert main(["grade", str(path), "--chapter", "backward"]) == 0
    printed = capsys.readouterr().out
    total = worth("backward")
    assert f"{total} of {total} points; the run finished" in printed
    stored = json.loads((tmp_path / "x.grade.json").read_text(encoding="utf-8"))
    assert stored["points"] == stored["possible"] == total
    assert {r["id"] for r in stored["results"]} == {e.id for e in exercises("backward")}


def test_a_chapter_gets_its_cells_from_the_command_line(tmp_path):
    path = tmp_path / "local_attention.ipynb"
    notebooks.write(chapter_with(OLD), path)
    assert main(["insert", str(path), "--quiz"]) == 0
    text = path.read_text(encoding="utf-8")
    assert "Check yourself" in text and text.endswith("}\n")


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_file_that_cannot_be_graded_is_told(tmp_path, capsys, content):
    path = tmp_path / "x.ipynb"
    if content:
        path.write_text(content)
    assert main(["grade", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


# Grading a class.


@pytest.fixture
def class_of_three(tmp_path):
    """One in a folder of her own, one wrong, and a file that is no notebook."""
    hidden = tmp_path / ".ipynb_checkpoints"
    for folder in (tmp_path / "ada", hidden):
        folder.mkdir()
        (folder / "hw.ipynb").write_text(json.dumps(handed_in(RIGHT)))
    wrong = handed_in('check("local-11", "a")', "1 / 0")
    (tmp_path / "=bob, jr.ipynb").write_text(json.dumps(wrong))
    (tmp_path / "carl.ipynb").write_text("{")
    return tmp_path


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_class_is_graded_into_one_table(class_of_three, capsys, jobs):
    words = ["grade", str(class_of_three), "--chapter", "local_attention"]
    assert main([*words, "--jobs", jobs]) == 1, "one of them is no notebook"
    printed = capsys.readouterr().out
    assert "2 of 3 notebooks graded, 1.0 points on average" in printed
    assert "finished, cells with an error: 1" in printed
    lines = (class_of_three / "grades.csv").read_text(encoding="utf-8").splitlines()
    bob, ada, carl = csv.DictReader(lines)
    total = str(worth("local_attention"))
    assert ada["notebook"] == "ada/hw" and ada["ended"] == "finished"
    assert (ada["points"], ada["possible"], ada["local-11"]) == ("2", total, "2")
    assert bob["notebook"] == "'=bob, jr", "no formula for a spreadsheet"
    assert (bob["points"], bob["errors"]) == ("0", "1")
    assert carl["points"] == "" and carl["ended"].startswith("not graded: JSON")
    assert (class_of_three / "ada" / "hw.grade.json").exists()
    assert main(["marks", str(class_of_three)]) == 0
    assert f"\nada/hw,2,{total},finished\n" in capsys.readouterr().out
    digits = "9" * 400
    for number, text in enumerate(("{}", "[]", f'{{"points": {digits}}}')):
        (class_of_three / f"forged{number}.grade.json").write_text(text)
    assert main(["marks", str(class_of_three)]) == 0
    told = capsys.readouterr().out
    assert told.count(",,,this is no grade of the grader\n") == 3
    for forged in class_of_three.glob("forged*"):
        forged.unlink()
    assert main(["mistakes", str(class_of_three)]) == 0
    first, *others = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (first["exercise"], first["failed"], first["answered"]) == (
        "local-11",
        "1",
        "2",
    )
    assert first["said"].startswith("not (a). ") and first["said to"] == "1"
    assert {line["failed"] for line in others} == {"0"}, "nobody tried the others"
    assert {line["unanswered"] for line in others} == {"2"}


def test_a_class_is_asked_the_same(tmp_path, monkeypatch):
    """One seed draws the cases for all."""
    asked = []
    monkeypatch.setattr(
        gradebook, "grade", lambda *given: asked.append(given) or Grade("", [], [])
    )
    paths = [tmp_path / "ada.ipynb", tmp_path / "bob.ipynb"]
    for path in paths:
        path.write_text("{}")
    out = tmp_path / "table.csv"
    assert main(["grade", *map(str, paths), "--out", str(out)]) == 0
    assert [given[3] for given in asked] == [asked[0][3]] * 2 and asked[0][3]
    assert out.read_text().startswith("notebook,points,possible,ended,errors\nada,")


def test_notebooks_of_one_name_stay_apart(tmp_path):
    paths = [tmp_path / name / "hw.ipynb" for name in ("ada", "bob")]
    assert [*gradebook.submissions(paths).values()] == paths


def test_a_class_of_nobody_is_told(tmp_path, capsys):
    assert main(["grade", str(tmp_path)]) == 2
    assert "no notebooks in it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["grade", str(tmp_path), "--jobs", "0"])
    assert "a number of processes, got '0'" in capsys.readouterr().err


# What a class got wrong.

KEEPS = "This keeps one key too many."


def verdict(name, passed, text="", mistake=None):
    return {"name": name, "passed": passed, "text": text, "mistake": mistake}


def write_grade(path, parts):
    """A grade as the grader writes it, as far as mistakes need it."""
    results = [{"id": id, "parts": found} for id, found in parts.items()]
    path.parent.mkdir(exist_ok=True)
    text = json.dumps({"schema": 1, "ended": "finished", "results": results})
    path.with_suffix(".grade.json").write_text(text, encoding="utf-8")


@pytest.fixture
def three_grades(tmp_path):
    """All fail local-8, two fail local-1 with one mistake each, some leave it empty."""
    empty = verdict("flops", None, "not answered yet")
    write_grade(
        tmp_path / "ada" / "hw",
        {
            "local-1": [verdict("pairs", False, "=2+2", "x"), empty],
            "local-8": [verdict("causal_window", False, f"{KEEPS} n=2", "wide")],
            "local-11": [verdict("mask", True, "right")],
        },
    )
    write_grade(
        tmp_path / "bob",
        {
            "local-1": [verdict("pairs", False, "not 7.\nIt is too small."), empty],
            "local-8": [verdict("causal_window", False, "It is empty.", "none")],
            "local-11": [verdict("mask", True, "right")],
        },
    )
    write_grade(
        tmp_path / "carl",
        {
            "local-1": [verdict("pairs", True, "right"), verdict("flops", True)],
            "local-8": [verdict("causal_window", False, f"{KEEPS} n=3", "wide")],
            "no-1": [verdict("@x", False, "-1")],
        },
    )
    return tmp_path


def test_a_class_learns_what_to_read_again(three_grades, capsys):
    assert main(["mistakes", str(three_grades)]) == 0
    window, pairs, unknown, flops = csv.reader(capsys.readouterr().out.splitlines()[1:])
    causal = "notebooks/local_attention.html#the-causal-form"
    assert window == [
        *("local-8", "causal_window", "3", "3", "0", f"{KEEPS} n=2", "2"),
        *("local_attention", "The causal form", causal),
    ]
    assert pairs[:7] == ["local-1", "pairs", "2", "3", "0", "'=2+2", "1"], "no formula"
    assert pairs[9].endswith("#what-it-costs")
    assert unknown == ["no-1", "'@x", "1", "1", "0", "'-1", "1", "", "", ""]
    assert flops[:7] == ["local-1", "flops", "0", "1", "2", "", ""], "empty, not wrong"


def test_the_commonest_mistake_counts_whatever_its_example():
    said = [
        ("a1", "a"),
        ("b1", "b"),
        ("c", None),
        ("b2", "b"),
        ("b2", "b"),
        ("c", None),
    ]
    found = [Verdict("x", False, text, mistake) for text, mistake in said]
    assert Tally("local-1", "x", found).commonest == ("b2", 3)
    assert Tally("local-1", "x", [found[2], *found]).commonest == ("c", 3)
    right = Verdict("x", True, "right")
    assert Tally("local-1", "x", [right, Verdict("x", None, "")]).commonest == ("", 0)


NO_GRADES = {
    "nothing": "",
    "no JSON": "{",
    "a list": "[]",
    "no results": "{}",
    "bytes": b"\xff",
    "too deep": "[" * 100_000,
    "a number for a text": '{"results": [{"id": "local-1", "parts": [{"name": 1, '
    '"passed": true, "text": "", "mistake": null}]}]}',
    "a word for passed": '{"results": [{"id": "local-1", "parts": [{"name": "x", '
    '"passed": "yes", "text": "", "mistake": null}]}]}',
}


@pytest.mark.parametrize("content", NO_GRADES.values(), ids=NO_GRADES)
def test_a_file_that_is_no_grade_is_left_out_and_told(three_grades, capsys, content):
    content = content if isinstance(content, bytes) else content.encode()
    (three_grades / "dora.grade.json").write_bytes(content)
    assert main(["mistakes", str(three_grades)]) == 1
    told = capsys.readouterr()
    assert "dora.grade.json: this is no grade" in told.err
    assert told.out.count("\n") == 5, "the three others have their table"


def test_a_folder_without_grades_is_told(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert main(["mistakes", str(folder)]) == 2
        told = capsys.readouterr()
        assert f"{folder}: no grades in it; `grade` writes them" in told.err
        assert not told.out
    (tmp_path / "x.grade.json").mkdir()
    assert main(["mistakes", str(tmp_path)]) == 2
    assert "x.grade.json: Is a directory" in capsys.readouterr().err
