"""The kit for teachers: what it names exists, adds up, and can be used as it says."""

import itertools
import json
import os
import random
import re
import subprocess
import sys
import tomllib

import nbformat
import pytest
from conftest import HTML, ROOT
from test_pages import slug
from test_reading_contract import minutes

import attn_tutorial as at
from attn_tutorial.exercises import __main__ as command
from attn_tutorial.exercises import bank, exam
from attn_tutorial.exercises.assignments import (
    assignment,
    assignment_notebook,
    assignments,
)
from attn_tutorial.exercises.collection import CHAPTERS, find, quiz
from attn_tutorial.exercises.grading import grade
from attn_tutorial.exercises.notebooks import VARIANTS

sys.path.insert(0, str(ROOT / "scripts"))
import book_pdf
import slides
import teaching_pages
import timings

TEACHING = ROOT / "book" / "teaching"
PAGES = sorted(TEACHING.glob("*.md"))
NOTEBOOKS = {
    path.stem: nbformat.read(path, as_version=4)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
}


def page(name: str) -> str:
    return (TEACHING / f"{name}.md").read_text(encoding="utf-8")


def headings(chapter: str) -> list[str]:
    """The headings of a chapter, below its title."""
    cells = (c.source for c in NOTEBOOKS[chapter].cells if c.cell_type == "markdown")
    return [h for text in cells for h in re.findall(r"^##+ (.+)$", text, re.MULTILINE)]


# Links into chapters.

LINK = re.compile(r"\[([^]]+)\]\(\.\./\.\./notebooks/(\w+)\.ipynb(?:#([^)]+))?\)")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_link_to_a_section_has_its_words_and_its_anchor(path):
    for words, chapter, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        if anchor:
            assert words in headings(chapter) and anchor == slug(words), words
        else:
            assert chapter in NOTEBOOKS


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_exercises_that_are_named_exist(path):
    named = re.findall(r"`([a-z]+-\d+)`", path.read_text(encoding="utf-8"))
    assert all(find(name) for name in named)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_commands_on_the_pages_are_commands(path, monkeypatch):
    text = path.read_text(encoding="utf-8")
    called = re.findall(r"python -m attn_tutorial\.exercises (\w+)(.*)", text)
    known = {}
    monkeypatch.setattr(command, "_grade", lambda chosen: known.update(vars(chosen)))
    for name, rest in called:
        words = [word.strip('"') for word in rest.split(">")[0].split()]
        if name == "grade":
            command.main([name, *words])
            assert known["assignment"] in {each.name for each in assignments()}
        else:
            assert name in ("assign", "exam", "marks", "mistakes")


# Misconceptions.


def entries(text: str) -> dict[str, str]:
    parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_chapter_has_two_misconceptions_with_a_question_and_a_treatment():
    found = entries(page("misconceptions"))
    assert len(found) == len(CHAPTERS) == 19
    for chapter, (title, text) in zip(CHAPTERS, found.items(), strict=True):
        beliefs = re.split(r"^\*\*“", text, flags=re.MULTILINE)[1:]
        assert len(beliefs) >= 2, title
        for belief in beliefs:
            assert re.search(r"\*Ask:\* .+\?.* \*It shows if\* ", belief), belief
            treated = LINK.findall(belief.split("*Treat:*")[1])
            assert treated and {where for _, where, _ in treated} == {chapter}


# Plans.

ROW = re.compile(r"^\| (\d+)–(\d+) \| (.+?) \| (run|show|talk|work) \| (.+) \|$", re.M)
HEAD = "| Minutes | Section | How | In class |\n|---|---|---|---|\n"


def sessions() -> list[str]:
    return page("plans").split(HEAD)[1:]


