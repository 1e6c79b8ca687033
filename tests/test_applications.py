"""Applications: data read right and split without a leak, measures that are right."""

import io
import itertools
import math
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attn_tutorial import patterns
from attn_tutorial.benchmark.spelling import recorded_pattern
from attn_tutorial.experiments.data import (
    help_pages,
    packages,
    speech,
    subwords,
    synthesiser,
)
from attn_tutorial.experiments.data.corpora import PARTS, digits_of, part_of
from attn_tutorial.experiments.data.help_pages import HELP, MADE_UP, MARKS, read_page
from attn_tutorial.experiments.data.subwords import MARK, PAD, Subwords
from attn_tutorial.experiments.figures import applications
from attn_tutorial.experiments.measures import (
    chrf,
    edit_distance,
    error_rate,
    marks_f1,
    repeated,
)
from attn_tutorial.experiments.records import Run, Runs
from attn_tutorial.experiments.registry import APPLICATIONS, EXPERIMENTS
from attn_tutorial.experiments.studies import (
    entities,
    help_translation,
    live_translation,
    recognition,
    topics,
    writing,
)
from attn_tutorial.networks.readers import (
    BLANK,
    Classifier,
    Recogniser,
    best_path,
    letters_loss,
)
from attn_tutorial.networks.tasks import IGNORE
from attn_tutorial.networks.training import fit
from attn_tutorial.networks.translator import EncoderDecoder

NAMES = [study.__name__.rpartition(".")[2] for study in APPLICATIONS]


def in_cache(*names):
    """Whether packages lie in the reader's cache; asks nobody else."""
    return all(any(packages.folder().glob(f"{name}_*.deb")) for name in names)


# Packages.


def debian_package(files, kind="xz"):
    """The bytes of a package that installs these files."""
    inside = io.BytesIO()
    with tarfile.open(fileobj=inside, mode=f"w:{kind}") as archive:
        folder = tarfile.TarInfo("./usr")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",
        f"data.tar.{kind}": inside.getvalue(),
    }
    package = b"!<arch>\n"
    for name, content in members.items():
        package += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        )
        package += content + b"\n" * (len(content) % 2)
    return package


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, on a system without apt."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    packages.folder().mkdir(parents=True)
    return packages.folder()


@pytest.mark.parametrize("kind", ["xz", "gz"])
def test_files_of_a_package_are_read_without_debians_tools(cache, kind):
    files = {"usr/share/b/2.txt": b"zwei", "usr/share/b/1.txt": b"1", "usr/c": b"no"}
    path = cache / "thing_1.0_all.deb"
    path.write_bytes(debian_package(files, kind))
    assert packages.package_file("thing") == path
    found = packages.files_below(path, "usr/share")
    assert list(found.items()) == [("b/1.txt", b"1"), ("b/2.txt", b"zwei")]


def test_what_dpkg_builds_is_read(tmp_path):
    if not shutil.which("dpkg-deb"):
        pytest.skip("needs dpkg-deb, which Debian has")
    (tmp_path / "p/DEBIAN").mkdir(parents=True)
    fields = "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\n"
    (tmp_path / "p/DEBIAN/control").write_text(fields + "Description: p\n")
    (tmp_path / "p/usr").mkdir()
    (tmp_path / "p/usr/text").write_bytes(b"read me")
    command = ["dpkg-deb", "-Zxz", "--root-owner-group", "--build", "p", "p.deb"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert packages.files_below(tmp_path / "p.deb", "usr") == {"text": b"read me"}


def test_a_package_that_is_missing_is_asked_for(cache):
    wanted = (
        f"not in {cache}: save the file from https://packages.debian.org/bookworm/x"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(wanted)):
        packages.package_file("x")


def test_apt_is_asked_once(cache, monkeypatch):
    asked = []

    def download(command, cwd, **options):
        asked.append(command)
        (cwd / "thing_2.0_all.deb").write_bytes(b"")

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", download)
    for _ in range(2):
        assert packages.package_file("thing").name == "thing_2.0_all.deb"
    assert asked == [["apt-get", "download", "-qq", "thing"]]


def test_a_name_that_begins_alike_is_another_package(cache):
    (cache / "thing-more_1.0_all.deb").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="the Debian package thing is not in"):
        packages.package_file("thing")


