"""The shape of modules: short, described at the top, and nothing that unpickles."""

import ast
from pathlib import Path

from tests.house import repository

MAX_LINES = 300
LONGER_WITH_REASON = {
    "shared/settings.py": "one field a setting, and each says what it accepts",
}
READS_THE_ENVIRONMENT = {
    "shared/settings.py": "the one place that does",
    "worker/parent.py": "hands its own environment on to the processes that compute",
    "tastematch/demo.py": "hands its own environment on to the commands that it starts",
}
# Reads and writes pickles, or values in pickles' formats, of one kind or another.
PICKLERS = {"pickle", "cPickle", "_pickle", "pickletools", "dill", "cloudpickle", "joblib"}
PICKLERS |= {"marshal", "shelve"}
PICKLING_CALLS = {"load_pickle", "read_pickle", "to_pickle", "allow_pickle"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "core", "manager", "misc"}

ALL = [str(path.relative_to(repository.ROOT)) for path in repository.modules()]


def test_modules_are_short() -> None:
    lines = {name: len((repository.ROOT / name).read_text().splitlines()) for name in ALL}
    # One that is short again needs no exception.
    assert {name for name in ALL if lines[name] > MAX_LINES} == set(LONGER_WITH_REASON)


def test_modules_say_what_they_are() -> None:
    silent = {
        name for name in ALL if not ast.get_docstring(repository.tree(repository.ROOT / name))
    }
    packages = {name for name in silent if name.endswith("/__init__.py")}
    assert silent == packages
    full = {name for name in packages if (repository.ROOT / name).read_text()}
    assert full <= {"api/routes/__init__.py"}


def test_packages_are_packages() -> None:
    folders = {path.parent for path in repository.modules()}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_test_folders_are_packages() -> None:
    """Otherwise `tests/api` is imported as `api`."""
    folders = {path.parent for path in repository.modules("tests")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_names_say_what_lives_there() -> None:
    found = [name for name in ALL if set(name.removesuffix(".py").split("/")) & VAGUE_NAMES]
    assert found == []


def test_nothing_is_pickled() -> None:
    assert {name: found for name in ALL if (found := _pickles_in(repository.ROOT / name))} == {}


def test_only_the_settings_read_the_environment() -> None:
    assert {name for name in ALL if _reads_environment(name)} <= set(READS_THE_ENVIRONMENT)


def test_the_edges_decide_what_an_error_costs() -> None:
    """No HTTPException, and no exit, from inside."""
    assert [name for name in ALL if name.startswith("shared/") and _decides_a_cost(name)] == []


def _pickles_in(path: Path) -> set[str | None]:
    imported = {part for dotted in repository.imports(path) for part in dotted.split(".")}
    named = {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(repository.tree(path))
        if isinstance(node, ast.Name | ast.Attribute)
    }
    arguments = {
        keyword.arg
        for node in ast.walk(repository.tree(path))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        # `allow_pickle=False` is what forbids it.
        if not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    }
    found: set[str | None] = {*(imported & PICKLERS), *(named & (PICKLERS | PICKLING_CALLS))}
    return found | (arguments & PICKLING_CALLS)


def _reads_environment(name: str) -> bool:
    return any(
        (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and _takes_environ(node))
        for node in ast.walk(repository.tree(repository.ROOT / name))
    )


def _decides_a_cost(name: str) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id == "HTTPException")
        or (
            isinstance(node, ast.Attribute)
            and node.attr in ("exit", "_exit")
            and isinstance(node.value, ast.Name)
            and node.value.id in ("sys", "os")
        )
        for node in ast.walk(repository.tree(repository.ROOT / name))
    )


def _takes_environ(node: ast.ImportFrom) -> bool:
    return bool({alias.name for alias in node.names} & {"environ", "getenv", "environb"})