def cells_by_section(chapter: str) -> dict[str, list]:
    """The cells of each section; those of a part belong to its section as well."""
    found, open_ones = {}, {}
    for cell in NOTEBOOKS[chapter].cells:
        pieces = [cell]
        if cell.cell_type == "markdown":
            texts = re.split(r"^(?=##+ )", cell.source, flags=re.MULTILINE)
            pieces = [nbformat.v4.new_markdown_cell(text) for text in texts if text]
        for piece in pieces:
            head = re.match(r"(##+) (.+)", piece.source)
            if head and piece.cell_type == "markdown":
                depth = len(head[1])
                open_ones = {k: name for k, name in open_ones.items() if k < depth}
                open_ones[depth] = head[2]
            for name in open_ones.values():
                found.setdefault(name, []).append(piece)
    return found


def reading(chapter: str, section: str) -> float:
    return minutes(nbformat.v4.new_notebook(cells=cells_by_section(chapter)[section]))


def test_the_sections_of_a_chapter_take_what_it_takes():
    """The guard of the plans measures what the reading contract measures."""
    found = cells_by_section("local_attention")
    prose = teaching_pages.prose("local_attention")
    names = re.findall(r"^## (.+)$", prose, re.MULTILINE)
    whole = sum(reading("local_attention", name) for name in names)
    assert len(found) > len(names)
    assert whole == pytest.approx(minutes(NOTEBOOKS["local_attention"]), abs=2)


@pytest.mark.parametrize("number", range(17))
def test_the_minutes_of_a_session_add_up(number):
    table = sessions()[number].split("\n\n")[0]
    rows = ROW.findall(table)
    assert len(rows) == len(table.strip().splitlines()), "a row that is not understood"
    ends = [(int(start), int(end)) for start, end, *_ in rows]
    assert ends[0][0] == 0 and ends[-1][1] == 90
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))


def test_there_are_three_plans():
    assert len(sessions()) == 1 + 4 + 12
    assert len(re.findall(r"^### Week \d, session \d+:", page("plans"), re.M)) == 12


@pytest.mark.parametrize("number", range(17))
def test_a_section_has_the_time_that_it_needs(number):
    for start, end, place, how, _ in ROW.findall(sessions()[number]):
        if how in ("talk", "work"):
            assert place == "–"
            continue
        (words, chapter, _) = LINK.fullmatch(place).groups()
        needs = reading(chapter, words) * (1 if how == "run" else 0.5)
        assert int(end) - int(start) >= needs, f"{words}: {needs:.1f} minutes"


@pytest.mark.parametrize("number", range(17))
def test_work_fits_into_its_minutes(number):
    """What stands before the first semicolon is for everyone."""
    for start, end, _, how, words in ROW.findall(sessions()[number]):
        asked = re.findall(r"`(\w+-\d+)`", words.partition(";")[0])
        needs = sum(find(id).minutes for id in asked if how == "work")
        assert needs <= int(end) - int(start), f"{asked}: {needs} minutes"


ENDS = ("Exercises", "Summary", "Check yourself")


@pytest.mark.parametrize("number", range(17))
def test_every_section_of_a_chapter_is_taken_or_skipped(number):
    text = sessions()[number].split("\n## ")[0].split("\n### ")[0]
    taken = {(chapter, words) for words, chapter, _ in LINK.findall(text)}
    skipped = text.partition("**Skip.**")[2]
    for chapter in {chapter for chapter, _ in taken}:
        prose = teaching_pages.prose(chapter)
        for part in re.split(r"^## ", prose, flags=re.MULTILINE)[1:]:
            top = part.partition("\n")[0]
            inside = {top, *re.findall(r"^### (.+)$", part, re.MULTILINE)}
            used = any((chapter, name) in taken for name in inside)
            assert top in ENDS or used or top in skipped, (chapter, top)


# Demonstrations.


def test_a_demonstration_says_where_what_and_what_if_not():
    scenes = re.split(r"^## ", page("demos"), flags=re.MULTILINE)[1:]
    assert len(scenes) == 6
    for scene in scenes:
        stated = int(re.match(r".+\((\d+) minutes\)", scene)[1])
        assert 5 <= stated <= 12
        for word in ("*Place:*", "*Say:*", "*Do:*", "**Bet:**", "**If it fails"):
            assert word in scene, (scene[:30], word)
        assert LINK.search(scene)