@pytest.mark.parametrize("content", [b"PK", b"!<arch>\n"])
def test_what_is_no_package_is_refused(tmp_path, content):
    path = tmp_path / "x_1_all.deb"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="package must .*x_1_all.deb"):
        packages.files_below(path, "usr")


# Pages of help.


def one(inside):
    """The only paragraph of a page."""
    page = f'<body><p>no name</p><p id="a" class="b">{inside}</p></body>'
    (paragraph,) = read_page("area/page.html", page)
    return paragraph


@pytest.mark.parametrize(
    ("inside", "text", "marked"),
    [
        ("plain", "plain", []),
        (" two\n   words ", "two words", []),
        ("a &amp; b&nbsp;c", "a & b c", []),
        ('the <span class="menuitem"> View </span>menu', "the View menu", ["View"]),
        ('<span class="emph">A</span><span class="emph">B</span>', "AB", ["A", "B"]),
        (
            '<span class="avis">Opens <span class="emph">X</span>.</span>',
            "Opens X.",
            "X",
        ),
        ('<a href="x">see <span class="literal">f(x)</span></a>', "see f(x)", ["f(x)"]),
        ('<span class="keycode"></span>none', "none", []),
        ("<h1>a <br>b</h1>", "a b", []),
    ],
)
def test_text_and_marks_of_a_paragraph(inside, text, marked):
    paragraph = one(inside)
    assert paragraph.text == text
    assert [text[a:b] for a, b, _ in paragraph.marks] == list(marked)


def test_words_for_another_system_are_left_out():
    mac = '<span hidden="true" id="MAC1" class="MAC">Command<span>!</span></span>'
    other = '<span hidden="true" id="default1">Ctrl</span>'
    whole = f'Hold <span id="s" class="switchinline">{mac}{other}</span\n> down.'
    assert one(whole).text == "Hold Ctrl down."


def test_a_name_of_a_paragraph_is_the_pages_own():
    page = '<h2 id="hd_1">Title</h2><p id="par_1">Text.</p><p id="par_2"> </p>'
    assert [(p.name, p.text) for p in read_page("a/b.html", page)] == [
        ("hd_1", "Title"),
        ("par_1", "Text."),
    ]


def test_other_pages_than_those_recorded_are_refused(cache):
    name = "usr/share/libreoffice/help/de/text/shared/a.html"
    content = {name: b"<p id='x'>Neu</p>"}
    (cache / "libreoffice-help-de_9_all.deb").write_bytes(debian_package(content))
    found = digits_of({"shared/a.html": b"<p id='x'>Neu</p>"})
    with pytest.raises(ValueError, match=f"libreoffice-help-de must hold .* {found}"):
        help_pages.pages(HELP, "de")


SOURCES = [
    MADE_UP,
    pytest.param(
        HELP,
        marks=pytest.mark.skipif(
            not in_cache(*help_pages.PACKAGES.values()),
            reason="needs the packages of LibreOffice's help in the user's cache",
        ),
    ),
]


@pytest.mark.parametrize("source", SOURCES)
def test_no_page_and_no_text_is_in_two_parts(source):
    pages, english = {}, {}
    for part in PARTS:
        some = help_pages.texts(source)[part]
        assert len(some) > 5
        pages[part] = {p.page for p in some}
        english[part] = [p.text for p in some]
        assert all(part_of(page) == part for page in pages[part])
    for kind in (pages, english):
        assert sum(len(set(x)) for x in kind.values()) == len(
            set().union(*kind.values())
        )
    assert all(len(set(x)) == len(x) for x in english.values())


