"""What leads to Colab, to Binder and to a class's JupyterHub is right.

`make colab` and `make hub` do the same at length: every chapter with Colab's versions,
and a real hub.
"""

import ast
import copy
import json
import os
import re
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import jsonschema
import nbformat
import pytest
import yaml
from conftest import ROOT
from nbformat.sign import NotebookNotary

sys.path.insert(0, str(ROOT / "scripts"))
import colab
import hub_links

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OURS = {"attn_tutorial"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==(\S+)$", read(name), re.M))


# Colab


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a copy without its history")
def test_a_chapter_runs_alone_with_what_its_first_cell_brings(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # no network: setuptools is here
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip reads it as an answer
    (tmp_path / "repository").mkdir()
    repository = colab.stand_in(tmp_path / "repository")
    came, _ = colab.run(ROOT / "notebooks/self_attention.ipynb", repository)
    assert re.fullmatch(r"installed/.*/site-packages/attn_tutorial/__init__\.py", came)


def test_colab_s_list_agrees_with_the_constraints_of_its_unit_tests():
    brings, tested = (
        pins("requirements/colab.txt"),
        pins("requirements/versions/colab.txt"),
    )
    for name in ("torch", "numpy", "ipywidgets"):
        assert brings[name] == tested[name]


# Binder


def imported(path) -> set[str]:
    """The packages that a chapter's cells import."""
    found = set()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            source = re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.M)
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - OURS


def test_binder_brings_what_the_chapters_import_in_the_pinned_versions():
    brings = pins(".binder/requirements.txt")
    pinned = pins("requirements.txt") | pins("requirements/book.txt")
    pinned |= pins("requirements/benchmark.txt") | pins("requirements/hub.txt")
    assert brings == {name: pinned[name] for name in brings}
    wanted = set().union(*map(imported, NOTEBOOKS)) - {"IPython"}  # of ipywidgets
    assert {"torch", "numpy"} <= wanted <= set(brings)


def test_binder_s_python_is_the_one_that_the_book_is_built_with():
    version = re.fullmatch(r"python-(3\.\d+)\n", read(".binder/runtime.txt"))[1]
    assert f'python-version: "{version}"' in read(".github/workflows/book.yml")
    assert not (ROOT / "runtime.txt").exists(), "Binder reads .binder alone"


def test_what_binder_runs_trusts_every_chapter(tmp_path):
    command, folder = ROOT / ".binder/postBuild", str(tmp_path)
    assert os.access(command, os.X_OK)
    tools = os.path.dirname(sys.executable)
    known = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "JUPYTER_DATA_DIR": folder,
    }
    notary = NotebookNotary(data_dir=folder)
    chapters = [nbformat.read(path, as_version=4) for path in NOTEBOOKS]
    assert not any(map(notary.check_signature, chapters))
    subprocess.run([command], cwd=ROOT, env=known, check=True, capture_output=True)
    assert all(map(NotebookNotary(data_dir=folder).check_signature, chapters))


# A class's JupyterHub

VALUES = yaml.safe_load(read("deploy/jupyterhub/values.yaml"))
SCHEMA = json.loads(read("deploy/jupyterhub/chart.schema.json"))


def test_the_values_are_what_the_chart_allows():
    jsonschema.validate(VALUES, SCHEMA)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        (("singleuser", "memory"), "limits", "3G"),
        (("singleuser", "image"), "tag", 2026.12),
        (("cull",), "timeout", "an hour"),
        (("proxy", "https"), "host", "hub.example.edu"),
        (("hub", "config"), "native", {}),
        ((), "singleUser", {}),
    ],
)
def test_a_slip_in_the_values_is_noticed(place, key, value):
    values = copy.deepcopy(VALUES)
    part = values
    for name in place:
        part = part[name]
    part[key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)


def test_chart_and_hub_have_one_version_everywhere():
    chart = re.search(r"chart ([\d.]+\d)", read("deploy/jupyterhub/values.yaml"))[1]
    hub = re.search(r"JupyterHub ([\d.]+\d)", read("deploy/jupyterhub/values.yaml"))[1]
    assert f"--version {chart} " in read("book/where_it_runs.md")
    assert f"chart {chart}," in SCHEMA["description"]
    assert pins("requirements/hub.txt")["jupyterhub"] == hub
    assert chart in read("requirements/hub.txt")


def test_there_is_a_link_for_each_chapter(capsys):
    hub_links.main(["https://hub.example.edu/"])
    links = capsys.readouterr().out.split()
    assert len(links) == len(NOTEBOOKS)
    for link in links:
        parts = urlsplit(link)
        assert (parts.netloc, parts.path) == (
            "hub.example.edu",
            "/hub/user-redirect/git-pull",
        )
        wanted = {name: values[0] for name, values in parse_qs(parts.query).items()}
        folder = wanted["repo"].rsplit("/", 1)[1]
        inside = wanted["urlpath"].removeprefix(f"lab/tree/{folder}/")
        assert (ROOT / inside).is_file() and wanted["branch"] == "main"


def test_a_link_of_another_copy_opens_that_one():
    link = hub_links.link(
        "http://h:8000", "https://x.org/a/course.git", "2026", "scaling"
    )
    wanted = parse_qs(urlsplit(link).query)
    assert wanted["urlpath"] == ["lab/tree/course/notebooks/scaling.ipynb"]
    assert wanted["branch"] == ["2026"]


@pytest.mark.parametrize("hub", ["hub.example.edu", "ftp://x", "https://"])
def test_a_hub_s_address_must_be_one(hub):
    with pytest.raises(SystemExit, match="hub must be an address like https://host"):
        hub_links.main([hub])
