"""The job function on both databases: what a child's end means for the job."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine

from shared.db.engine import sync_engine
from shared.errors import DatabaseUnavailable
from shared.jobs import cancelling, leases, records
from shared.jobs.clock import database_time
from shared.jobs.job import MAX_TRIES, Job
from shared.settings import load_settings
from tests.services.children import is_alive
from tests.services.postgres import PostgresServer
from worker.jobs import run_precompute
from worker.threads import Transactions

PROGRAM = Path(__file__).with_name("pretend_precompute.py")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Bench:
    """One database, one worker's transactions, and a journal of the children that were started."""

    engine: Engine
    transactions: Transactions
    folder: Path
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def trigger(self, origin: str = "http") -> Job:
        with self.engine.begin() as connection:
            return records.trigger(connection, kind="precompute", origin=origin, now=NOW).job

    def read(self, job: Job) -> Job:
        with self.engine.connect() as connection:
            return records.get(connection, job.id)

    async def run(self, job: Job, *arguments: str | Path, owner: str = "a") -> Job | None:
        command = [sys.executable, str(PROGRAM), "--journal", str(self.journal_path)]
        return await run_precompute(
            self.transactions,
            job.id,
            owner=owner,
            stop=self.stop,
            command=[*command, *map(str, arguments)],
        )

    @property
    def journal_path(self) -> Path:
        return self.folder / "journal"

    def journal(self, what: str) -> list[dict[str, Any]]:
        if not self.journal_path.exists():
            return []
        lines = map(json.loads, self.journal_path.read_text().splitlines())
        return [line for line in lines if line["what"] == what]


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - rows and processes set no event
            await asyncio.sleep(0.02)