# Assignments.


def test_the_pages_hold_what_is_generated(tmp_path):
    assert teaching_pages.main(["--check"]) == 0
    stale = tmp_path / "page.md"
    stale.write_text("a\n<!-- x -->\nold\n<!-- end -->\nb\n")
    assert "new" in teaching_pages.filled(stale, "x", "new")
    with pytest.raises(ValueError, match="no place for y"):
        teaching_pages.filled(stale, "y", "new")


def test_there_are_assignments_for_every_part_of_the_book():
    found = assignments()
    assert len(found) >= 4
    assert all(each.points[0] >= 8 and each.points[1] >= 7 for each in found)
    assert all(set(each.after) <= set(CHAPTERS) for each in found)
    needed = {chapter for each in found for chapter in each.after}
    assert len(needed) >= 12
    with pytest.raises(KeyError, match="no assignment 'x'; there are attention_from"):
        assignment("x")


@pytest.mark.parametrize("name", [each.name for each in assignments()])
def test_the_solution_of_an_assignment_gets_all_points(name):
    one = assignment(name)
    graded = grade(assignment_notebook(name, "solution"), counted=one.graded)
    assert graded.ended == "finished" and not graded.errors
    assert graded.points == one.points[0]


def test_exercises_that_were_taken_out_count():
    one = assignment("windows_and_blocks")
    graded = grade({"cells": []}, counted=one.graded)
    assert graded.points == 0
    assert graded.as_json()["possible"] == one.points[0]


def test_only_the_instructor_reads_what_to_look_for():
    for one in assignments():
        for variant in VARIANTS:
            made = assignment_notebook(one.name, variant)
            nbformat.validate(nbformat.from_dict(made))
            text = json.dumps(made, ensure_ascii=False)
            assert all(task.task[:40] in text for task in one.written)
            shown = [task.look_for[:40] in text for task in one.written]
            assert all(shown) if variant == "instructor" else not any(shown)
    with pytest.raises(ValueError, match="variant must be one of"):
        assignment_notebook("verdict", "teacher")


def test_nbgrader_knows_all_points():
    for one in assignments():
        made = assignment_notebook(one.name, "nbgrader")["cells"]
        known = [cell["metadata"].get("nbgrader", {}) for cell in made]
        assert sum(cell.get("points", 0) for cell in known) == sum(one.points)


