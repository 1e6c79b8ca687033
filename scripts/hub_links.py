"""Print a link for each chapter that opens it on a class's JupyterHub.

    python scripts/hub_links.py https://hub.example.edu [--repository URL]

A link lets nbgitpuller bring the repository into the student's folder, or bring a copy
up to date, and then opens the chapter in JupyterLab.
"""

import argparse
import re
import sys
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import publish_as

ROOT = Path(__file__).resolve().parents[1]


def chapters() -> list[str]:
    """Names of the chapters, in the book's order."""
    return re.findall(r"file: notebooks/(\w+)", (ROOT / "_toc.yml").read_text())


def link(hub: str, repository: str, branch: str, chapter: str) -> str:
    """The address of a chapter on a hub.

    Raises:
        ValueError: If the hub's address is none.
    """
    if urlsplit(hub).scheme not in ("http", "https") or not urlsplit(hub).netloc:
        raise ValueError(f"hub must be an address like https://host, got {hub!r}")
    folder = repository.rstrip("/").split("/")[-1].removesuffix(".git")
    place = f"lab/tree/{folder}/notebooks/{chapter}.ipynb"
    wanted = urlencode({"repo": repository, "branch": branch, "urlpath": place})
    return f"{hub.rstrip('/')}/hub/user-redirect/git-pull?{wanted}"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hub", help="where the class's JupyterHub is")
    ours = "https://github.com/" + "/".join(publish_as.current_address(ROOT))
    parser.add_argument("--repository", default=ours, help=f"if it is not {ours}")
    parser.add_argument("--branch", default="main")
    chosen = parser.parse_args(arguments)
    for chapter in chapters():
        try:
            print(link(chosen.hub, chosen.repository, chosen.branch, chapter))
        except ValueError as error:
            raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main(sys.argv[1:])
