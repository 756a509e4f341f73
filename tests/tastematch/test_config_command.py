"""`tastematch config`, as an operator runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from shared.settings import Settings
from tests.services.in_process import Done
from tests.services.processes import run_tastematch

Command = Callable[..., Done]

SECRETS = {
    "DATABASE_URL": "postgres://shop:MARK-1@db.internal/shop",
    "REDIS_URL": "redis://:MARK-2@cache.internal:6379/0",
    "TASTEMATCH_JWT_SECRET": "MARK-3-0123456789abcdef0123456789abcdef",
    "TASTEMATCH_SERVICE_TOKEN": "MARK-4-0123456789abcdef0123456789abcdef",
    "TASTEMATCH_VIEWER_TOKEN": "MARK-5-0123456789abcdef0123456789abcdef",
}


def test_every_setting_is_a_line_with_its_source_and_no_secret() -> None:
    done = run_tastematch("config", env=SECRETS | {"DB_POOL_SIZE": "7"})

    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert set(lines) == {str(field.alias) for field in Settings.model_fields.values()}
    assert lines["DB_POOL_SIZE"] == ["environment", "7"]
    assert lines["DB_MAX_OVERFLOW"] == ["default", "2"]
    assert lines["TASTEMATCH_SERVICE_TOKEN"][0] == "environment"
    assert "MARK" not in done.stdout
    assert "cache.internal" in done.stdout


def test_json_is_one_document_with_the_same_rows(tastematch: Command) -> None:
    done = tastematch("config", "--json", env=SECRETS)

    rows = json.loads(done.stdout)
    assert {row["name"] for row in rows} == {
        str(field.alias) for field in Settings.model_fields.values()
    }
    assert all(set(row) == {"name", "value", "source"} for row in rows)
    assert "MARK" not in done.stdout


def test_generated_secrets_are_said_to_be_generated(tastematch: Command, tmp_path: Path) -> None:
    done = tastematch("config", "--json", env={"TASTEMATCH_DATA_DIR": str(tmp_path)})

    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["TASTEMATCH_JWT_SECRET"]["source"] == "generated"
    kept = json.loads((tmp_path / "secrets.json").read_text())
    assert not any(secret in done.stdout for secret in kept.values())


def test_a_wrong_setting_is_one_line_without_its_value(tastematch: Command) -> None:
    done = tastematch("config", env={"DATABASE_URL": "mysql://u:MARK@db/shop"})

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("tastematch: DATABASE_URL: ")
    assert done.stderr.count("\n") == 1
    assert "MARK" not in done.stderr


def test_help_shows_an_example() -> None:
    done = run_tastematch("config", "--help")

    assert done.returncode == 0
    assert "Example: tastematch config" in done.stdout