@pytest.mark.parametrize("source", SOURCES)
def test_no_sentence_of_either_language_is_in_two_pairs(source):
    every = [pair for part in PARTS for pair in help_pages.pairs(source)[part]]
    sides = list(zip(*every, strict=True))
    assert all(len(set(side)) == len(side) for side in sides)
    assert not set(sides[0]) & set(sides[1])
    known = {p.text for p in help_pages.paragraphs(source, "en-US")}
    assert set(sides[0]) <= known


@pytest.mark.parametrize("source", SOURCES)
def test_marks_lie_inside_their_texts(source):
    for paragraph in help_pages.paragraphs(source, "en-US"):
        for first, end, kind in paragraph.marks:
            inside = paragraph.text[first:end]
            assert kind in MARKS and inside and inside == inside.strip()


def test_pairs_are_paragraphs_of_one_name():
    german = {(p.page, p.name): p.text for p in help_pages.paragraphs(MADE_UP, "de")}
    english = {
        p.text: (p.page, p.name) for p in help_pages.paragraphs(MADE_UP, "en-US")
    }
    some = help_pages.pairs(MADE_UP)["test"]
    assert all(german[english[a]] == b for a, b in some)


def test_a_text_belongs_to_the_page_where_it_stands_first(monkeypatch):
    pages = [f"a/{i}.html" for i in range(20)]
    every = [help_pages.Paragraph(p, "x", text) for p in pages for text in ("alike", p)]
    monkeypatch.setattr(help_pages, "paragraphs", lambda source, language: every)
    found = help_pages.texts.__wrapped__(MADE_UP)
    where = [part for part in PARTS for p in found[part] if p.text == "alike"]
    assert where == [part_of("a/0.html")]
    assert sum(map(len, found.values())) == 1 + len(pages)


def test_the_text_that_is_recorded_is_named_by_its_digits():
    before = help_pages.fingerprint(MADE_UP)
    assert re.fullmatch("[0-9a-f]{12}", before)
    assert {len(digits) for digits in help_pages.FINGERPRINTS.values()} == {12}


# Subwords.


TEXTS = ["the cat sat on the mat, the cat", "that hat is the cat's: aaaa aaa", "Über ü"]


def test_the_commonest_pair_is_joined_each_time():
    """All pairs are counted anew before each one that was learned."""
    pieces = [piece for text in TEXTS for piece in subwords.PIECES.findall(text)]
    words = [[2 + byte for byte in piece.encode()] for piece in pieces]
    learned = list(Subwords(TEXTS, 258 + 12).ranks)
    assert 5 < len(learned) <= 12  # pairs that occur once are not joined
    for new, best in enumerate(learned, 258):
        counts = Counter(pair for word in words for pair in itertools.pairwise(word))
        assert counts[best] == max(counts.values())
        for word in words:
            for i in range(len(word)):
                if tuple(word[i : i + 2]) == best:
                    word[i : i + 2] = [new]


@given(st.text())
def test_a_text_comes_back_from_its_tokens(text):
    table = Subwords(TEXTS, 280)
    tokens = table.encode(text)
    assert table.decode(tokens) == text.encode(errors="replace").decode()
    assert not {PAD, MARK} & set(tokens)


def test_frequent_words_are_one_token():
    table = Subwords(["window " * 50], 300)
    assert len(table.encode(" window")) == 1
    assert len(table) < 300  # nothing is left to join


# Sounds.


LUA = """
dialogId("a-m-one", "font_small", "One, please.")
dialogStr("Jednu, prosím.")

dialogId("a-x-two", "font_statue", "A \\"statue\\".")
dialogStr("Socha.")
dialogId("a-v-three", "font_big", "")

dialogStr("Řekl \\"ne\\".")
"""


def test_lines_of_the_two_speakers_are_read():
    found = list(speech._dialogues({"share/level/dialogs_cs.lua": LUA.encode()}))
    assert found == [
        ("share/level/a-m-one", "small", "Jednu, prosím."),
        ("share/level/a-v-three", "big", 'Řekl \\"ne\\".'),
    ]
    assert speech.plain(found[1][2]) == "řekl ne"


