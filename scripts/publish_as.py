"""Set the address of the repository everywhere it is written.

    python scripts/publish_as.py OWNER REPO

The address stands in _config.yml (repository.url). This script changes it there and
in the files that repeat it: badges, citation, package metadata, and the set-up cells
of the notebooks. The rest of each file keeps its bytes.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "_config.yml",
    "README.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "pyproject.toml",
)
FOLDERS = ("book/*.md", "notebooks/*.ipynb")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def current_address(root: Path) -> tuple[str, str]:
    """The owner and the repository's name in _config.yml."""
    text = (root / "_config.yml").read_text(encoding="utf-8")
    found = re.search(r"^  url: https://github\.com/([\w.-]+)/([\w.-]+)$", text, re.M)
    if found is None:
        raise ValueError("_config.yml: no line '  url: https://github.com/OWNER/REPO'")
    return found[1], found[2]


def files_with_address(root: Path) -> list[Path]:
    named = [root / name for name in FILES if (root / name).exists()]
    return named + [path for pattern in FOLDERS for path in sorted(root.glob(pattern))]


def replace_address(text: str, old: tuple[str, str], new: tuple[str, str]) -> str:
    """The same text with OWNER/REPO and the address of its Pages site replaced."""
    for form in ("{}/{}", "{}.github.io/{}"):
        before = re.escape(form.format(*old))
        after = form.format(*new)
        text = re.sub(rf"(?<![\w.-]){before}(?![\w-])", lambda _, a=after: a, text)
    return text


def publish_as(root: Path, owner: str, repo: str) -> list[Path]:
    """Change the address below root; return the files that changed."""
    for label, name in (("OWNER", owner), ("REPO", repo)):
        if not NAME.fullmatch(name):
            raise ValueError(f"{label} must be a name like on GitHub, got {name!r}")
    old, changed = current_address(root), []
    for path in files_with_address(root):
        text = path.read_bytes().decode("utf-8")
        result = replace_address(text, old, (owner, repo))
        if result != text:
            path.write_bytes(result.encode("utf-8"))
            changed.append(path)
    return changed


def main(arguments: list[str]) -> None:
    if len(arguments) != 2 or not all(arguments):
        raise SystemExit("usage: make publish-as OWNER=... REPO=...")
    try:
        changed = publish_as(ROOT, *arguments)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    for path in changed:
        print("changed", path.relative_to(ROOT))
    print("The address is https://github.com/" + "/".join(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
