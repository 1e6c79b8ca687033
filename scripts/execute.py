"""Run notebooks in place, so that a second run gives the same bytes.

    python scripts/execute.py [notebooks/NAME.ipynb ...]

Nothing is written when a run fails or prints to stderr. Timing, widget views and
widget state are left out.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


def clean_cell(cell) -> None:
    """Keep only what is the same in every run."""
    names = ("tags", "jupyter")
    kept = {key: cell.metadata[key] for key in names if key in cell.metadata}
    cell.metadata = nbformat.from_dict(kept)
    for output in cell.get("outputs", []):
        output.get("data", {}).pop(WIDGET_VIEW, None)


def stderr_of(notebook) -> str:
    return "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    )


def execute(path: Path) -> str:
    """Run one notebook from top to bottom and write it back."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = nbformat.from_dict(METADATA)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    if message := stderr_of(notebook):
        raise SystemExit(f"{path.name} printed to stderr, nothing written:\n{message}")
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        clean_cell(cell)
    nbformat.write(notebook, path)
    return path.name


def main(arguments: list[str]) -> None:
    paths = [Path(a).resolve() for a in arguments]
    with ProcessPoolExecutor(2) as pool:
        for name in pool.map(execute, paths or sorted(ROOT.glob("notebooks/*.ipynb"))):
            print("ran", name)


if __name__ == "__main__":
    main(sys.argv[1:])
