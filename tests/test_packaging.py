"""The files around the package agree with one another."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import nbformat
import pytest
import yaml
from conftest import LONGEST, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(ROOT / "scripts"))
import execute
import publish_as

from attn_tutorial.experiments.data import corpora

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ADDRESS = r"https://github\.com/([\w.-]+/[\w-]+)"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# One address


def slug(root=ROOT) -> str:
    return "/".join(publish_as.current_address(root))


def addresses(root) -> dict[str, set[str]]:
    """The repository's address as each file that repeats it has it."""
    text = {path: (root / path).read_text() for path in publish_as.FILES}
    project = tomllib.loads(text["pyproject.toml"])["project"]
    citation = yaml.safe_load(text["CITATION.cff"])
    found = {
        "pyproject.toml": re.findall(ADDRESS, json.dumps(project["urls"])),
        "CITATION.cff": re.findall(ADDRESS, citation["repository-code"]),
        "README.md: badges": re.findall(rf"\]\({ADDRESS}/actions", text["README.md"]),
        "README.md: clone": re.findall(rf"git clone {ADDRESS}", text["README.md"]),
    }
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        setup = set_up_cell(path)
        found[path.name] = re.findall(rf'git\+{ADDRESS}"', setup)
    return {place: set(slugs) for place, slugs in found.items()}


def set_up_cell(path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


def pages_address(root) -> str:
    owner, repo = publish_as.current_address(root)
    return f"https://{owner}.github.io/{repo}/"


def test_every_file_has_the_address_of_config_yml():
    assert addresses(ROOT) == {place: {slug()} for place in addresses(ROOT)}
    for name in ("README.md", "CITATION.cff", "pyproject.toml"):
        assert pages_address(ROOT) in read(name), name


def test_publish_as_sets_the_address_everywhere(tmp_path):
    for name in (*publish_as.FILES, "book", "notebooks"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tmp_path / name)
    old = publish_as.current_address(tmp_path)
    publish_as.publish_as(tmp_path, "ada-l", "attention.notes")
    assert slug(tmp_path) == "ada-l/attention.notes"
    for path in publish_as.files_with_address(tmp_path):
        text = path.read_text(encoding="utf-8")
        assert "/".join(old) not in text, path
        assert f"{old[0]}.github.io" not in text, path
    assert publish_as.publish_as(tmp_path, *old), "no way back"
    for path in publish_as.files_with_address(tmp_path):
        same = ROOT / path.relative_to(tmp_path)
        assert path.read_bytes() == same.read_bytes(), path


@pytest.mark.parametrize("names", [("", "x"), ("a b", "x"), ("a", "x/y"), ("a", "x.")])
def test_publish_as_refuses_what_is_no_name(tmp_path, names):
    with pytest.raises(ValueError, match=r"(OWNER|REPO) must be a name"):
        publish_as.publish_as(ROOT, *names)


def test_a_longer_name_is_another_repository():
    text = "see me/book, not me/book-two, not.me/book or some/book"
    new = publish_as.replace_address(text, ("me", "book"), ("you", "tome"))
    assert new == "see you/tome, not me/book-two, not.me/book or some/book"


# Versions


def pins(name: str) -> dict[str, str]:
    """Package name -> exact version, for a requirements file and those it includes."""
    found = {}
    for line in read(name).splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r "))
        elif line:
            package, _, version = line.partition("==")
            assert version, f"{name}: {line!r} is not an exact pin"
            found[canonicalize_name(package)] = version
    return found


def ranges() -> list[Requirement]:
    project = PYPROJECT["project"]
    extras = dict(project["optional-dependencies"])
    del extras["triton"]  # torch for a GPU brings the version that it was built with
    extras = extras.values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    found = map(Requirement, lines)
    return [r for r in found if canonicalize_name(r.name) != "attn-tutorial"]


def test_pins_lie_in_the_ranges_of_pyproject():
    exact = pins("requirements/benchmark.txt") | pins("requirements.txt")
    for requirement in ranges():
        version = exact.get(canonicalize_name(requirement.name))
        assert version, f"no requirements file pins {requirement.name}"
        assert requirement.specifier.contains(version), (requirement, version)


def test_torch_is_pinned_and_the_site_does_without_it():
    assert pins("requirements.txt")["torch"] == "2.13.0"
    assert "torch" not in pins("requirements/book.txt")


def test_no_file_names_a_package_index():
    names = ["requirements.txt", "requirements/book.txt", "Makefile", "pyproject.toml"]
    for name in names:
        assert not re.search(r"index-url|find-links|://[^\s\"]*simple", read(name)), (
            name
        )


def test_citation_and_package_have_one_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert str(citation["version"]) == PYPROJECT["project"]["version"]


# Commands and chapters


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "book/how_to_use.md"])
def test_every_make_command_in_the_text_exists(name):
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", read(name), re.M))
    assert named and named <= targets, named - targets