def test_the_commands_for_teachers(tmp_path, capsys):
    out = tmp_path / "ada.ipynb"
    command.main(["assign", "windows_and_blocks", "--out", str(out)])
    notebook = json.loads(out.read_text())
    notebook["cells"] = [c for c in notebook["cells"] if "local-8" in c["id"]]
    notebook["cells"][-1]["source"] = 'check("local-8", lambda n, w: torch.eye(n))'
    out.write_text(json.dumps(notebook))
    assert command.main(["grade", str(out), "--assignment", "windows_and_blocks"]) == 0
    assert "0 of 13 points" in capsys.readouterr().out
    command.main(["marks", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[1] == "ada,0,13,finished"


# The bank.


def test_the_bank_is_large_and_reaches_every_chapter():
    assert len(bank.templates()) >= 60
    for chapter in CHAPTERS:
        found = bank.templates(chapter)
        assert len(found) >= 4
        assert len({template.name for template in found}) == len(found)
        assert sum(bool(template.draw) for template in found) >= 2, "numbers to draw"
    with pytest.raises(KeyError, match="no chapter 'x'"):
        bank.templates("x")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_all_choices_differ_for_all_numbers(chapter):
    for template in bank.templates(chapter):
        assert 2 <= len(template.wrong) <= 3
        for numbers in template.settings():
            asked = template.ask(numbers, random.Random(0))
            texts = [*asked.choices.values()]
            assert len(set(texts)) == len(texts), (template.name, numbers, texts)
            assert not re.search(r"[{}]", " ".join([asked.text, asked.because, *texts]))
            assert asked.answer not in asked.shows
            assert {asked.answer, *asked.shows} == set(asked.choices)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_number_that_is_drawn_is_used(chapter):
    for template in bank.templates(chapter):
        text = " ".join(
            [template.text, template.answer, *map(" ".join, template.wrong)]
        )
        for name in template.draw:
            assert re.search(rf"\{{[^{{}}]*\b{name}\b", text), (template.name, name)


def test_the_bank_does_not_repeat_the_quizzes():
    public = {q.text for chapter in CHAPTERS for q in quiz(chapter)}
    assert not public & {template.text for template in bank.templates()}


def test_counted_answers_equal_another_count():
    """A few answers, counted here from the masks themselves."""

    def value(chapter, name):
        template = next(t for t in bank.templates(chapter) if t.name == name)
        numbers = next(template.settings())
        asked = template.ask(numbers, random.Random(0))
        return numbers, asked.choices[asked.answer]

    numbers, said = value("local_attention", "edges")
    mask = at.dense_mask(at.patterns.local(numbers["w"]), numbers["n"])
    assert said == f"{mask.sum().item():,}"
    numbers, said = value("sparse_attention", "how far back")
    row = at.dense_mask(at.patterns.adjacent_blocks(numbers["b"]), 256)[numbers["i"]]
    assert said == str(numbers["i"] - row.nonzero().min().item())
    numbers, said = value("hugging_face", "leak between documents")
    a, b = numbers["a"], numbers["b"]
    causal = at.dense_mask(at.patterns.causal(), a + b)
    apart = causal & at.dense_mask(at.patterns.documents((a, b)), a + b)
    assert said == str((causal ^ apart).sum().item())
    numbers, said = value("from_masks_to_kernels", "tiles of a causal mask")
    m = numbers["n"] // numbers["t"]
    assert said == f"{sum(range(m + 1))} visited, {m} with a mask"


def test_a_seed_makes_a_paper_again_and_another_makes_another(tmp_path):
    asked = exam.draw(7)
    assert asked == exam.draw(7) != exam.draw(8)
    assert len(asked) == 12 == len({one.chapter for one in asked})
    order = [CHAPTERS.index(one.chapter) for one in asked]
    assert order == sorted(order)
    every = exam.draw(1, questions=len(bank.templates()))
    assert len({(one.chapter, one.name) for one in every}) == len(bank.templates())


@pytest.mark.parametrize("ending", [".md", ".html"])
def test_a_paper_does_not_give_its_key_away(tmp_path, ending):
    paper, key = exam.write_exam(tmp_path / f"a{ending}", 424_242, 12)
    asked, text = exam.draw(424_242), paper.read_text(encoding="utf-8")
    told = key.read_text(encoding="utf-8")
    assert key.name == f"a-key{ending}" and "424242" in told
    assert "424242" not in text and not re.search(r"https?://", text)
    for number, one in enumerate(asked, start=1):
        assert f"{number}{one.answer}" in told
        for shows in one.shows.values():
            assert exam._inline(shows) in told or shows in told
            assert shows not in text
    assert text.count("Question") == 12


def test_a_paper_that_cannot_be_made_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"out must end with \.html or \.md"):
        exam.write_exam(tmp_path / "a.pdf", 1, 2)
    one = ["--chapters", "local_attention", "--out", str(tmp_path / "a.md")]
    assert command.main(["exam", "--questions", "50", *one]) == 2
    assert "questions must be at most" in capsys.readouterr().err
    assert command.main(["exam", "--questions", "3", *one]) == 0
    assert re.search(r"seed \d+", capsys.readouterr().out)


def test_the_example_of_the_page_is_a_question():
    text = re.search(r"```toml\n(.*?)```", page("assignments"), re.DOTALL)[1]
    template = bank._template("local_attention", **tomllib.loads(text)["question"][0])
    for numbers in template.settings():
        asked = template.ask(numbers, random.Random(0))
        assert len(set(asked.choices.values())) == 3


def test_the_bank_is_installed_and_printed_on_no_page():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    data = project["tool"]["setuptools"]["package-data"]["attn_tutorial.exercises"]
    assert data == ["assignments.toml", "questions/*.toml", "zh.json"]
    files = {path.stem for path in bank.FOLDER.glob("*.toml")}
    assert files == set(CHAPTERS)
    pages = [path.read_text("utf-8") for path in ROOT.glob("book/**/*.md")]
    if HTML.exists():
        pages += [path.read_text("utf-8") for path in HTML.rglob("*.html")]
    public = "\n".join(pages)
    secrets = [template.because for template in bank.templates()]
    secrets += [task.look_for for one in assignments() for task in one.written]
    assert not [secret for secret in secrets if secret[:60] in public]


# Slides.

DECKS = sorted((TEACHING / "slides").glob("*.md"))


def test_the_guide_links_every_deck():
    linked = re.findall(r"_static/slides/(\w+)\.html", page("index"))
    assert sorted(linked) == [path.stem for path in DECKS]


@pytest.mark.parametrize("path", DECKS, ids=lambda path: path.stem)
def test_a_deck_is_made_of_the_chapters(path):
    source = path.read_text(encoding="utf-8")
    parts = slides.slides(source)
    made = slides.deck(source)
    assert made.count("<section>") == len(parts) >= 10
    assert not re.search(r'(?:src|href)="(?:https?:)?//', made)
    assert sum(bool(slides.FIGURE.search(part)) for part in parts) >= len(parts) / 2
    assert all("\nNote:\n" in part for part in parts)
    for part in parts[1:]:
        for chapter, heading in slides.FROM.findall(part) or [("", "")]:
            assert heading in headings(chapter), part


def test_a_figure_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="has 0 figures that begin 'No such'"):
        slides.figure("", "local_attention", "No such")