def test_a_tone_is_heard_in_its_band_and_its_moment():
    rate = 16000
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(rate) / rate)
    sound = torch.cat([torch.zeros(rate), tone, torch.zeros(rate)])
    sound = sound + 1e-3 * torch.randn(
        3 * rate, generator=torch.Generator().manual_seed(0)
    )
    heard = speech.features(sound, rate).view(-1, speech.MELS)  # frames of 10 ms
    band = round(2595 * math.log10(1 + 1000 / 700) / 2840 * (speech.MELS + 1)) - 1
    loudest = (heard[120:180].mean(0) - heard[20:80].mean(0)).argmax().item()
    assert abs(loudest - band) <= 1
    assert heard[120:180, band].min() > heard[20:80, band].max()


def test_features_do_not_depend_on_the_rate_of_the_recording():
    times = torch.arange(44100) / 44100
    sound = sum(
        torch.sin(2 * math.pi * f * times * (1 + times)) for f in (300, 900, 2000)
    )
    fine, coarse = speech.features(sound, 44100), speech.features(sound[::2], 22050)
    assert fine.shape == coarse.shape
    both = torch.stack([fine.flatten(), coarse.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9


def test_levels_are_in_one_part_and_lines_in_one_place():
    found = speech.clips(MADE_UP)
    levels = {k: {c.name.rpartition("/")[0] for c in v} for k, v in found.items()}
    assert all(levels.values())
    assert len(set().union(*levels.values())) == sum(map(len, levels.values()))
    words = [clip.words for part in PARTS for clip in found[part]]
    assert len(set(words)) == len(words)


@pytest.mark.skipif(
    not in_cache(speech.TEXTS, speech.SOUNDS),
    reason="needs the packages of Fish Fillets in the user's cache",
)
def test_real_lines_are_those_that_are_recorded():
    lines = speech._lines(speech.ACTED)
    assert len(lines) > 1000 and {speaker for _, speaker, _ in lines} == {
        "small",
        "big",
    }
    spoken = [speech.plain(text) for _, _, text in lines]
    assert sum(words is not None for words in spoken) > 0.95 * len(spoken)


def test_what_is_missing_to_hear_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ModuleNotFoundError, match="pip install soundfile"):
        speech._decoded(b"OggS")
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    synthesiser._library.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="pip install espeakng-loader"):
        speech.spoken("ano", "cs+m3")


def test_the_synthesiser_says_more_for_more_words():
    pytest.importorskip("espeakng_loader", reason="needs espeakng-loader")
    short, rate = speech.spoken("ano", "cs+m3")
    long, _ = speech.spoken("ano, prosím, ano", "cs+m3")
    assert rate > 8000 and 0.1 * rate < len(short) < len(long)
    assert 0.05 < long.abs().max() <= 1
    with pytest.raises(ValueError, match="voice must be one of eSpeak NG, got 'no'"):
        speech.spoken("ano", "no")


# Measures.


def slow_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    same = slow_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(same, 1 + slow_distance(a[1:], b), 1 + slow_distance(a, b[1:]))


SHORT = st.text("abc", max_size=5)


@given(SHORT, SHORT)
def test_the_distance_of_texts_is_the_fewest_changes(a, b):
    assert edit_distance(a, b) == slow_distance(a, b)


def test_rates_of_mistakes_are_over_all_texts():
    assert error_rate(["", "ab"], ["a", "ab"]) == pytest.approx(1 / 3)
    assert error_rate([["x", "y", "z"]], [["w"]]) == 3


def test_chrf_weighs_recall_twice():
    # Of one letter each: precision 1/2, recall 1, so 5 * 0.5 / (4 * 0.5 + 1).
    assert chrf(["ab"], ["a"], longest=1) == pytest.approx(5 / 6)
    assert chrf(["a"], ["ab"], longest=1) == pytest.approx(5 * 0.5 / (4 + 0.5))
    assert chrf(["a b"], ["ab"]) == 1
    assert chrf([""], ["a"]) == 0
    # Two orders: of ab against abc, 2/2 and 2/3 of one letter, 1/1 and 1/2 of two.
    precision, recall = 1, (2 / 3 + 1 / 2) / 2
    expected = 5 * precision * recall / (4 * precision + recall)
    assert chrf(["ab"], ["abc"], longest=2) == pytest.approx(expected)


