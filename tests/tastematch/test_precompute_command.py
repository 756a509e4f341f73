"""`tastematch precompute` as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.in_process import Done
from tests.services.processes import run_tastematch
from tests.worker.test_precompute import load_dataset, small_town

Command = Callable[..., Done]


@pytest.fixture
def env(sqlite_url: str, tmp_path: Path) -> dict[str, str]:
    settings = {"DATABASE_URL": sqlite_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")}
    load_dataset(settings, small_town(tmp_path / "set"))
    return settings


def test_it_publishes_and_prints_the_manifest(tastematch: Command, env: dict[str, str]) -> None:
    done = run_tastematch("precompute", "--json", env=env)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["state"] == "active"
    assert manifest["counts"]["users"] == 3

    again = json.loads(tastematch("precompute", "--no-activate", "--json", env=env).stdout)
    assert again["state"] == "held", "without activation"
    assert again["version"] > manifest["version"]
    assert again["checksums"] == manifest["checksums"]

    assert (
        tastematch("snapshots", "activate", manifest["version"], "--pin", env=env).returncode == 0
    )
    while_pinned = tastematch("precompute", env=env).stdout
    assert "held because the active version is pinned" in while_pinned
    assert "to serve it: tastematch snapshots activate 2" in while_pinned


def test_the_plan_is_printed(tastematch: Command, env: dict[str, str]) -> None:
    plan = json.loads(tastematch("precompute", "--plan", "--json", env=env).stdout)
    assert plan["counts"] == {"users": 3, "restaurants": 6, "orders": 7}
    assert plan["peak_mb"] > 0
    assert plan["store_bytes"] > 0
    shown = tastematch("precompute", "--plan", env=env).stdout
    assert "predicted peak memory" in shown


def test_failures_are_one_line(tastematch: Command, tmp_path: Path, sqlite_url: str) -> None:
    env = {"DATABASE_URL": sqlite_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")}
    empty = tastematch("precompute", env=env)
    assert empty.returncode == 1
    assert empty.stderr.count("\n") == 1
    assert "no active restaurants" in empty.stderr

    env["DATABASE_URL"] = "postgres://u:secret@127.0.0.1:1/shop"
    for words in (["precompute"], ["precompute", "--plan"]):
        away = tastematch(*words, env=env)
        assert away.returncode == 4
        assert away.stderr.count("\n") == 1
        assert "secret" not in away.stderr


def test_a_store_that_does_not_answer_is_told_from_a_run_that_failed(
    tastematch: Command, env: dict[str, str]
) -> None:
    away = tastematch("precompute", env=env | {"REDIS_URL": "redis://:secret@127.0.0.1:1/0"})
    assert away.returncode == 4
    assert away.stderr.count("\n") == 1
    assert "secret" not in away.stderr