def test_a_figure_that_comes_later_is_not_there_before_the_bet():
    line = "{{%slocal_attention: Accuracy against the distance to the last name}}"
    now, then = (slides.slide(f"## Bet\n\n{line % when}") for when in ("", "later "))
    assert 'class="figure"' in now and 'class="figure fragment"' in then
    assert now.replace('"figure"', '"figure fragment"') == then


NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")


def words_of(chapter: str) -> str:
    """All that a chapter says, in text and in outputs, without coordinates."""
    text = []
    for cell in NOTEBOOKS[chapter].cells:
        text.append(cell.source)
        for out in cell.get("outputs", []):
            data = out.get("data", {})
            text += [str(out.get("text", "")), str(data.get("text/plain", ""))]
            markup = data.get("text/html", "")
            text += re.findall(r'aria-label="([^"]*)"', markup)
            text.append(re.sub(r"<style>.*?</style>|<[^>]*>", " ", markup))
    return "\n".join(text).replace("{,}", ",")


@pytest.mark.parametrize("path", DECKS, ids=lambda path: path.stem)
def test_numbers_on_slides_stand_in_their_chapters(path):
    for part in slides.slides(path.read_text(encoding="utf-8"))[1:]:
        place = slides.FROM.search(part)
        said = slides.FIGURE.sub("", slides.FROM.sub("", part))
        known = set(NUMBER.findall(words_of(place[1])))
        known |= {number.replace(",", "") for number in known}
        for number in NUMBER.findall(re.sub(r"^\d\. ", "", said, flags=re.MULTILINE)):
            if len(number) > 1 and number.rstrip(",") not in known:
                raise AssertionError(f"{number} stands not in {place[1]}: {part[:60]}")


# Timings.


def test_the_times_are_of_all_chapters():
    assert teaching_pages.in_order() == list(CHAPTERS)
    rows = re.findall(r"^\| \d+ \|.+\|$", teaching_pages.timings(), re.MULTILINE)
    assert [LINK.search(row)[2] for row in rows] == list(CHAPTERS)
    if teaching_pages.RECORD.exists():
        record = json.loads(teaching_pages.RECORD.read_text(encoding="utf-8"))
        assert {"started", "torch", "python", "revision", "device"} <= record.keys()
        for entry in record["chapters"]:
            assert 0 < entry["seconds"] < 120 and 50 < entry["mib"] < 4096


