"""The list of mutants stays in step with the code that it breaks."""

import ast
import shutil

import pytest
from mutants import MUTANTS, ROOT, TESTS, Mutant, apply


def test_there_are_mutants_of_every_module_of_the_equations():
    assert len(MUTANTS) >= 40
    assert {mutant.module for mutant in MUTANTS} == set(TESTS)
    assert len(set(MUTANTS)) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_each_mutant_changes_one_place_and_still_parses(mutant, tmp_path):
    (tmp_path / "attn_tutorial").mkdir()
    name = f"attn_tutorial/{mutant.module}.py"
    shutil.copy(ROOT / name, tmp_path / name)
    apply(mutant, tmp_path)
    changed = (tmp_path / name).read_text()
    assert changed != (ROOT / name).read_text()
    ast.parse(changed)


def test_a_stale_mutant_is_refused(tmp_path):
    (tmp_path / "attn_tutorial").mkdir()
    (tmp_path / "attn_tutorial" / "dense.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="found 0 times"):
        apply(Mutant("dense", "no such text", ""), tmp_path)
