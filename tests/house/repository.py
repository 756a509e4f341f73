"""The repository as the rules look at it: its files, its modules, and what these import."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "shared", "tastematch", "worker")
DOCUMENTS = ("README.md", "docs")


@functools.cache
def files() -> tuple[Path, ...]:
    """What is committed or could be: everything that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    names = sorted({name for name in listed.split("\0") if name})
    found = tuple(path for name in names if (path := ROOT / name).is_file())
    assert found, "git lists the files of the repository"
    return found


@functools.cache
def modules(*packages: str) -> tuple[Path, ...]:
    """The Python files of the packages, by default of all that a release holds."""
    wanted = packages or PACKAGES
    return tuple(
        path
        for path in files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in wanted
    )


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a module imports anywhere, relative imports left out."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            yield node.module


def name_of(path: Path) -> str:
    """`shared/db/engine.py` -> `shared.db.engine`, a package's `__init__.py` -> the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def document(name: str) -> str:
    """The text of one document, or of all that lie in a folder. Empty where there is none."""
    wanted = ROOT / name
    found = [
        path
        for path in files()
        if path.suffix == ".md" and (path == wanted or wanted in path.parents)
    ]
    return "\n".join(path.read_text() for path in found)
