"""Schemathesis over the whole document: thousands of requests, good and bad, against a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from api.write_openapi import DEFAULT_PATH
from shared.db.engine import sync_engine
from shared.db.migration import migrate
from shared.db.models import Restaurant
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from shared.tokens import issue_user_token
from tests.services.processes import REPOSITORY, Serving, start_serve
from tests.services.snapshots import SnapshotSpec, UserSpec, publish_snapshot

USER = 1
# Small ids, since those are the ones that are tried.
RESTAURANTS = range(60)
SPEC = SnapshotSpec(
    restaurants=dict.fromkeys(RESTAURANTS, "Osaka"),
    users={USER: UserSpec("personal", "Osaka", for_you=(3, 1), order_again=(3,)), 0: UserSpec()},
    similar={0: (1, 2), 1: (0,)},
)
MAX_EXAMPLES = 8
RUN_SECONDS = 60


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of a folder with a snapshot and a database of the same restaurants."""
    folder = tmp_path_factory.mktemp("schema")
    made = load_settings({"TASTEMATCH_DATA_DIR": str(folder)})
    migrate(made)
    engine = sync_engine(made)
    with engine.begin() as connection:
        for number in RESTAURANTS:
            row = {"id": number, "name": f"Restaurant {number}", "cuisine_type": "Ramen"}
            connection.execute(insert(Restaurant).values(row))
    engine.dispose()
    store = open_store(made)
    publish_snapshot(store, SPEC)
    store.close()
    return made


@pytest.fixture(scope="module")
def serving(settings: Settings) -> Iterator[Serving]:
    with start_serve(env={"TASTEMATCH_DATA_DIR": str(settings.data_dir)}) as started:
        yield started


@pytest.mark.parametrize("caller", ["user", "service"])
def test_no_request_finds_a_fault(
    serving: Serving, settings: Settings, caller: str, tmp_path: Path
) -> None:
    token = issue_user_token(settings, user_id=USER, ttl_seconds=600, now=time.time())
    if caller == "service":
        assert settings.service_token is not None
        token = settings.service_token.get_secret_value()
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(_configuration(json.loads(DEFAULT_PATH.read_bytes())))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", configuration),
            *(
                "run",
                DEFAULT_PATH,
                "--url",
                serving.url,
                "--header",
                f"Authorization: Bearer {token}",
            ),
            *("--checks", "all", "--phases", "examples,coverage,fuzzing", "--continue-on-failure"),
            *("--generation-deterministic", "--max-examples", str(MAX_EXAMPLES), "--no-color"),
        ],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            "SCHEMATHESIS_HOOKS": "tests.api.schema_checks",
        },
        capture_output=True,
        encoding="utf-8",
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    operations = sum(map(len, json.loads(DEFAULT_PATH.read_bytes())["paths"].values()))
    assert f"Tested: {operations}" in done.stdout
    assert serving.child.is_running


def _configuration(document: dict[str, Any]) -> str:
    """Of what a schema cannot say: that a cursor nobody sealed is none."""
    lines = ["warnings = false"]
    for operations in document["paths"].values():
        for operation in operations.values():
            names = {parameter["name"] for parameter in operation.get("parameters", ())}
            if "cursor" in names:
                lines += [
                    "[[operations]]",
                    f'include-operation-id = "{operation["operationId"]}"',
                    "[operations.checks.positive_data_acceptance]",
                    'expected-statuses = ["2xx", "400", "401", "403", "404", "503"]',
                ]
    return "\n".join(lines)