def test_a_mark_counts_only_with_both_ends_and_its_kind():
    wanted = [{(0, 3, "menu")}, {(5, 9, "key")}]
    assert marks_f1(wanted, wanted) == 1
    for wrong in ((0, 4, "menu"), (0, 3, "key")):
        assert marks_f1([{wrong}, {(5, 9, "key")}], wanted) == 0.5
    assert marks_f1([wanted[1], wanted[0]], wanted) == 0  # each in the other's text
    assert marks_f1([set()], [set()]) == 1


def test_repetitions_are_counted_from_the_second_time():
    assert repeated("abcdef", 3) == 0
    assert repeated("aaaaaa", 3) == pytest.approx(3 / 4)
    assert repeated("ab", 3) == 0


# Models.


def test_a_class_does_not_depend_on_padding():
    torch.manual_seed(0)
    model = Classifier(20, 3, 16, 2, 2, pattern=patterns.local(2), positions="rotary")
    for block in model.blocks:
        torch.nn.init.normal_(block.mixer.output.weight)
    tokens = torch.randint(1, 20, (4, 7))
    padded = torch.cat([tokens, torch.zeros(4, 5, dtype=torch.long)], 1)
    assert torch.allclose(model(tokens), model(padded), atol=1e-5)
    other = tokens.clone()
    other[:, 6] = other[:, 6] % 19 + 1
    assert not torch.allclose(model(tokens), model(other), atol=1e-3)


def all_readings(logs, letters):
    """Probability of letters: the sum over all ways to label every token."""
    n, labels = logs.shape
    total = 0.0
    for path in itertools.product(range(labels), repeat=n):
        one_hot = torch.nn.functional.one_hot(torch.tensor([path]), labels)
        if best_path(one_hot) == [letters]:
            total += math.exp(
                sum(logs[i, label].item() for i, label in enumerate(path))
            )
    return total


@pytest.mark.parametrize("letters", [[1], [1, 2], [2, 2]])
def test_the_loss_counts_every_way_to_place_the_letters(letters):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 4, 3, generator=generator, dtype=torch.float64)
    chance = all_readings(scores[0].log_softmax(-1), letters)
    found = letters_loss(scores, torch.tensor([letters]))
    assert found.item() == pytest.approx(-math.log(chance) / len(letters))


def recogniser():
    torch.manual_seed(0)
    model = Recogniser(6, 4, 16, 2, 2, pattern=patterns.local(2), positions="rotary")
    for block in model.blocks:
        torch.nn.init.normal_(block.mixer.output.weight)
    return model


def test_a_clip_is_heard_the_same_beside_a_longer_one():
    model, sound = recogniser(), torch.randn(2, 9, 6)
    keep = torch.tensor([[True] * 5 + [False] * 4, [True] * 9])
    alone = model(sound[:1, :5], keep[:1, :5])
    together = model(sound, keep)
    assert torch.allclose(alone[0], together[0, :5], atol=1e-5)
    assert (together[0, 5:].argmax(-1) == BLANK).all()
    letters = torch.tensor([[1, 2, IGNORE], [3, 3, 4]])
    both = letters_loss(together, letters)
    each = [
        letters_loss(alone, letters[:1, :2]),
        letters_loss(together[1:], letters[1:]),
    ]
    assert both.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)
    both.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_letters_are_learned_without_being_told_when():
    """Each letter is a direction; the model finds it from the order alone."""
    torch.manual_seed(0)
    directions = 3 * torch.randn(5, 6)

    def batch(generator):
        letters = torch.randint(1, 5, (8, 3), generator=generator)
        spoken = torch.stack([letters, torch.zeros_like(letters)], -1).flatten(1)
        sound = directions[spoken.repeat_interleave(2, -1)]
        return sound, torch.ones(8, 12, dtype=torch.bool), letters

    model = Recogniser(6, 4, 16, 2, 1, positions="rotary")
    losses = fit(model, batch, steps=120, lr=1e-2, loss_fn=letters_loss)
    assert losses[-1] < 0.2 < losses[0]
    sound, keep, letters = batch(torch.Generator().manual_seed(1))
    assert error_rate(best_path(model(sound, keep)), letters.tolist()) < 0.05


