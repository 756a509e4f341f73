"""Jobs over HTTP: triggering, coalescing, paging, and what outages of queue and database do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from shared.db.engine import sync_engine
from shared.db.models import Audit, JobRow
from shared.errors import JobCancelled
from shared.jobs import records
from shared.jobs.clock import database_time
from shared.settings import Settings, load_settings
from tests.api.running import PERSONAL, Api, running
from tests.services.redis import RedisServer

FIELDS = {
    "id", "job_id", "kind", "state", "status", "progress", "stage", "stages", "peak_rss_mb",
    "origin", "error", "created_at", "started_at", "finished_at", "snapshot_version",
}  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return load_settings(
        {"TASTEMATCH_DATA_DIR": str(tmp_path / "data"), "DATABASE_URL": database_url}
    )


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    opened = sync_engine(settings)
    yield opened
    opened.dispose()


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running(settings) as started:
        yield started


async def trigger(api: Api) -> dict[str, Any]:
    answer = await api.client.post("/api/jobs/precompute", headers=api.as_service)
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = answer.json()
    return document


def run_to_end(engine: Engine, job_id: str, *, state: Any = "succeeded") -> None:
    """What a worker notes about a job that it took and ended."""
    with engine.begin() as connection:
        records.claim(connection, job_id, owner="w", now=database_time(connection))
    with engine.begin() as connection:
        now = database_time(connection)
        records.finish(connection, job_id, owner="w", state=state, now=now, error=None)


def count(engine: Engine, table: type[JobRow | Audit]) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


async def test_a_trigger_queues_a_job_and_says_where_it_is(api: Api, engine: Engine) -> None:
    answer = await api.client.post("/api/jobs/precompute", headers=api.as_service)

    assert answer.status_code == 202
    job = answer.json()
    assert set(job) == FIELDS | {"coalesced"}
    assert job["id"] == job["job_id"]
    assert job["state"] == job["status"] == "queued"
    assert (job["kind"], job["origin"], job["coalesced"]) == ("precompute", "api", False)
    assert (job["progress"], job["stages"], job["error"]) == (0, [], None)
    assert datetime.fromisoformat(job["created_at"]).tzinfo is not None
    assert answer.headers["location"] == f"/api/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["cache-control"] == "no-store"

    for headers in (api.as_service, api.as_viewer):
        found = await api.client.get(answer.headers["location"], headers=headers)
        assert found.status_code == 200
        assert found.json() == {name: job[name] for name in FIELDS}
        assert int(found.headers["retry-after"]) > 0

    with engine.connect() as connection:
        noted = connection.execute(select(Audit.actor, Audit.action, Audit.subject)).all()
    assert [tuple(row) for row in noted] == [("service", "precompute.trigger", job["id"])]


async def test_fifty_triggers_at_once_are_one_job(api: Api, engine: Engine) -> None:
    jobs = await asyncio.gather(*(trigger(api) for _ in range(50)))

    assert len({job["id"] for job in jobs}) == 1
    assert [job["coalesced"] for job in jobs].count(False) == 1
    assert count(engine, JobRow) == 1
    assert count(engine, Audit) == 1


async def test_fifty_triggers_while_one_runs_are_at_most_one_more(api: Api, engine: Engine) -> None:
    first = await trigger(api)
    with engine.begin() as connection:
        records.claim(connection, first["id"], owner="w", now=database_time(connection))

    jobs = await asyncio.gather(*(trigger(api) for _ in range(50)))

    assert {job["id"] for job in jobs} == {first["id"]}
    assert all(job["coalesced"] and job["state"] == "running" for job in jobs)
    with engine.begin() as connection:
        now = database_time(connection)
        records.finish(connection, first["id"], owner="w", state="succeeded", now=now)
    assert count(engine, JobRow) == 2


@pytest.mark.parametrize("state", ["succeeded", "failed"])
async def test_after_a_job_ended_a_trigger_is_a_new_one(
    api: Api, engine: Engine, state: str
) -> None:
    first = await trigger(api)
    run_to_end(engine, first["id"], state=state)

    second = await trigger(api)

    assert second["id"] != first["id"]
    assert not second["coalesced"]
    ended = await api.client.get(f"/api/jobs/{first['id']}", headers=api.as_viewer)
    assert ended.json()["state"] == state
    assert ended.json()["finished_at"] is not None
    assert "retry-after" not in ended.headers


async def test_a_job_that_waits_is_cancelled_at_once(api: Api, engine: Engine) -> None:
    job = await trigger(api)

    for _ in range(2):  # asking again does no harm
        answer = await api.client.post(f"/api/jobs/{job['id']}/cancel", headers=api.as_service)
        assert answer.status_code == 200
        cancelled = answer.json()
        assert set(cancelled) == FIELDS
        assert cancelled["state"] == cancelled["status"] == "cancelled"
        assert (cancelled["error"], cancelled["snapshot_version"]) == (None, None)
        assert cancelled["finished_at"] is not None
        assert "retry-after" not in answer.headers

    found = await api.client.get(f"/api/jobs/{job['id']}", headers=api.as_viewer)
    assert found.json() == cancelled
    assert (await trigger(api))["id"] != job["id"]
    with engine.connect() as connection:
        noted = connection.execute(
            select(Audit.actor, Audit.subject).where(Audit.action == "job.cancel")
        ).all()
    assert [tuple(row) for row in noted] == [("service", job["id"])]


async def test_a_job_that_runs_is_asked_to_end(api: Api, engine: Engine) -> None:
    job = await trigger(api)
    with engine.begin() as connection:
        records.claim(connection, job["id"], owner="w", now=database_time(connection))

    answer = await api.client.post(f"/api/jobs/{job['id']}/cancel", headers=api.as_service)

    assert (answer.status_code, answer.json()["state"]) == (202, "running")
    assert answer.headers["location"] == f"/api/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) > 0
    with pytest.raises(JobCancelled), engine.begin() as connection:
        records.check_owner(connection, job["id"], owner="w")


@pytest.mark.parametrize("state", ["succeeded", "failed"])
async def test_a_job_that_has_ended_cannot_be_cancelled(
    api: Api, engine: Engine, state: str
) -> None:
    job = await trigger(api)
    run_to_end(engine, job["id"], state=state)

    answer = await api.client.post(f"/api/jobs/{job['id']}/cancel", headers=api.as_service)

    assert (answer.status_code, answer.json()["code"]) == (409, "job-conflict")
    assert state in answer.json()["detail"]
    found = await api.client.get(f"/api/jobs/{job['id']}", headers=api.as_viewer)
    assert found.json()["state"] == state
    assert count(engine, Audit) == 1  # the trigger's


async def test_pages_hold_every_job_once_with_the_newest_first(api: Api, engine: Engine) -> None:
    expected = []
    for _ in range(7):
        job = await trigger(api)
        run_to_end(engine, job["id"])
        expected.insert(0, job["id"])

    for limit in (1, 3, 7, 50):
        seen: list[str] = []
        address = f"/api/jobs?limit={limit}"
        while True:
            answer = await api.client.get(address, headers=api.as_service)
            document = answer.json()
            assert len(document["items"]) <= limit
            seen += [job["id"] for job in document["items"]]
            if document["next_cursor"] is None:
                assert "link" not in answer.headers
                break
            link = answer.headers["link"]
            assert link.endswith('>; rel="next"')
            address = link[1:].partition(">")[0]
            assert document["next_cursor"] in address
        assert seen == expected


async def test_jobs_of_one_instant_are_all_seen(api: Api, engine: Engine) -> None:
    with engine.begin() as connection:
        now = database_time(connection)
        for number in range(5):
            row = records.queued_row(f"{number:032x}", kind="precompute", origin="api", now=now)
            connection.execute(JobRow.__table__.insert().values(row | {"state": "failed"}))

    first = (await api.client.get("/api/jobs?limit=2", headers=api.as_service)).json()
    address = f"/api/jobs?limit=50&cursor={first['next_cursor']}"
    rest = (await api.client.get(address, headers=api.as_service)).json()

    ids = [job["id"] for job in first["items"] + rest["items"]]
    assert ids == [f"{number:032x}" for number in (4, 3, 2, 1, 0)]


async def test_no_jobs_are_an_empty_list(api: Api) -> None:
    answer = await api.client.get("/api/jobs", headers=api.as_viewer)

    assert answer.json() == {"items": [], "next_cursor": None}


async def test_a_cursor_that_was_not_given_out_is_refused(api: Api, engine: Engine) -> None:
    for _ in range(2):
        run_to_end(engine, (await trigger(api))["id"])
    page = await api.client.get("/api/jobs?limit=1", headers=api.as_service)
    cursor = page.json()["next_cursor"]

    forged = [cursor[:-1], cursor + "A", "A" * 10_000, "", "%00", "%C3%A9", "'", "null", "=="]
    forged += [("B" if c == "A" else "A") + cursor[1:] for c in cursor[:1]]
    for text in forged:
        answer = await api.client.get(f"/api/jobs?cursor={text}", headers=api.as_service)
        assert answer.status_code == 400, text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "malformed-input"
    other = await api.client.get(f"/api/jobs?cursor={cursor}", headers=api.as_viewer)
    assert other.status_code == 400


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=51", "limit=-1", "limit=x", "limit=1e1", "limit=10.0", "limit=%D9%A3",
     "limit=", "limit=1&limit=2", "unknown=1", "state=queued", "cursor=a&cursor=b"],
)  # fmt: skip
async def test_a_query_that_is_not_declared_is_refused(api: Api, query: str) -> None:
    answer = await api.client.get(f"/api/jobs?{query}", headers=api.as_service)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["in"] == "query"
    assert (
        await api.client.post(f"/api/jobs/precompute?{query}", headers=api.as_service)
    ).status_code == 422
    assert (
        await api.client.get(f"/api/jobs/{'0' * 32}?{query}", headers=api.as_service)
    ).status_code == 422


@pytest.mark.parametrize(
    "job_id",
    ["0" * 32, "x", "0" * 31, "F" * 32, "%00", "..%2f..", "1%20OR%201=1", "%D9%A3", "1" * 9000],
)
async def test_an_unknown_job_is_not_found(api: Api, job_id: str) -> None:
    for answer in (
        await api.client.get(f"/api/jobs/{job_id}", headers=api.as_viewer),
        await api.client.post(f"/api/jobs/{job_id}/cancel", headers=api.as_service),
    ):
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


async def test_who_may_do_what(api: Api, engine: Engine) -> None:
    job = await trigger(api)
    user, none = api.as_user(PERSONAL), {}
    junk = {"Authorization": "Bearer junk"}
    table: list[tuple[str, str, list[tuple[dict[str, str], int]]]] = [
        ("POST", "/api/jobs/precompute",
         [(api.as_service, 202), (api.as_viewer, 403), (user, 403), (none, 401), (junk, 401)]),
        ("GET", "/api/jobs",
         [(api.as_service, 200), (api.as_viewer, 200), (user, 403), (none, 401), (junk, 401)]),
        ("GET", f"/api/jobs/{job['id']}",
         [(api.as_service, 200), (api.as_viewer, 200), (user, 403), (none, 401), (junk, 401)]),
        ("POST", f"/api/jobs/{job['id']}/cancel",
         [(api.as_viewer, 403), (user, 403), (none, 401), (junk, 401), (api.as_service, 200)]),
    ]  # fmt: skip
    for method, path, expected in table:
        for headers, status in expected:
            answer = await api.client.request(method, path, headers=headers)
            assert answer.status_code == status, (method, path, headers)
            assert ("www-authenticate" in answer.headers) == (status == 401)
    assert count(engine, JobRow) == 1


async def test_head_answers_as_get_does(api: Api) -> None:
    got = await api.client.get("/api/jobs", headers=api.as_service)
    head = await api.client.head("/api/jobs", headers=api.as_service)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    refused = await api.client.delete("/api/jobs", headers=api.as_service)
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, HEAD"


@pytest.fixture
def frozen_or_closed(request: pytest.FixtureRequest) -> str:
    state: str = request.param
    return state


@pytest.mark.parametrize("frozen_or_closed", ["closed", "frozen"], indirect=True)
async def test_a_queue_out_of_reach_refuses_the_trigger_as_a_whole(
    tmp_path: Path,
    database_url: str,
    private_redis: Callable[..., RedisServer],
    frozen_or_closed: str,
) -> None:
    server = private_redis()
    settings = load_settings(
        {
            "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
            "DATABASE_URL": database_url,
            "REDIS_URL": server.url(),
        }
    )
    engine = sync_engine(settings)
    async with running(settings) as api:
        (server.kill if frozen_or_closed == "closed" else server.pause)()
        started = asyncio.get_running_loop().time()

        answer = await api.client.post("/api/jobs/precompute", headers=api.as_service)

        assert asyncio.get_running_loop().time() - started < 3
        assert answer.status_code == 503
        assert answer.json()["code"] == "queue-unavailable"
        assert int(answer.headers["retry-after"]) > 0
        assert (count(engine, JobRow), count(engine, Audit)) == (0, 0)
        assert (await api.client.get("/api/jobs", headers=api.as_service)).status_code == 200
        (server.restart if frozen_or_closed == "closed" else server.resume)()
        assert (await trigger(api))["coalesced"] is False
    engine.dispose()


async def test_a_database_out_of_reach_is_503(tmp_path: Path, free_port: int) -> None:
    settings = load_settings(
        {
            "TASTEMATCH_DATA_DIR": str(tmp_path),
            "DATABASE_URL": f"postgres://u@127.0.0.1:{free_port}/shop",
        }
    )
    async with running(settings) as api:
        for method, path in (
            ("POST", "/api/jobs/precompute"),
            ("GET", "/api/jobs"),
            ("GET", f"/api/jobs/{'0' * 32}"),
            ("POST", f"/api/jobs/{'0' * 32}/cancel"),
        ):
            answer = await api.client.request(method, path, headers=api.as_service)
            assert answer.status_code == 503
            assert answer.json()["code"] == "database-unavailable"
            assert int(answer.headers["retry-after"]) > 0
            assert "127.0.0.1" not in answer.text


async def test_an_empty_database_says_that_it_is_not_migrated(
    tmp_path: Path, empty_postgres_url: str
) -> None:
    variables = {"TASTEMATCH_DATA_DIR": str(tmp_path), "DATABASE_URL": empty_postgres_url}
    async with running(load_settings(variables)) as api:
        answer = await api.client.post("/api/jobs/precompute", headers=api.as_service)

        assert (answer.status_code, answer.json()["code"]) == (503, "database-schema")