def test_processes_below_one_are_found():
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        assert child.pid in timings.below(os.getpid())
        assert timings.memory(child.pid) > 2**20
        child.communicate(b"\n")
    assert timings.memory(child.pid) == 0


# In the browser.


@pytest.mark.browser
def test_the_cheat_sheet_fills_two_pages(tab):
    page = tab.open("book/teaching/cheat_sheet.html")
    page.emulate_media(media="print")
    pdf = page.pdf(prefer_css_page_size=True)
    page.emulate_media(media="null")
    sheets = book_pdf.sheets(pdf)
    assert len(sheets) == 2
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert [round(float(x)) for x in box.groups()] == [595, 842]
    tab.assert_clean()


@pytest.mark.browser
@pytest.mark.parametrize(
    ("path", "scheme"),
    [(path, ("light", "dark")[k % 2]) for k, path in enumerate(DECKS)],
    ids=[path.stem for path in DECKS],
)
def test_a_deck_moves_by_keyboard_and_fits(chromium, site, path, scheme):
    context = chromium.new_context(
        color_scheme=scheme,
        reduced_motion="reduce",
        viewport={"width": 1280, "height": 720},
    )
    page, wrong = context.new_page(), []
    page.on("request", lambda r: wrong.append(r.url) if site not in r.url else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"{site}_static/slides/{path.stem}.html")
    page.wait_for_function("() => window.Reveal && Reveal.isReady()")
    total = page.evaluate("Reveal.getTotalSlides()")
    assert total == len(slides.slides(path.read_text(encoding="utf-8")))
    wide, small = {}, {}
    for number in range(total):
        later = page.locator(".present .fragment:not(.visible)")
        for _ in range(later.count()):  # a figure waits for the bet
            assert not later.first.is_visible()
            page.keyboard.press("ArrowRight")
        assert later.count() == 0
        if found := page.evaluate(BEYOND):
            wide[number] = found
        if found := page.evaluate(SMALL, "section.present .slide"):
            small[number] = found
        page.keyboard.press("ArrowRight")
    assert not wide
    assert not small
    assert page.evaluate("Reveal.isLastSlide()")
    page.keyboard.press("t")
    theme = page.evaluate("document.documentElement.dataset.theme")
    assert theme == ("light" if scheme == "dark" else "dark")
    context.close()
    assert not [what for what in wrong if not what.startswith("data:")]


BEYOND = """() => {
    const slide = document.querySelector("section.present .slide");
    const edge = slide.getBoundingClientRect();
    const seen = box => box.height > 0 && box.width > 0;
    const now = ":not(.attn-f[hidden], .attn-f[hidden] *)";
    const shown = what => [...slide.querySelectorAll(`:is(${what})${now}`)]
        .filter(e => e.checkVisibility({visibilityProperty: true}));
    const beyond = shown("*").filter(e => {
        const box = e.getBoundingClientRect();
        return seen(box) && (box.bottom > edge.bottom + 1 || box.right > edge.right + 1
            || box.left < edge.left - 1 || box.top < edge.top - 1);
    });
    const pictures = shown("svg, .attn-t").map(e => e.getBoundingClientRect());
    const covered = shown("h1, h2, .words, .attn-a, .from").filter(e => {
        const box = e.getBoundingClientRect();
        return seen(box) && pictures.some(p => box.right > p.left + 1
            && box.left < p.right && box.bottom > p.top && box.top < p.bottom);
    });
    const words = shown(".words, .attn-a, .attn-x > button, .from");
    const crossing = words.filter((e, k) => k && e.matches(".from")
        && e.getBoundingClientRect().top < words[k - 1].getBoundingClientRect().bottom);
    return [...beyond, ...covered, ...crossing]
        .map(e => e.outerHTML.slice(0, 80)).slice(0, 3);
}"""
# Letters of less than 18 pixels; 16 in two pictures that share a width. Exponents are
# smaller than what they stand on.
SMALL = """what => [...document.querySelectorAll(
    `${what} :not(path, rect, .attn-f[hidden], .attn-f[hidden] *)`)].filter(e => {
    const own = [...e.childNodes].some(c => c.nodeType === 3 && c.data.trim());
    const less = "style, script, option, .attn-say, sub, sup, tspan[font-size$='%']";
    if (!own || e.matches(less)) return false;
    if (!e.checkVisibility({visibilityProperty: true})) return false;
    let size = parseFloat(getComputedStyle(e).fontSize);
    if (e.ownerSVGElement) {
        const matrix = e.getScreenCTM();
        size *= Math.hypot(matrix.a, matrix.b);
    }
    return size < (e.closest(".attn-f")?.querySelector("svg ~ svg") ? 16 : 17.9);
}).map(e => e.textContent.slice(0, 30)).slice(0, 3)"""


