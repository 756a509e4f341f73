"""What is committed: no machine's own paths, no package index, lock files that match."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.house import repository

MAX_DATA_BYTES = 3_000_000
MAX_FILE_BYTES = 1_000_000

# Spelt in two halves, so that this file does not find itself.
DEVELOPER_PATHS = re.compile("/" + r"(?:home|root|Users)/\w|" + "/wo" + r"rk/")
PACKAGE_INDEXES = re.compile(
    "|".join(
        re.escape(first + second)
        for first, second in (
            ("py", "pi.org"),
            ("py", "thonhosted.org"),
            ("registry.np", "mjs.org"),
            ("registry.ya", "rnpkg.com"),
            ("index", "-url"),
            ("--extra", "-index"),
        )
    )
)
# The option by which the lock files are made without an index address.
ALLOWED = "--no-emit-index-url"

TEXTS = [
    str(path.relative_to(repository.ROOT))
    for path in repository.files()
    if b"\0" not in path.read_bytes()[:8192]
]
LOCKS = ("api", "demo", "dev", "worker")
EXTRAS = {
    "api": ("api", "build"),
    "worker": ("worker", "build"),
    "demo": ("api", "worker", "build"),
    "dev": ("api", "worker", "dask", "build", "dev"),
}


def test_no_file_names_a_path_of_a_machine_or_a_package_index() -> None:
    found = {}
    for name in TEXTS:
        text = (repository.ROOT / name).read_text(encoding="utf-8").replace(ALLOWED, "")
        found[name] = DEVELOPER_PATHS.findall(text) + PACKAGE_INDEXES.findall(text)
    assert {name: places for name, places in found.items() if places} == {}


def test_no_lock_file_with_addresses_is_committed() -> None:
    names = {path.name for path in repository.files()}
    assert not names & {"uv.lock", "poetry.lock", "Pipfile.lock", ".env", "pip.conf"}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_pins_everything_by_hash(lock: str) -> None:
    text = (repository.ROOT / "requirements" / f"{lock}.lock").read_text()
    assert "://" not in text
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)
    entries = [entry for entry in entries if entry.strip() and not entry.startswith("#")]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+(?:\[[a-z,-]+\])?==[0-9][^ ]* ", entry), entry[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_is_of_the_declared_requirements(lock: str) -> None:
    """What pyproject.toml asks for is exactly what the lock file says it was asked for."""
    project = tomllib.loads((repository.ROOT / "pyproject.toml").read_text())["project"]
    declared = list(project["dependencies"])
    for extra in EXTRAS[lock]:
        declared += project["optional-dependencies"][extra]
    text = (repository.ROOT / "requirements" / f"{lock}.lock").read_text()
    direct = {
        match[1]
        for match in re.finditer(
            r"^([a-z0-9.-]+)==(?:.*\n)(?: .*\n)*?(?=[a-z0-9]|\Z)", text, re.MULTILINE
        )
        if "tastematch (pyproject.toml)" in match[0]
    }
    assert direct == {_name(requirement) for requirement in declared}


def test_data_is_small() -> None:
    data = [path for path in repository.files() if (repository.ROOT / "data") in path.parents]
    assert sum(path.stat().st_size for path in data) < MAX_DATA_BYTES


def test_no_file_is_large() -> None:
    large = [str(path) for path in repository.files() if path.stat().st_size > MAX_FILE_BYTES]
    assert large == []


@pytest.mark.parametrize(
    "name",
    [
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "data/README.md",
        "docs/api.md",
        "docs/architecture.md",
        "docs/benchmarks.md",
        "docs/dataset-format.md",
        "docs/operations.md",
        "docs/snapshot-format.md",
        "openapi.json",
    ],
)
def test_document_exists(name: str) -> None:
    assert (repository.ROOT / name).is_file()
    assert (repository.ROOT / name) in repository.files(), "git ignores it"


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()
