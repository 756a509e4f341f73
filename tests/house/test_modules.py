"""The shape of modules: short, described at the top, and nothing that unpickles."""

import ast

import pytest

from tests.house import repository

MAX_LINES = 300
LONGER_WITH_REASON = {
    "shared/settings.py": "one field a setting, and each says what it accepts",
}
READS_THE_ENVIRONMENT = {
    "shared/settings.py": "the one place that does",
    "tastematch/demo.py": "hands its own environment on to the commands that it starts",
}
# Reads and writes pickles, or values in pickles' formats, of one kind or another.
PICKLERS = {"pickle", "cPickle", "_pickle", "pickletools", "dill", "cloudpickle", "joblib"}
PICKLERS |= {"marshal", "shelve"}
PICKLING_CALLS = {"load_pickle", "read_pickle", "to_pickle", "allow_pickle"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "core", "manager", "misc"}

ALL = [str(path.relative_to(repository.ROOT)) for path in repository.modules()]


@pytest.mark.parametrize("name", ALL)
def test_module_is_short(name: str) -> None:
    lines = len((repository.ROOT / name).read_text().splitlines())
    if name in LONGER_WITH_REASON:
        assert lines > MAX_LINES, "it is short again: no exception is needed"
    else:
        assert lines <= MAX_LINES


@pytest.mark.parametrize("name", ALL)
def test_module_says_what_it_is(name: str) -> None:
    path = repository.ROOT / name
    description = ast.get_docstring(repository.tree(path))
    if path.name == "__init__.py":
        assert path.read_text() == "" or name == "api/routes/__init__.py"
    else:
        assert description, "a module begins with what lives in it"


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


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_pickled(name: str) -> None:
    path = repository.ROOT / name
    imported = {part for dotted in repository.imports(path) for part in dotted.split(".")}
    assert not imported & PICKLERS
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
    assert not named & (PICKLERS | PICKLING_CALLS)
    assert not arguments & PICKLING_CALLS


@pytest.mark.parametrize("name", ALL)
def test_only_the_settings_read_the_environment(name: str) -> None:
    reads = [
        node.lineno
        for node in ast.walk(repository.tree(repository.ROOT / name))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and _takes_environ(node))
    ]
    assert not reads or name in READS_THE_ENVIRONMENT


@pytest.mark.parametrize("name", ALL)
def test_the_edges_decide_what_an_error_costs(name: str) -> None:
    """No HTTPException, and no exit, from inside."""
    assert not {
        node.id
        for node in ast.walk(repository.tree(repository.ROOT / name))
        if isinstance(node, ast.Name) and node.id == "HTTPException" and name.startswith("shared/")
    }
    exits = [
        node.lineno
        for node in ast.walk(repository.tree(repository.ROOT / name))
        if isinstance(node, ast.Attribute)
        and node.attr in ("exit", "_exit")
        and isinstance(node.value, ast.Name)
        and node.value.id in ("sys", "os")
    ]
    assert not exits or not name.startswith("shared/")


def _takes_environ(node: ast.ImportFrom) -> bool:
    return bool({alias.name for alias in node.names} & {"environ", "getenv", "environb"})
