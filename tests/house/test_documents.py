"""What a user can set, call, run or watch is in the documents; decisions have their form."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram
from starlette.routing import Route

from shared import metrics, refresh_metrics
from shared.settings import Settings, load_settings
from tastematch import cli
from tests.house import repository

VARIABLES = sorted(str(field.alias) for field in Settings.model_fields.values())
COMMANDS = cli.group.list_commands(None)  # type: ignore[arg-type]
DECISIONS = sorted((repository.ROOT / "docs" / "decisions").glob("*.md"))
DECISION_PARTS = ("Context", "Decision", "Consequences", "Alternatives", "Enforced by")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("variable", VARIABLES)
def test_setting_is_documented(variable: str) -> None:
    assert f"`{variable}`" in repository.document("docs/operations.md")


def test_documented_settings_exist() -> None:
    text = repository.document("docs/operations.md")
    named = set(re.findall(r"`((?:TASTEMATCH|DB)_[A-Z_]+)`", text))
    assert named <= {*VARIABLES, *_test_variables()}


def test_metric_is_documented() -> None:
    families = [
        family.name
        for metric in (*vars(metrics).values(), *vars(refresh_metrics).values())
        if isinstance(metric, Counter | Gauge | Histogram)
        for family in metric.describe()
    ]
    assert families
    text = repository.document("docs/operations.md")
    assert [name for name in families if f"`{name}" not in text] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_documented(name: str) -> None:
    documents = repository.document("README.md") + repository.document("docs")
    assert re.search(rf"\btastematch {name}\b", documents)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help_with_an_example(name: str) -> None:
    command = cli.group.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert command.help
    assert "Example" in (command.epilog or "")


def test_every_route_is_documented(tmp_path: Path) -> None:
    from api.app import create_app  # a broken application fails this test alone

    app = create_app(load_settings({"TASTEMATCH_DATA_DIR": str(tmp_path)}))
    described = set(json.loads((repository.ROOT / "openapi.json").read_text())["paths"])
    written = repository.document("docs/api.md")
    routes = {route.path for route in app.routes if isinstance(route, Route)}
    routes |= set(app.openapi()["paths"])
    assert "/api/recommendations" in routes
    assert [path for path in sorted(routes) if path not in described and path not in written] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"])
def test_links_lead_somewhere(name: str) -> None:
    for path in repository.files():
        if path.suffix != ".md" or not path.relative_to(repository.ROOT).as_posix().startswith(
            name
        ):
            continue
        for target in LINK.findall(path.read_text()):
            if "://" not in target and not target.startswith("mailto:"):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_decisions_are_numbered_without_gaps() -> None:
    assert [path.name[:5] for path in DECISIONS] == [
        f"{number:04d}-" for number in range(1, len(DECISIONS) + 1)
    ]
    assert DECISIONS


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_decision_has_its_form(path: Path) -> None:
    text = path.read_text()
    assert re.match(rf"# {path.name[:4]} [A-Z].*\n", text)
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == DECISION_PARTS
    decision = text.partition("## Decision\n")[2].partition("\n## ")[0].strip()
    assert re.fullmatch(r"> [^.]+\.", decision.replace("\n> ", " ")), "one quotable sentence"


def test_changelog_keeps_the_usual_form() -> None:
    text = repository.document("CHANGELOG.md")
    assert text.startswith("# Changelog")
    assert re.search(r"^## \[Unreleased\]|^## \[\d+\.\d+\.\d+\]", text, re.MULTILINE)


def _test_variables() -> set[str]:
    """Variables of the test suite, which only the operators of a CI system know."""
    text = "".join(path.read_text() for path in repository.modules("tests"))
    return set(re.findall(r"TASTEMATCH_TEST_[A-Z_]+", text))
