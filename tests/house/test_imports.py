"""Who imports whom: the contracts hold, and each image holds what its code imports."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest

from tests.house import repository
from tests.services.processes import start_serve

NOT_IN_THE_API = ("numpy", "scipy", "dask", "distributed", "brotli", "zstandard")
NOT_IN_THE_WORKER = ("fastapi", "starlette", "uvicorn", "dask", "distributed")
# Imported only where it is asked for: by a setting, or for the API's engine, which no worker opens.
OPTIONAL = {("worker.executors", "distributed"), ("shared.db.quick_sqlite", "aiosqlite")}
IMPORTING_CALLS = {"import_module", "__import__", "run_module", "run_path", "exec_module"}

# What a lock file calls a distribution, where the name that is imported is another one.
_DISTRIBUTIONS = importlib.metadata.packages_distributions()


def test_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [program, "--no-cache", "--no-logo"],
        cwd=repository.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_contracts_cover_every_package() -> None:
    setup = tomllib.loads((repository.ROOT / "pyproject.toml").read_text())
    packaged = setup["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(packaged) == [f"{name}*" for name in repository.PACKAGES]
    contracts = (repository.ROOT / ".importlinter").read_text()
    roots = re.search(r"root_packages =\n((?:    \w+\n)+)", contracts)
    assert roots is not None
    assert sorted(roots[1].split()) == list(repository.PACKAGES)


@pytest.mark.parametrize(
    ("packages", "forbidden"),
    [(("api", "shared"), NOT_IN_THE_API), (("worker", "shared"), NOT_IN_THE_WORKER)],
)
def test_importing_every_module_does_not_load(
    packages: tuple[str, ...], forbidden: tuple[str, ...]
) -> None:
    names = [
        repository.name_of(path)
        for path in repository.modules(*packages)
        if "migrations" not in path.parts  # scripts that Alembic runs in a context of its own
    ]
    code = (
        "import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=repository.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    loaded = {name.partition(".")[0] for name in json.loads(result.stdout)}
    assert set(packages) <= loaded
    assert not loaded & set(forbidden)


def test_the_server_does_without_what_only_commands_show() -> None:
    code = (
        "import sys, api.server; "
        "print({'rich', 'pygments', 'sqlalchemy', 'asyncpg', 'redis', 'arq'} & {*sys.modules}); "
        "import rich.console"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"


def test_the_serving_api_has_no_numpy_and_its_readiness_no_sqlalchemy(postgres_url: str) -> None:
    """Compiled packages are visible by their paths."""
    env = {"DATABASE_URL": postgres_url}
    with start_serve(env=env) as serving, httpx.Client(base_url=serving.url) as api:
        maps = Path(f"/proc/{serving.child.pid}/maps")
        assert "/pydantic_core/" in maps.read_text()
        assert api.get("/ready").json()["checks"]["database"] == "ok"
        assert "/asyncpg/" in maps.read_text()
        assert "/sqlalchemy/" not in maps.read_text()
        assert api.get("/api/restaurants/7").status_code == 404
        assert "/sqlalchemy/" in maps.read_text()
        assert [name for name in NOT_IN_THE_API if f"/{name}" in maps.read_text()] == []


@pytest.mark.parametrize(
    ("packages", "locks"),
    [
        (("api", "shared"), ("api",)),
        (("worker", "shared"), ("worker",)),
        (("tastematch",), ("api", "worker")),
    ],
)
def test_lock_files_hold_what_is_imported(
    packages: tuple[str, ...], locks: tuple[str, ...]
) -> None:
    pinned = set().union(*(_pinned(lock) for lock in locks))
    missing = [
        f"{repository.name_of(path)} imports {top}"
        for path in repository.modules(*packages)
        for top in sorted({name.partition(".")[0] for name in repository.imports(path)})
        if top not in sys.stdlib_module_names
        and top not in repository.PACKAGES
        and (repository.name_of(path), top) not in OPTIONAL
        and not pinned & {_normalised(name) for name in _DISTRIBUTIONS.get(top, [top])}
    ]
    assert missing == []


def test_only_the_command_imports_by_name() -> None:
    """Imports by name escape the contracts, so there is one place for them."""
    found = {
        repository.name_of(path)
        for path in repository.modules()
        for node in ast.walk(repository.tree(path))
        if (isinstance(node, ast.Attribute) and node.attr in IMPORTING_CALLS)
        or (isinstance(node, ast.Name) and node.id in IMPORTING_CALLS)
    }
    assert found == {"tastematch.cli"}


def _pinned(lock: str) -> set[str]:
    text = (repository.ROOT / "requirements" / f"{lock}.lock").read_text()
    return set(re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE))


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