def test_the_files_that_are_tested_first_exist():
    assert all((ROOT / "tests" / f"{name}.py").exists() for name in LONGEST)


def test_links_in_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)", read("README.md")):
        assert (ROOT / target).exists(), target


def test_the_table_of_contents_names_every_notebook():
    listed = set(re.findall(r"file: (notebooks/\w+)", read("_toc.yml")))
    assert listed == {f"notebooks/{path.stem}" for path in NOTEBOOKS}


# These read the source code of two packages, in one version.
SOURCES = "docutils==0.21.2 Sphinx==7.4.7 "
READERS = {"does_sparsity_hurt", "choosing_a_window", "other_improvements"}


def test_all_chapters_start_with_the_same_set_up_cell():
    cells = {path.stem: set_up_cell(path) for path in NOTEBOOKS}
    assert {name for name, cell in cells.items() if SOURCES in cell} == READERS
    without = {cell.replace(SOURCES, "") for cell in cells.values()}
    assert len(without) == 1, f"{len(without)} different set-up cells"


def test_the_set_up_cells_pin_what_the_records_were_made_from():
    assert SOURCES.split() == [f"{name}=={v}" for name, v in corpora.VERSIONS.items()]
    for name, version in corpora.VERSIONS.items():
        assert pins("requirements.txt")[canonicalize_name(name)] == version


def set_up(folder, *, colab: bool) -> subprocess.CompletedProcess:
    """Run the start of a set-up cell for a package that is not installed."""
    cell = set_up_cell(NOTEBOOKS[0]).split("\n\nimport torch")[0]
    cell = cell.replace("attn_tutorial", "stand_in")
    brought = f"sys.path.insert(0, {str(folder / 'brought')!r}); print('pip')"
    cell = re.sub(r"%pip install .*", lambda _: brought, cell)
    start = "import sys; sys.modules['google.colab'] = sys\n" if colab else ""
    command = [sys.executable, "-c", f"{start}{cell}\nprint(at.__file__)"]
    folder = folder / "notebooks"
    folder.mkdir(exist_ok=True)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_set_up_cell_takes_the_package_beside_the_notebook(tmp_path):
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "__init__.py").touch()
    done = set_up(tmp_path, colab=True)
    assert done.stdout.strip() == str(tmp_path / "stand_in" / "__init__.py")


def test_the_set_up_cell_installs_in_colab_and_nowhere_else(tmp_path):
    (tmp_path / "brought" / "stand_in").mkdir(parents=True)
    (tmp_path / "brought" / "stand_in" / "__init__.py").touch()
    assert set_up(tmp_path, colab=True).stdout.startswith("pip\n")
    done = set_up(tmp_path, colab=False)
    assert done.returncode == 1 and done.stdout == ""
    said = "ImportError: Run this notebook in a copy of its repository."
    assert done.stderr.strip().splitlines()[-1] == said
    assert "ModuleNotFoundError" not in done.stderr


