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
# Of these some cannot be given together, or not alone, or not again with another body.
EXCLUSIVE_PARAMETERS = {
    "createOrder",
    "getMetadata",
    "listMyRecommendations",
    "listMyDetailedRecommendations",
    "listUserRecommendations",
    "listUserDetailedRecommendations",
}
OF_A_USER = {"createOrder", "hideRestaurant", "unhideRestaurant"}
# Bad lines are not refused: each has its outcome.
OF_LINES = {"putOrders", "putRestaurants", "putUsers"}
REFUSALS = [*map(str, (400, 401, 403, 404, 405, 406, 413, 414, 422, 503))]
MAX_EXAMPLES = 3
RUN_SECONDS = 120


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


def test_no_request_finds_a_fault(serving: Serving, settings: Settings, tmp_path: Path) -> None:
    """All operations, each with the token that leads furthest; `ignored_auth` leaves it out."""
    document = json.loads(DEFAULT_PATH.read_bytes())
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(_configuration(document, settings))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", configuration),
            *("run", DEFAULT_PATH, "--url", serving.url, "--no-color", "--continue-on-failure"),
            *("--checks", "all", "--phases", "examples,coverage,fuzzing"),
            *("--generation-deterministic", "--max-examples", str(MAX_EXAMPLES)),
        ],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            "SCHEMATHESIS_HOOKS": "tests.api.schema_checks",
            # Which characters there are is worked out once, not in each run.
            "HYPOTHESIS_STORAGE_DIRECTORY": str(REPOSITORY / ".hypothesis"),
        },
        capture_output=True,
        encoding="utf-8",
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    operations = sum(map(len, document["paths"].values()))
    assert f"Tested: {operations}" in done.stdout
    assert serving.child.is_running


def _configuration(document: dict[str, Any], settings: Settings) -> str:
    """Who asks, and what a schema cannot say: some pairs of parameters, and that a cursor nobody
    sealed is none."""
    user = issue_user_token(settings, user_id=USER, ttl_seconds=600, now=time.time())
    assert settings.service_token is not None
    service = settings.service_token.get_secret_value()
    lines = [
        "warnings = false",
        "[checks.negative_data_rejection]",
        f"expected-statuses = {REFUSALS}",
    ]
    for operations in document["paths"].values():
        for operation in operations.values():
            name = operation["operationId"]
            token = user if "My" in name or name in OF_A_USER else service
            lines += [
                "[[operations]]",
                f'include-operation-id = "{name}"',
                f'headers = {{ Authorization = "Bearer {token}" }}',
            ]
            refused = []
            if any(parameter["name"] == "cursor" for parameter in operation.get("parameters", ())):
                refused.append("400")
            if name in EXCLUSIVE_PARAMETERS:
                refused.append("422")
            if name in OF_LINES:
                lines += [
                    "[operations.checks.negative_data_rejection]",
                    f"expected-statuses = {['2xx', '415', *REFUSALS]}",
                ]
            if refused:
                lines += [
                    "[operations.checks.positive_data_acceptance]",
                    f"expected-statuses = {['2xx', '401', '403', '404', *refused]}",
                ]
    return "\n".join(lines)
