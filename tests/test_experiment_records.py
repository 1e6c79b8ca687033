"""The committed records are whole, and the page that shows them is up to date."""

import re
import shutil
import sys

import pytest
from conftest import ROOT

from attn_tutorial.experiments.__main__ import main
from attn_tutorial.experiments.comparison import LEAST_SEEDS
from attn_tutorial.experiments.figures.results import FIGURES
from attn_tutorial.experiments.records import SCHEMA, OpenRecord, load, record_path
from attn_tutorial.experiments.registry import EXPERIMENTS
from attn_tutorial.experiments.runner import pending

# Studies whose full runs are still to be made. A name leaves with its first record.
AWAITED: set[str] = set()


@pytest.fixture(params=[name for name in EXPERIMENTS if name not in AWAITED])
def name(request):
    return request.param


def test_what_has_a_record_is_not_awaited():
    assert {name for name in EXPERIMENTS if not record_path(name).exists()} == AWAITED


def test_nothing_is_left_to_train(name, tmp_path):
    shutil.copy(record_path(name), tmp_path)
    with OpenRecord(name, EXPERIMENTS[name].question, tmp_path) as record:
        missing = pending(EXPERIMENTS[name], record, quick=False, seeds=LEAST_SEEDS)
    assert missing == []


def test_runs_come_from_clean_revisions(name):
    made = [run.made for run in load(name)]
    assert not any(known["dirty"] for known in made)
    assert all(re.fullmatch("[0-9a-f]{40}", known["revision"]) for known in made)


def test_tuning_has_seeds_of_its_own(name):
    runs = load(name)
    final = {run.seed for run in runs.final}
    tuning = {run.seed for run in runs if run.setting.get("stage") == "tuning"}
    assert len(final) >= LEAST_SEEDS and not final & tuning


def test_the_page_shows_the_records_as_they_are():
    sys.path.insert(0, str(ROOT / "scripts"))
    import experiment_page

    text = experiment_page.PAGE.read_text(encoding="utf-8")
    assert experiment_page.page(text) == text, "run 'make index'"
    included = re.search(r"literalinclude\} (\S+)", text)[1]
    assert (experiment_page.PAGE.parent / included).resolve() == SCHEMA
    for path, svg in experiment_page.figures().items():
        stored = path.read_text(encoding="utf-8")
        assert spoken(stored) == spoken(svg), "run 'make index'"


def spoken(svg):
    return re.search(' aria-label="(.*?)"', svg)[1]


def test_report_draws_and_prints_all_that_is_recorded(tmp_path, capsys):
    assert main(["report", "--figures", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert all(f"## {name}\n" in printed for name in EXPERIMENTS)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    there = [
        draw for known in FIGURES if known not in AWAITED for draw in FIGURES[known]
    ]
    assert len(drawn) == len(there) > 15
    assert all(name in printed for name in drawn)