def test_lab_trusts_the_stored_outputs_first():
    recipe = read("Makefile").split("\nlab:")[1].split("\n\n")[0].splitlines()[2:]
    assert "jupyter trust notebooks/*.ipynb" in recipe[0]
    assert "jupyter lab notebooks" in recipe[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_chapters_are_stored_the_way_the_script_writes_them(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata == execute.METADATA
    for cell in notebook.cells:
        execute.clean_cell(cell)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    text = nbformat.writes(notebook)
    assert path.read_text(encoding="utf-8") == text.rstrip("\n") + "\n"


# What is installed


def test_every_package_and_the_records_are_installed():
    setup = PYPROJECT["tool"]["setuptools"]
    folders = {path.parent for path in (ROOT / "attn_tutorial").rglob("__init__.py")}
    found = {".".join(path.relative_to(ROOT).parts) for path in folders}
    assert setup["package-dir"] == {
        "attn_tutorial.benchmark.practised": "book/data/practice",
        "attn_tutorial.benchmark.predicted": "book/data/predictions",
        "attn_tutorial.benchmark.recorded": "book/data/benchmarks",
        "attn_tutorial.experiments.recorded": "book/data/experiments",
    }
    assert set(setup["packages"]) == found | set(setup["package-dir"])


def test_an_installed_package_reads_the_records(tmp_path):
    """Installed from a copy and moved away from the book: as on Colab."""
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "attn_tutorial", source / "attn_tutorial", ignore=ignored)
    shutil.copytree(ROOT / "book/data", source / "book/data")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    pip += ["--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code = (
        "from attn_tutorial import benchmark\n"
        "name = benchmark.devices()[0]\n"
        "print(benchmark.__file__, name, len(benchmark.load(name)))\n"
        "print(benchmark.record.SCHEMA.exists())"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    env = os.environ | {"PYTHONPATH": str(target)}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(target)), "another copy was imported"
    runs = len(list((ROOT / "book/data/benchmarks").glob("cpu-*.json")))
    assert f" cpu {runs}\nTrue" in done.stdout


# Imports

BLOCKED = "import sys; sys.modules.update(dict.fromkeys({names}))\n{code}"
OPTIONAL = ["matplotlib", "numpy", "ipywidgets", "IPython", "triton", "transformers"]
OPTIONAL += ["jsonschema", "tqdm", "local_attention", "soundfile", "espeakng_loader"]


def run_without(names: list[str], code: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter in which the named modules cannot be imported."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BLOCKED.format(names=names, code=code)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_core_needs_only_torch():
    code = (
        "import torch, attn_tutorial as at\n"
        "x = torch.ones(1, 8, 4)\n"
        "assert at.local_attention(x, x, x, window=1).shape == (1, 8, 4)\n"
        "assert at.sparse_attention(x, x, x, block_size=2).shape == (1, 8, 4)\n"
        "at.cost.kept_pairs(at.patterns.local(1), 8)\n"
        "from attn_tutorial import benchmark\n"
        "benchmark.load('cpu')\n"
    )
    done = run_without(OPTIONAL, code)
    assert done.returncode == 0, done.stderr


def test_blocking_an_import_works():
    done = run_without(["torch"], "import attn_tutorial")
    assert "ModuleNotFoundError" in done.stderr or "ImportError" in done.stderr


# The script that runs notebooks


def write_notebook(path, source: str):
    cell = nbformat.v4.new_code_cell(source, id="a")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


def test_a_second_run_writes_the_same_bytes(tmp_path):
    path = tmp_path / "x.ipynb"
    write_notebook(path, "print(0.5)\n0.25")
    execute.execute(path)
    first = path.read_bytes()
    execute.execute(path)
    assert path.read_bytes() == first
    assert b'"0.25"' in first and b"0.5" in first


@pytest.mark.parametrize("source", ["1 / 0", "import sys\n_ = sys.stderr.write('x')"])
def test_a_run_that_complains_writes_nothing(tmp_path, source):
    path = tmp_path / "x.ipynb"
    write_notebook(path, source)
    before = path.read_bytes()
    with pytest.raises((Exception, SystemExit)):
        execute.execute(path)
    assert path.read_bytes() == before


def test_an_experiment_needs_no_progress_bar():
    code = (
        "from pathlib import Path; import tempfile\n"
        "from attn_tutorial.experiments import runner\n"
        "assert list(runner._shown([1, 2], 'x', 2)) == [1, 2]\n"
    )
    done = run_without(["tqdm"], code)
    assert done.returncode == 0, done.stderr


def test_a_repository_around_an_installed_copy_is_not_its_own(tmp_path):
    package = tmp_path / "site-packages" / "attn_tutorial"
    package.mkdir(parents=True)
    for name in ("__init__.py", "provenance.py"):
        shutil.copy(ROOT / "attn_tutorial" / name, package)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "thesis"], check=True)
    (package / "__init__.py").write_text("")
    code = (
        f"import sys; sys.path.insert(0, {str(package.parent)!r})\n"
        "from attn_tutorial import provenance\n"
        f"assert provenance.__file__.startswith({str(tmp_path)!r})\n"
        "print(*provenance.git_revision())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert "False" in done.stdout and "version" in done.stdout, done.stderr
