"""`tastematch snapshots`, as an operator runs it, on both stores."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from shared.db.engine import sync_engine
from shared.db.models import Audit
from shared.settings import Settings, load_settings
from tests.services.in_process import Done
from tests.services.processes import run_tastematch
from tests.services.redis import RedisServer
from tests.services.versions import damage, pointed_to, publish_versions

Command = Callable[..., Done]
Env = dict[str, str]


@pytest.fixture(params=["disk", "redis"])
def env(request: pytest.FixtureRequest, tmp_path: Path) -> Env:
    """The environment of a shop without database, on each store."""
    folder = {"TASTEMATCH_DATA_DIR": str(tmp_path)}
    if request.param == "redis":
        return folder | {"REDIS_URL": request.getfixturevalue("redis_url")}
    return folder


@pytest.fixture
def settings(env: Env) -> Settings:
    return load_settings(env)


def versions(settings: Settings, count: int) -> list[str]:
    return [manifest.version for manifest in publish_versions(settings, count)]


def test_an_empty_store_is_no_error(tastematch: Command, env: Env) -> None:
    for words in ([], ["list"], ["verify"]):
        done = tastematch("snapshots", *words, env=env)
        assert (done.returncode, done.stdout) == (0, "nothing has been published yet\n")
    done = tastematch("snapshots", "--json", env=env)
    assert json.loads(done.stdout) == {"items": [], "active": None, "pinned": False}


def test_the_list_is_a_table_with_the_newest_first(
    tastematch: Command, env: Env, settings: Settings
) -> None:
    old, new = publish_versions(settings, 2)

    done = run_tastematch("snapshots", env=env)

    header, first, second = done.stdout.splitlines()
    assert header.split() == (
        ["VERSION", "STATE", "CREATED", "USERS", "RESTAURANTS", "BYTES", "PINNED"]
    )
    size = f"{sum(new.bytes.values()):,}"
    assert first.split() == [new.version, "active", "2026-11-25", "11:00:00Z", "0", "6", size]
    assert second.split()[:2] == [old.version, "kept"]
    assert tastematch("snapshots", "list", env=env).stdout == done.stdout


def test_json_holds_the_manifests_with_their_state(
    tastematch: Command, env: Env, settings: Settings
) -> None:
    old, new = versions(settings, 2)

    for words in (["--json"], ["list", "--json"]):
        document = json.loads(tastematch("snapshots", *words, env=env).stdout)
        assert (document["active"], document["pinned"]) == (new, False)
        assert [(item["version"], item["state"]) for item in document["items"]] == [
            (new, "active"),
            (old, "kept"),
        ]
        assert document["items"][0]["counts"]["restaurants"] == 6


def test_rolling_back_pinning_and_unpinning(
    tastematch: Command, env: Env, settings: Settings
) -> None:
    old, new = versions(settings, 2)

    done = tastematch("snapshots", "activate", old, env=env)
    assert (done.returncode, done.stdout) == (0, f"active: {old}\n")
    assert pointed_to(settings) == (old, False)

    done = tastematch("snapshots", "activate", new, "--pin", env=env)
    assert done.stdout.startswith(f"active: {new}, pinned")
    assert pointed_to(settings) == (new, True)
    assert "pinned" in tastematch("snapshots", env=env).stdout

    (held,) = versions(settings, 1)
    assert pointed_to(settings) == (new, True)
    listed = tastematch("snapshots", env=env).stdout
    assert f"{held}  held" in listed

    done = tastematch("snapshots", "unpin", env=env)
    assert (done.returncode, done.stdout) == (0, f"active: {new}, not pinned\n")
    assert pointed_to(settings) == (new, False)


@pytest.mark.parametrize("version", ["20261125T100000000000Z-0000", "../../etc/passwd", "x"])
def test_an_unknown_version_is_one_line(
    tastematch: Command, env: Env, settings: Settings, version: str
) -> None:
    (only,) = versions(settings, 1)

    for words in (["activate", version], ["verify", version]):
        done = tastematch("snapshots", *words, env=env)
        assert done.returncode == 1
        assert done.stderr.startswith("tastematch: ")
        assert done.stderr.count("\n") == 1
    assert pointed_to(settings) == (only, False)


def test_damage_is_found_and_not_activated(
    tastematch: Command, env: Env, settings: Settings
) -> None:
    published = publish_versions(settings, 2)
    old, new = (manifest.version for manifest in published)
    good = tastematch("snapshots", "verify", env=env)
    assert good.returncode == 0
    assert good.stdout == "".join(
        f"{manifest.version}  good, {len(manifest.bytes)} parts, "
        f"{sum(manifest.bytes.values()):,} bytes\n"
        for manifest in reversed(published)
    )

    damage(settings, old)

    for words in ([], [old]):
        done = tastematch("snapshots", "verify", *words, env=env)
        assert done.returncode == 1
        assert f"{old}  the part metadata" in done.stdout
        assert done.stderr.count("\n") == 1
    report = json.loads(tastematch("snapshots", "verify", "--json", env=env).stdout)
    assert [(each["version"], bool(each["error"])) for each in report["snapshots"]] == [
        (new, False),
        (old, True),
    ]
    assert tastematch("snapshots", "verify", new, env=env).returncode == 0
    done = tastematch("snapshots", "activate", old, env=env)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert pointed_to(settings) == (new, False)


@pytest.mark.parametrize(
    "words",
    [
        ["compare"],
        ["diff", "a"],
        ["activate"],
        ["verify", "a", "b"],
        ["export", "a"],
        ["import"],
        ["--json", "unpin"],
        ["list", "x"],
    ],
)
def test_what_cannot_be_read_is_a_usage_error(
    tastematch: Command, tmp_path: Path, words: list[str]
) -> None:
    done = tastematch("snapshots", *words, env={"TASTEMATCH_DATA_DIR": str(tmp_path)})

    assert done.returncode == 2
    assert "Error: " in done.stderr


@pytest.mark.parametrize("state", ["closed", "frozen"])
def test_a_store_out_of_reach_is_exit_4_within_seconds(
    tastematch: Command, tmp_path: Path, private_redis: Callable[..., RedisServer], state: str
) -> None:
    server = private_redis()
    env = {"TASTEMATCH_DATA_DIR": str(tmp_path), "REDIS_URL": server.url()}
    (version,) = versions(load_settings(env), 1)
    if state == "closed":
        server.kill()
    else:
        server.pause()

    for words in (["list"], ["activate", version], ["unpin"], ["verify"]):
        started = time.monotonic()
        done = tastematch("snapshots", *words, env=env)
        assert time.monotonic() - started < 20
        assert done.returncode == 4
        assert done.stdout == ""
        assert done.stderr.startswith("tastematch: ")
        assert done.stderr.count("\n") == 1


def test_what_was_done_stands_in_the_audit_table(
    tastematch: Command, tmp_path: Path, database_url: str
) -> None:
    env = {"TASTEMATCH_DATA_DIR": str(tmp_path), "DATABASE_URL": database_url}
    manifest, _ = publish_versions(load_settings(env), 2)
    old, size = manifest.version, sum(manifest.bytes.values())

    tastematch("snapshots", "activate", old, "--pin", env=env)
    tastematch("snapshots", "unpin", env=env)
    tastematch("snapshots", "activate", "x", env=env)
    tastematch("snapshots", "list", env=env)
    tastematch("snapshots", "export", old, tmp_path / "file", env=env)
    other = env | {"TASTEMATCH_DATA_DIR": str(tmp_path / "other")}
    tastematch("snapshots", "import", tmp_path / "file", env=other)

    engine = sync_engine(load_settings(env))
    with engine.connect() as connection:
        rows = connection.execute(
            select(Audit.actor, Audit.action, Audit.subject, Audit.detail).order_by(Audit.id)
        ).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [
        ("cli", "snapshot.activate", old, {"pin": True}),
        ("cli", "snapshots.unpin", old, {}),
        ("cli", "snapshot.export", old, {"bytes": size}),
        ("cli", "snapshot.import", old, {"bytes": size}),
    ]


def test_a_rollback_does_not_wait_for_a_database(
    tastematch: Command, tmp_path: Path, free_port: int, redis_url: str
) -> None:
    env = {
        "TASTEMATCH_DATA_DIR": str(tmp_path),
        "REDIS_URL": redis_url,
        "DATABASE_URL": f"postgres://u@127.0.0.1:{free_port}/shop",
    }
    settings = load_settings(env)
    old, _ = versions(settings, 2)

    done = tastematch("snapshots", "activate", old, env=env)

    assert (done.returncode, done.stdout) == (0, f"active: {old}\n")
    assert done.stderr.startswith("tastematch: not noted in the audit table")
    assert pointed_to(settings) == (old, False)
