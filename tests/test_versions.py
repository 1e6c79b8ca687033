"""What the files say of versions is one story, and a part that needs more refuses."""

import re
import tomllib

import pytest
import yaml
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pins(name):
    """The versions of a file of requirements, by package."""
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.M))


def lower_bounds():
    """What pyproject.toml allows at least, by package."""
    wanted = PROJECT["dependencies"] + [x for extra in EXTRAS.values() for x in extra]
    found = [re.match(r"([\w-]+)>=([\d.]+)", text) for text in wanted]
    return {match[1]: match[2] for match in found if match}


def test_the_oldest_environment_has_the_oldest_of_what_is_allowed():
    oldest, allowed = pins("versions/oldest.txt"), lower_bounds()
    for name, version in oldest.items():
        bound = allowed[name].split(".")
        assert version.split(".")[: len(bound)] == bound, (name, version)
    tools = {"jupyterlab", "axe-playwright-python", "playwright", "ruff"}
    site = {"jupyter-book", "sphinx-mathjax-offline"}
    assert set(allowed) - set(oldest) == tools | site


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_pages_name_the_oldest_versions(page):
    text, allowed = (ROOT / page).read_text(), lower_bounds()
    wanted = f"PyTorch {allowed['torch']} and NumPy {allowed['numpy']}"
    assert wanted in " ".join(text.split())


def test_pinned_versions_are_allowed():
    pinned = pins("../requirements.txt")
    for name, least in lower_bounds().items():
        if name in pinned:
            have = [int(part) for part in re.findall(r"\d+", pinned[name])]
            assert have >= [int(part) for part in least.split(".")], name


def test_the_workflow_runs_every_environment():
    script = (ROOT / "scripts/versions.sh").read_text()
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    run = workflow["jobs"]["versions"]["strategy"]["matrix"]["versions"]
    names = set(re.search(r"set -- (.*)", script)[1].split())
    assert set(run) == names - {"pinned"}  # that one has a job of its own
    assert "bash .ci/run" in str(workflow["jobs"]["pinned"])


def test_the_workflow_runs_chapters_alone_and_a_hub():
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    for name in ("colab", "hub"):
        assert jobs[name]["steps"][-1]["run"] == f"make {name}"
        script = (ROOT / f"scripts/{name}.sh").read_text()
        assert f"requirements/{name}.txt" in script
    python = jobs["colab"]["steps"][1]["with"]["python-version"]
    assert f"Python {python}" in (ROOT / "requirements/colab.txt").read_text()


def test_typing_and_tests_are_part_of_what_is_distributed():
    assert (ROOT / "attn_tutorial/py.typed").exists()
    manifest = (ROOT / "MANIFEST.in").read_text()
    assert "graft tests" in manifest and "graft notebooks" in manifest