def translator(own="local 3", cross=None):
    torch.manual_seed(0)
    kept = {"pattern": recorded_pattern(own), "cross": cross}
    model = EncoderDecoder(30, 25, 16, 2, 2, **kept)
    for name, weight in model.named_parameters():
        if "output.weight" in name or "mlp.2.weight" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return model.double()


def test_what_is_translated_is_the_likeliest_token_each_time():
    model = translator()
    source = torch.randint(1, 30, (3, 6), generator=torch.Generator().manual_seed(1))
    source[0, 4:] = 0  # a shorter text
    found = model.translate(source, start=1, end=2, length=8)
    written = torch.cat([torch.ones(3, 1, dtype=torch.long), found], 1)
    best = model(source, written[:, :-1]).argmax(-1)
    for row, likeliest in zip(found.tolist(), best.tolist(), strict=True):
        end = row.index(2) + 1 if 2 in row else len(row)
        assert row[:end] == likeliest[:end]
        assert set(row[end:]) <= {2}


def test_translation_ends_when_all_texts_have():
    model = translator()
    with torch.no_grad():
        model.head[1].bias[7] = 1e6  # always token 7
    source = torch.ones(2, 3, dtype=torch.long)
    assert model.translate(source, 1, end=7, length=9).tolist() == [[7], [7]]
    assert model.translate(source, 1, end=3, length=4).tolist() == [[7] * 4] * 2


def test_a_loss_of_ones_own_is_what_is_trained():
    model = torch.nn.Linear(1, 1)
    data = torch.ones(4, 1, 1)

    def far(scores, targets):
        return (scores - 5 * targets).square().mean()

    losses = fit(model, lambda g: (data, data), steps=200, lr=0.1, loss_fn=far)
    assert losses[-1] < 1e-2 < losses[0]


# Real time.


@pytest.mark.parametrize(("own", "wait"), live_translation.GRID)
def test_nothing_is_used_before_it_has_arrived(own, wait, monkeypatch):
    """By the gradient: word i depends on source token g(i) - 1, and on none after."""
    setting = {"pattern": own, "wait": wait, "layers": 2}
    model = translator(own, live_translation.waits(wait))
    source = torch.randint(1, 30, (1, 14), generator=torch.Generator().manual_seed(0))
    target = torch.randint(1, 25, (1, 12), generator=torch.Generator().manual_seed(1))
    embedded = model.source(source).detach().requires_grad_()
    monkeypatch.setattr(model.source, "forward", lambda tokens: embedded)
    scores = model(source, target)
    needed = live_translation.arrived(setting, 14, 12).tolist()
    for word, count in enumerate(needed):
        total = scores[0, word].square().sum()
        (gradient,) = torch.autograd.grad(total, embedded, retain_graph=True)
        used = gradient[0].abs().amax(-1) > 0
        assert not used[count:].any()
        assert used[count - 1]


def test_looking_ahead_in_the_encoder_is_waited_for():
    setting = {"pattern": "local 4,1", "wait": 3, "layers": 2}
    causal = {**setting, "pattern": "local 4,0"}
    lags = [live_translation.average_lag(s, 40, 40) for s in (causal, setting)]
    assert lags == [3, 5]


def test_lag_is_that_of_the_paper_when_lengths_differ():
    """Two target tokens for a source token: what was waited for comes at half speed."""
    setting = {"pattern": "causal", "wait": 1, "layers": 1}
    needed = live_translation.arrived(setting, 4, 8).tolist()
    assert needed == [1, 2, 3, 4, 4, 4, 4, 4]
    assert live_translation.average_lag(setting, 4, 8) == pytest.approx(
        ((1 - 0) + (2 - 0.5) + (3 - 1) + (4 - 1.5)) / 4
    )


