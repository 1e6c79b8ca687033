"""Run chapters as Colab would: alone in an empty folder, by their own set-up cell.

    python scripts/colab.py [--setup] [notebooks/NAME.ipynb ...]

The package must not be installed where this runs (`make colab` sees to that). The
set-up cell fetches it from the repository's address, which leads to a copy of this
working tree here: the notebook is not changed for it. What a chapter installs goes
into an environment of its own, so that none finds what another one brought.

--setup runs nothing but the set-up cells.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from contextlib import contextmanager
from pathlib import Path

import nbformat
import publish_as
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]

# These run before the first cell: the package is not installed, also where it is (in
# the environment of `make test`), and this is Colab.
HIDDEN = """
import pathlib, sys
sys.path[:] = [p for p in sys.path if not pathlib.Path(p, "attn_tutorial").is_dir()]
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in f.__module__]
"""
COLAB = """
import sys, types
for name in ("google", "google.colab"):
    sys.modules.setdefault(name, types.ModuleType(name))
"""
WHERE = "import attn_tutorial; print(attn_tutorial.__file__)"
PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def git(*arguments: str, folder: Path) -> str:
    """Run git in a folder and return what it prints."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def stand_in(folder: Path) -> Path:
    """A repository whose one commit is this working tree, without what git ignores."""
    listed = git("ls-files", "-coz", "--exclude-standard", folder=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git("init", "-q", "-b", "main", folder=folder)
    git("add", "-A", folder=folder)
    somebody = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    git(*somebody, "commit", "-q", "-m", "as it is", folder=folder)
    return folder


def environment(folder: Path, repository: Path) -> dict[str, str]:
    """What a kernel gets, so that the repository's address leads into a folder here."""
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "colab.py").write_text(HIDDEN + COLAB)
    address = "https://github.com/" + "/".join(publish_as.current_address(ROOT))
    known = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    return {
        **known,
        "IPYTHONDIR": str(folder / "ipython"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }


def interpreter(folder: Path) -> Path:
    """A Python that has what this one has; what it installs, it keeps to itself."""
    venv.create(folder / "installed", symlinks=True)
    place = {"base": str(folder / "installed"), "platbase": str(folder / "installed")}
    own = Path(sysconfig.get_path("purelib", "venv", place))
    (own / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Path(sysconfig.get_path("scripts", "venv", place), "python")


def only_set_up(notebook) -> None:
    """Keep the first code cell, which is the set-up cell of a chapter."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = code[:1]


@contextmanager
def surroundings(repository: Path):
    """An empty folder for a notebook, and what its kernel gets."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "content").mkdir()
        yield folder / "content", environment(folder, repository)


def run(path: Path, repository: Path, *, setup: bool = False) -> tuple[str, int]:
    """Run a chapter alone.

    Returns:
        Where its package came from, and the kernel's peak memory (on Linux, in KiB).

    Raises:
        CellExecutionError: If a cell fails.
    """
    with surroundings(repository) as (folder, known):
        notebook = nbformat.read(path, as_version=4)
        if setup:
            only_set_up(notebook)
        notebook.cells += map(nbformat.v4.new_code_cell, (WHERE, PEAK))
        nbformat.write(notebook, folder / path.name)
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(notebook, timeout=600, resources=resources)
        python = str(interpreter(folder.parent))
        client.create_kernel_manager().kernel_spec.argv[0] = python
        client.execute(env=known)
        source, peak = (x.outputs[0].text.strip() for x in notebook.cells[-2:])
        return str(Path(source).relative_to(folder.parent)), int(peak)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setup", action="store_true", help="only the set-up cells")
    parser.add_argument("notebooks", nargs="*", type=Path)
    chosen = parser.parse_args(arguments)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        repository = stand_in(Path(folder))
        for path in chosen.notebooks or sorted(ROOT.glob("notebooks/*.ipynb")):
            start = time.perf_counter()
            try:
                came, peak = run(path.resolve(), repository, setup=chosen.setup)
                seconds = time.perf_counter() - start
                print(f"{path.stem}: {seconds:.0f} s, {peak / 2**20:.1f} GiB, {came}")
            except (CellExecutionError, ValueError) as error:
                failed.append(path.stem)
                print(f"{path.stem}: FAILED\n{error}")
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
