"""Every error class costs something definite: a status over HTTP, an exit code of a command."""

import inspect
import re

import pytest

from api.problems import PROBLEMS, problem_of
from shared import errors
from shared.errors import TasteMatchError
from tastematch.cli import exit_code_of

CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, TasteMatchError)
]

# These never come out of a request: they end a command or a job, or only group other classes.
INTERNAL = {
    errors.TasteMatchError,
    errors.SettingsError,
    errors.DatasetError,
    errors.StrictDataError,
    errors.BudgetError,
    errors.SnapshotError,
}


@pytest.mark.parametrize("cls", CLASSES)
def test_has_a_status(cls: type[TasteMatchError]) -> None:
    status = problem_of(cls).status
    assert (status == 500) == (cls in INTERNAL)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if problem_of(cls).status == 503])
def test_a_passing_trouble_says_when_to_come_back(cls: type[TasteMatchError]) -> None:
    assert problem_of(cls).retry_seconds


def test_problems_can_be_told_apart() -> None:
    codes = [problem.code for problem in PROBLEMS.values()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("cls", CLASSES)
def test_has_an_exit_code(cls: type[TasteMatchError]) -> None:
    if issubclass(cls, errors.StrictDataError):
        expected = 5
    elif issubclass(cls, errors.DependencyError):
        expected = 4
    else:
        expected = 1
    assert exit_code_of(cls("one line")) == expected


def test_the_tree_at_the_top_of_the_file_is_the_real_one() -> None:
    drawn = re.findall(r"^    [ |`-]*(\w+)(?:  .*)?$", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == sorted(cls.__name__ for cls in CLASSES)


def test_every_error_is_defined_in_one_file() -> None:
    assert {cls.__module__ for cls in _subclasses(TasteMatchError)} == {"shared.errors"}


def _subclasses(cls: type[TasteMatchError]) -> set[type[TasteMatchError]]:
    direct = set(cls.__subclasses__())
    return direct.union(*(_subclasses(child) for child in direct))