# Figures.


def pretended(settings, **results):
    """Three runs of each setting; seed s adds s to each result."""
    return Runs(
        Run(
            setting,
            seed,
            {name: value + seed for name, value in results.items()},
            {"cpu_seconds": 60.0 * (1 + seed)},
        )
        for setting in settings
        for seed in range(3)
    )


def test_quality_memory_and_time_stand_side_by_side():
    runs = pretended(
        [{"pattern": "full"}, {"pattern": "local 4"}],
        test_accuracy=0.5,
        training_bytes=2**21,
    )
    figure = applications.recorded(runs, "topics", "A finding")
    assert "full 1.5, 2 MiB; local 4 1.5, 2 MiB" in figure.alt
    for axes, numbers in zip(
        figure.axes, ([0.5, 1.5, 2.5], [2, 2, 2], [1, 2, 3]), strict=True
    ):
        dots = [x for x in axes.get_lines() if len(x.get_xdata()) == 3]
        assert len(dots) == 2 and dots[0].get_ydata().tolist() == [0, 0, 0]
        assert dots[0].get_xdata().tolist() == pytest.approx(numbers, abs=1e-4)
    _, memory, time = figure.axes
    assert [axes.get_xlim()[0] for axes in (memory, time)] == [0, 0], "a cost"
    assert memory.get_xlim()[1] > 2 and time.get_xlim()[1] > 3


def test_lag_and_bits_show_every_seed():
    settings = [{"pattern": "causal", "wait": 1}, {"pattern": "full", "wait": "whole"}]
    runs = pretended(settings, test_bits=1.0, test_lag=2.0)
    figure = applications.lag_and_bits_recorded(runs)
    assert "causal, wait 1 3.0 and 2.00, full, wait whole 3.0 and 2.00" in figure.alt
    (first, _) = figure.axes[0].get_lines()
    assert first.get_xdata().tolist() == [3, 3, 3]
    assert first.get_ydata().tolist() == [1, 2, 3]


# Studies.


@pytest.mark.parametrize("name", NAMES)
def test_contenders_differ_only_in_what_is_compared(name):
    compared = {"pattern", "cross", "wait", "data"}
    settings = EXPERIMENTS[name].settings(False)
    rest = [{k: v for k, v in s.items() if k not in compared} for s in settings]
    assert all(other == rest[0] for other in rest)
    kinds = {s["pattern"].split()[0] for s in settings}
    assert kinds >= {"full", "local", "blocks"}


@pytest.mark.parametrize("name", NAMES)
def test_rates_are_tuned_at_the_length_of_the_final_runs(name):
    tuning = EXPERIMENTS[name].tuning
    assert tuning.changes == {} and tuning.objective.startswith("validation_")


@pytest.mark.parametrize("name", NAMES)
def test_quick_runs_need_no_package(name):
    assert {s["data"] for s in EXPERIMENTS[name].settings(True)} == {MADE_UP}


def test_a_translation_is_read_and_written_with_marks():
    setting = {**help_translation.BASE, **help_translation.QUICK}
    some = help_translation.held_out(setting, "test", 3)
    source, shifted, wanted = help_translation.batch_of(some)
    assert (shifted[:, 0] == MARK).all()
    known = wanted[:, 1:] != IGNORE
    assert torch.equal(shifted[:, 1:][known], wanted[:, :-1][known])
    decode = help_translation.subwords(MADE_UP, setting["vocabulary"]).decode
    texts = [decode(row[row > MARK].tolist()) for row in source]
    assert set(texts) <= {english for english, _ in help_pages.pairs(MADE_UP)["test"]}