@pytest.mark.browser
@pytest.mark.parametrize("path", DECKS, ids=lambda path: path.stem)
def test_a_deck_is_a_column_of_cards_on_a_phone(tab, path):
    page = tab.open(f"_static/slides/{path.stem}.html", width=390)
    cards = page.locator(".slide")
    assert cards.count() == len(slides.slides(path.read_text(encoding="utf-8")))
    assert page.evaluate("!Reveal.isReady()")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(ASIDE) == []
    assert cards.last.is_visible() and not page.locator(".notes").first.is_visible()
    page.click("#notes")
    assert page.locator(".notes").last.is_visible()
    tab.assert_clean()


# What reaches beyond a phone, a picture that does not fill its width, small letters.
ASIDE = """() => [...document.querySelectorAll(
    ".slide :not(.attn-f[hidden], .attn-f[hidden] *)")].filter(e => {
    if (!e.checkVisibility({visibilityProperty: true})) return false;
    const box = e.getBoundingClientRect(), size = getComputedStyle(e).fontSize;
    return box.right > innerWidth + 1 && !e.closest(".attn-w")
        || e.matches("svg:not(svg svg)") && box.width < innerWidth - 12
        || e.matches(".words, .attn-a, .from") && parseFloat(size) < 14;
}).map(e => e.outerHTML.slice(0, 80)).slice(0, 3)"""


@pytest.mark.browser
def test_the_window_of_the_speaker_shows_slides_however_small(tab):
    page = tab.open("_static/slides/quality.html?receiver", width=390)
    page.wait_for_function("() => window.Reveal && Reveal.isReady()")
    assert page.locator("section.present").bounding_box()["width"] <= 390


@pytest.mark.browser
def test_a_deck_prints_as_a_handout(tab):
    page = tab.open("_static/slides/ninety_minutes.html")
    page.wait_for_function("() => window.Reveal && Reveal.isReady()")
    handout = page.pdf(prefer_css_page_size=True)
    count = len(
        slides.slides((TEACHING / "slides/ninety_minutes.md").read_text("utf-8"))
    )
    assert count / 3 <= len(book_pdf.sheets(handout)) <= count / 2


@pytest.mark.browser
def test_an_explorer_on_a_slide_moves(chromium, site):
    page = chromium.new_page(reduced_motion="reduce")
    page.goto(f"{site}_static/slides/ninety_minutes.html#/5")
    page.wait_for_function("() => window.Reveal && Reveal.isReady()")
    slider = page.locator("section.present input[type=range]").first
    shown = """() => [...document.querySelectorAll("section.present .attn-f")]
        .findIndex(frame => !frame.hidden)"""
    before = page.evaluate(shown)
    slider.focus()
    slider.press("ArrowRight")
    after = page.evaluate(shown)
    assert after == before + 1
    assert page.evaluate("Reveal.getIndices().h") == 5, "the slide turned as well"
    page.close()