@pytest.fixture
async def bench(database_url: str, tmp_path: Path) -> AsyncIterator[Bench]:
    settings = load_settings({"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path)})
    engine = sync_engine(settings)
    transactions = Transactions(sync_engine(settings))
    yield Bench(engine, transactions, tmp_path)
    await transactions.close(timeout_seconds=5)
    engine.dispose()


async def test_a_run_that_succeeds_shows_all_that_the_child_told(bench: Bench) -> None:
    job = bench.trigger()

    assert await bench.run(job) is None

    ended = bench.read(job)
    assert (ended.state, ended.progress, ended.error) == ("succeeded", 1.0, None)
    assert ended.snapshot_version == "20260301T120000000000Z-0abc"
    assert [stage["name"] for stage in ended.stages] == ["extract", "lists", "publish"]
    # The child's 100 MiB and those of the process that runs it.
    own = psutil.Process().memory_info().rss / 1024**2
    assert ended.peak_rss_mb is not None
    assert 100 + own / 2 < ended.peak_rss_mb < 100 + 20 * own
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert abs(datetime.now(UTC) - ended.finished_at) < timedelta(seconds=30)


async def test_progress_is_seen_while_it_runs(bench: Bench) -> None:
    job = bench.trigger()
    running = asyncio.create_task(bench.run(job, "--until", bench.folder / "go"))

    await until(lambda: bench.read(job).stage == "extract")
    assert bench.read(job).state == "running"

    (bench.folder / "go").touch()
    await running
    assert bench.read(job).state == "succeeded"


async def test_a_job_that_is_gone_or_taken_is_left_alone(bench: Bench) -> None:
    job = bench.trigger()
    await bench.run(job)
    await bench.run(job)
    with bench.engine.begin() as connection:
        records.trigger(connection, kind="precompute", origin="http", now=NOW)

    assert len(bench.journal("start")) == 1


async def test_two_workers_run_a_job_once(bench: Bench) -> None:
    job = bench.trigger()
    await asyncio.gather(*(bench.run(job, owner=f"w{number}") for number in range(4)))
    assert len(bench.journal("start")) == 1
    assert bench.read(job).tries == 1


async def test_a_child_s_error_is_the_job_s_reason_at_once(bench: Bench) -> None:
    job = bench.trigger()
    await bench.run(job, "--error", "the store\n  is  full", "--kind", "StoreFull")
    ended = bench.read(job)
    assert (ended.state, ended.error) == ("failed", "the store is full")
    assert ended.snapshot_version is None
    assert len(bench.journal("start")) == 1


async def test_a_child_that_breaks_off_fails_the_job_at_once(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    job = bench.trigger()
    await bench.run(job, "--status", "3")
    ended = bench.read(job)
    assert ended.state == "failed"
    assert ended.error is not None
    assert "status 3" in ended.error
    assert "the pretended log" in capfd.readouterr().err
    assert len(bench.journal("start")) == 1


async def test_a_child_that_is_always_killed_fails_the_job_in_the_end(bench: Bench) -> None:
    job = bench.trigger()
    await bench.run(job, "--signal", "9")
    ended = bench.read(job)
    assert (ended.state, ended.tries) == ("failed", MAX_TRIES)
    assert ended.error == "killed by signal 9, probably out of memory"
    starts = [line["at"] for line in bench.journal("start")]
    assert len(starts) == MAX_TRIES
    assert starts[1] - starts[0] > 1
    assert starts[2] - starts[1] > 2


async def test_a_child_that_was_killed_once_is_run_again(bench: Bench) -> None:
    job = bench.trigger()
    await bench.run(job, "--signal", "11", "--kills", "1")
    ended = bench.read(job)
    assert (ended.state, ended.error, ended.tries) == ("succeeded", None, 2)


async def test_lines_that_are_no_events_are_passed_over(bench: Bench) -> None:
    job = bench.trigger()
    for noise in ("not json", "[1,2]", '{"event":"progress"}', '{"event":"done"}', '"\\u0000"'):
        await bench.run(job, "--say", noise)
        assert bench.read(job).state == "succeeded", noise
        job = bench.trigger()


async def test_a_line_without_end_fails_the_job(bench: Bench) -> None:
    program = bench.folder / "shouts.py"
    program.write_text("import sys\nwhile True:\n    sys.stdout.write('x' * 65536)\n")
    job = bench.trigger()
    await run_precompute(
        bench.transactions,
        job.id,
        owner="a",
        stop=bench.stop,
        command=[sys.executable, str(program)],
    )
    ended = bench.read(job)
    assert ended.state == "failed"
    assert ended.tries == 1
    assert "more than it may" in str(ended.error)


async def test_a_program_that_cannot_be_started_fails_the_job(bench: Bench) -> None:
    job = bench.trigger()
    await run_precompute(
        bench.transactions,
        job.id,
        owner="a",
        stop=bench.stop,
        command=[str(bench.folder / "missing")],
    )
    ended = bench.read(job)
    assert ended.state == "failed"
    assert ended.error == "the precompute process could not be started (No such file or directory)"


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_stop_ends_the_child_and_gives_the_job_back(bench: Bench, deaf: bool) -> None:
    job = bench.trigger()
    options = ["--until", bench.folder / "never", *(["--deaf"] if deaf else [])]
    running = asyncio.create_task(bench.run(job, *options))
    await until(lambda: bench.read(job).stage == "extract")
    pid = bench.journal("start")[0]["pid"]

    bench.stop.set()
    async with asyncio.timeout(5):
        await running

    given_back = bench.read(job)
    assert (given_back.state, given_back.tries, given_back.error) == ("queued", 0, None)
    assert not psutil.pid_exists(pid)


def cancel(bench: Bench, job: Job) -> None:
    with bench.engine.begin() as connection:
        cancelling.cancel(connection, job.id, now=database_time(connection))


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_cancelled_run_ends_within_seconds(bench: Bench, deaf: bool) -> None:
    job = bench.trigger()
    options = ["--until", bench.folder / "never", *(["--deaf"] if deaf else [])]
    running = asyncio.create_task(bench.run(job, *options))
    await until(lambda: bench.read(job).stage == "extract")
    pid = bench.journal("start")[0]["pid"]
    bench.trigger()  # joins it, and is cancelled with it

    cancel(bench, job)
    async with asyncio.timeout(8):
        trailing = await running

    assert trailing is None
    ended = bench.read(job)
    assert (ended.state, ended.error, ended.snapshot_version) == ("cancelled", None, None)
    assert ended.finished_at is not None
    assert not psutil.pid_exists(pid)


async def test_a_cancelled_job_is_not_tried_again(bench: Bench) -> None:
    job = bench.trigger()
    running = asyncio.create_task(bench.run(job, "--signal", "9"))
    await until(lambda: bench.journal("start"))
    cancel(bench, job)
    await running
    assert bench.read(job).state == "cancelled"
    assert len(bench.journal("start")) == 1


@pytest.mark.parametrize("end", ["cancelled", "stopped", "killed", "failed"])
async def test_what_was_published_makes_the_job_a_success_however_it_ends(
    bench: Bench, end: str
) -> None:
    job = bench.trigger()
    words = {"killed": ["--signal", "9"], "failed": ["--error", "no room to tidy up"]}
    options = words.get(end, ["--until", bench.folder / "never"])
    running = asyncio.create_task(bench.run(job, "--published", *options))
    if end not in words:
        await until(lambda: bench.read(job).stage == "extract")
        cancel(bench, job) if end == "cancelled" else bench.stop.set()
    async with asyncio.timeout(8):
        await running

    ended = bench.read(job)
    assert (ended.state, ended.error) == ("succeeded", None)
    assert ended.snapshot_version == "20260301T120000000000Z-0abc"
    assert len(bench.journal("start")) == 1


async def test_a_worker_that_lost_its_job_kills_the_child_and_says_nothing(bench: Bench) -> None:
    job = bench.trigger()
    running = asyncio.create_task(bench.run(job, "--until", bench.folder / "never", owner="a"))
    await until(lambda: bench.read(job).stage == "extract")
    pid = bench.journal("start")[0]["pid"]
    with bench.engine.begin() as connection:
        later = datetime.now(UTC) + timedelta(hours=1)
        leases.release_expired(connection, now=later)
        records.claim(connection, job.id, owner="b", now=later)

    async with asyncio.timeout(15):
        await running

    assert not psutil.pid_exists(pid)
    taken = bench.read(job)
    assert (taken.state, taken.tries) == ("running", 2)
    with bench.engine.begin() as connection:
        records.check_owner(connection, job.id, owner="b")


async def test_a_child_that_says_the_job_is_lost_is_believed(bench: Bench) -> None:
    job = bench.trigger()
    await bench.run(job, "--error", "taken over", "--kind", "JobLost")
    assert bench.read(job).state == "running"


async def test_a_trigger_during_a_run_leaves_one_trailing_job(bench: Bench) -> None:
    job = bench.trigger()
    running = asyncio.create_task(bench.run(job, "--until", bench.folder / "go"))
    await until(lambda: bench.read(job).state == "running")
    assert {bench.trigger().id for _ in range(5)} == {job.id}
    (bench.folder / "go").touch()

    trailing = await running

    assert trailing is not None
    assert trailing.id != job.id
    assert await bench.run(trailing) is None


async def test_the_end_of_the_worker_is_the_end_of_its_child(tmp_path: Path) -> None:
    """Also of a worker that is killed: the child notices that its stdin is closed."""
    program = (
        "import asyncio, sys\n"
        "from worker.child import PrecomputeChild\n"
        "async def main():\n"
        "    child = await PrecomputeChild.start(sys.argv[1:])\n"
        "    print(child.pid, flush=True)\n"
        "    await child.ending()\n"
        "asyncio.run(main())\n"
    )
    words = ["--journal", str(tmp_path / "journal"), "--until", str(tmp_path / "never")]
    words += ["--origin", "http", "--job-id", "j", "--owner", "o"]
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, sys.executable, str(PROGRAM), *words),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ},
    )
    assert parent.stdout is not None
    child = psutil.Process(int(await parent.stdout.readline()))
    assert is_alive(child)

    parent.kill()
    await parent.wait()

    await until(lambda: not is_alive(child))


async def test_an_outcome_waits_for_a_database_that_is_away(
    private_postgres: Callable[..., PostgresServer], postgres_template: str, tmp_path: Path
) -> None:
    from shared.db.migration import migrate

    server = private_postgres()
    settings = load_settings(
        {"DATABASE_URL": server.create_database(), "TASTEMATCH_DATA_DIR": str(tmp_path)}
    )
    migrate(settings)
    transactions = Transactions(sync_engine(settings))
    bench = Bench(sync_engine(settings), transactions, tmp_path)
    job = bench.trigger()
    running = asyncio.create_task(bench.run(job, "--until", tmp_path / "go"))
    await until(lambda: bench.read(job).stage == "extract")

    server.kill()
    (tmp_path / "go").touch()
    await until(lambda: bench.journal("end"))
    with pytest.raises(DatabaseUnavailable):
        await transactions.run(lambda connection: records.get(connection, job.id))
    server.restart()
    async with asyncio.timeout(20):
        await running

    assert bench.read(job).state == "succeeded"
    await transactions.close(timeout_seconds=5)
    bench.engine.dispose()