def test_a_model_that_knows_nothing_takes_the_bits_of_a_token():
    setting = {**help_translation.BASE, **help_translation.QUICK}
    count = len(help_translation.subwords(MADE_UP, setting["vocabulary"]))
    model = EncoderDecoder(count, count, 16, 2, 1)
    torch.nn.init.zeros_(model.head[1].weight)
    torch.nn.init.zeros_(model.head[1].bias)
    some = help_translation.held_out(setting, "test", 4)
    tokens = sum(len(german) for _, german in some)
    decode = help_translation.subwords(MADE_UP, setting["vocabulary"]).decode
    length = sum(len(decode(german[:-1]).encode()) + 1 for _, german in some)
    expected = tokens * math.log2(count) / length
    found = help_translation.bits(model, setting, some)
    assert found == pytest.approx(expected, rel=1e-5)


def test_topics_are_those_of_the_pages():
    inputs, targets = topics.known(MADE_UP, "train", 300, 64, 12)
    decode = topics.subwords(MADE_UP, 300).decode
    by_text = {p.text: p.page for p in help_pages.texts(MADE_UP)["train"]}
    names = topics.topics(MADE_UP)
    for row, topic in zip(inputs, targets[:, 0].tolist(), strict=True):
        text = decode(row[row != PAD].tolist())
        page = next(page for known, page in by_text.items() if known.startswith(text))
        assert page.startswith(f"{names[topic]}/")


def test_always_naming_one_topic_is_no_balanced_answer():
    targets = torch.tensor([[0]] * 8 + [[1], [2]])
    assert topics.balanced(torch.zeros_like(targets), targets) == pytest.approx(1 / 3)


def test_marks_come_back_from_their_labels():
    for paragraph in help_pages.paragraphs(MADE_UP, "en-US"):
        labels = torch.tensor(list(entities.labels_of(paragraph)))
        assert entities.spans(labels) == set(
            paragraph.marks
        )  # ASCII: bytes are letters


@given(st.lists(st.integers(0, entities.LABELS - 1), max_size=12))
def test_marks_never_overlap_and_cover_every_label(labels):
    found = sorted(entities.spans(torch.tensor(labels, dtype=torch.long)))
    covered = [place for a, b, _ in found for place in range(a, b)]
    assert covered == [place for place, label in enumerate(labels) if label]
    for first, end, kind in found:
        assert {(labels[i] - 1) // 2 for i in range(first, end)} == {MARKS.index(kind)}


def test_labels_stand_at_the_bytes_of_their_words():
    paragraph = one('größer: <span class="keycode">Ü</span>')
    labels = list(entities.labels_of(paragraph))
    assert len(labels) == len(paragraph.text.encode())
    assert labels[-2:] == [7, 8] and not any(labels[:-2])


def test_writing_goes_on_with_what_the_model_ranks_first():
    class Next(torch.nn.Module):
        """The byte after the last one, for certain."""

        def forward(self, tokens):
            assert tokens.shape[1] <= 4
            return 1e3 * torch.nn.functional.one_hot((tokens + 1) % 256, 256).float()

    prompts = torch.tensor([[1, 2], [7, 253]])
    drawn = writing.go_on(Next(), prompts, 5, 4, torch.Generator().manual_seed(0))
    assert drawn.tolist() == [[3, 4, 5, 6, 7], [254, 255, 0, 1, 2]]


def test_bytes_of_one_part_are_written_and_read_in_lines():
    lines = bytes(writing.text_of(MADE_UP, "test").tolist()).decode().split("\n")
    assert lines == [p.text for p in help_pages.texts(MADE_UP)["test"]]


def test_words_are_heard_as_a_perfect_model_hears_them():
    class Perfect(torch.nn.Module):
        def __init__(self, some):
            super().__init__()
            self.words = [clip.words for clip in some]
            self.place = torch.nn.Parameter(torch.zeros(()))  # says on which device

        def forward(self, sound, keep):
            scores = torch.zeros(len(sound), sound.shape[1], 1 + len(speech.LETTERS))
            for row, words in enumerate(self.words):
                for i, letter in enumerate(speech.letters_of(words)):
                    scores[row, 2 * i, letter] = 1
            return scores

    some = speech.clips(MADE_UP)["test"]
    found = recognition.heard(Perfect(some), some)
    assert found == [clip.words for clip in some]
    assert recognition.errors("test", some, found)["test_error"] == 0
