"""`tastematch precompute`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import orjson

from shared import errors
from shared.errors import DependencyError, JobActive, JobFailed, TasteMatchError
from shared.settings import Settings, load_settings
from tastematch.job_progress import job_progress

if TYPE_CHECKING:
    from shared.jobs.job import Job
    from worker.outcomes import Outcome
    from worker.threads import Transactions

TELL_SECONDS = 0.3


@click.command("precompute", epilog="Example: tastematch precompute --json")
@click.option("--no-activate", is_flag=True, help="Publish the snapshot held, not active.")
@click.option("--plan", "only_plan", is_flag=True, help="Print what a run would need; do nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(no_activate: bool, only_plan: bool, as_json: bool) -> None:
    """Computes and publishes one snapshot now, in a process of its own."""
    settings = load_settings()
    if only_plan:
        _print_plan(as_json)
        return
    job = asyncio.run(_run(settings, no_activate=no_activate))
    manifest, state = _published(settings, job)
    if as_json:
        click.echo(orjson.dumps({**manifest, "state": state}, option=orjson.OPT_INDENT_2).decode())
        return
    counts = manifest["counts"]
    click.echo(
        f"snapshot {manifest['version']} is {state}: {counts['users']:,} users, "
        f"{counts['restaurants']:,} restaurants, {sum(manifest['bytes'].values()) / 1e6:.1f} MB"
    )
    click.echo(f"  held-out NDCG@20: {_shown_quality(manifest['quality'])}")
    for reason in (reasons := _held_because(manifest, state, no_activate=no_activate)):
        click.echo(f"  held because {reason}")
    if reasons:
        click.echo(f"  to serve it: tastematch snapshots activate {manifest['version']}")
    for warning in manifest["warnings"]:
        click.echo(f"  warning: {warning}")
    click.echo(
        "  ".join(f"{stage['name']} {stage['seconds']:.1f} s" for stage in job.stages)
        + f"  peak {job.peak_rss_mb:.0f} MB"
    )


def _held_because(manifest: dict[str, Any], state: str, *, no_activate: bool) -> list[str]:
    reasons: list[str] = manifest["held_because"]
    if reasons or state != "held":
        return reasons
    if no_activate:
        return ["of --no-activate"]
    return ["the active version is pinned, or was activated while the run went on"]


def _shown_quality(quality: dict[str, Any]) -> str:
    if not quality["users"]:
        return "nothing to measure yet, nobody with earlier orders has a newest one to predict"
    figures = [
        f"{name} {quality[name]['ndcg_at_20']:.4f} "
        f"(city popularity {quality[name]['baseline']['ndcg_at_20']:.4f}, "
        f"{quality[name]['targets']:,} orders)"
        for name in ("for_you", "discover")
    ]
    return ", ".join(figures)


async def _run(settings: Settings, *, no_activate: bool) -> Job:
    """Runs the job to its end. Raises JobActive, JobFailed, DependencyError."""
    from shared.db.engine import sync_engine
    from shared.logs import configure_logs
    from worker.jobs import COMMAND, run_claimed
    from worker.threads import Transactions

    # A command tells how it goes by itself; only a crash of the child is worth a log line.
    configure_logs(service="cli", level="CRITICAL")
    owner = f"cli-{socket.gethostname()[:32]}-{os.getpid()}"
    transactions = Transactions(sync_engine(settings))
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    job = await transactions.run(lambda connection: _claim(connection, owner))
    words = [*COMMAND, "--log-level", "ERROR", *(["--no-activate"] if no_activate else [])]
    outcomes: list[Outcome] = []
    run = asyncio.create_task(
        run_claimed(
            transactions,
            job,
            owner=owner,
            stop=stop,
            command=words,
            on_outcome=outcomes.append,
        )
    )
    with job_progress() as show:
        job = await _follow(transactions, job.id, run, show)
    await transactions.close(timeout_seconds=2)
    if stop.is_set():
        raise click.Abort
    if job.state != "succeeded":
        raise _failed(job, outcomes)
    return job


def _failed(job: Job, outcomes: list[Outcome]) -> TasteMatchError:
    """The reason; as the child's own class where a dependency is away, for the exit code."""
    if job.state == "cancelled":
        return JobFailed("the precompute was cancelled")
    reason = f"the precompute failed: {job.error or 'another worker took it over'}"
    kind = getattr(errors, outcomes[-1].kind or "", None) if outcomes else None
    if isinstance(kind, type) and issubclass(kind, DependencyError):
        return kind(reason)
    return JobFailed(reason)


async def _follow(
    transactions: Transactions,
    job_id: str,
    run: asyncio.Task[Any],
    show: Callable[[str, float], None],
) -> Job:
    from shared.jobs import records

    while True:
        done, _ = await asyncio.wait({run}, timeout=TELL_SECONDS)
        if done:
            run.result()
        job = await transactions.run(lambda connection: records.get(connection, job_id))
        show(f"precompute {job.stage or ''}", job.progress)
        if done:
            return job


def _claim(connection: Any, owner: str) -> Job:
    """Takes the job in the transaction that queues it, so that no worker is faster."""
    from shared.db.schema import check_schema
    from shared.jobs import leases, records
    from shared.jobs.clock import database_time

    check_schema(connection)
    now = database_time(connection)
    leases.release_expired(connection, now=now)
    triggered = records.trigger(
        connection, kind="precompute", origin="cli", now=now, wants_rerun=False
    )
    job = records.claim(connection, triggered.job.id, owner=owner, now=now)
    if job is None:
        raise JobActive(f"a precompute is running already (job {triggered.job.id})")
    return job


def _published(settings: Settings, job: Job) -> tuple[dict[str, Any], str]:
    from shared.snapshot.opening import open_store

    assert job.snapshot_version is not None, "a job that succeeded has published"
    store = open_store(settings)
    try:
        entries = {entry.manifest.version: entry for entry in store.versions()}
    finally:
        store.close()
    entry = entries.get(job.snapshot_version)
    if entry is None:
        raise TasteMatchError(f"snapshot {job.snapshot_version} is gone from the store already")
    return entry.manifest.as_dict(), entry.state


def _print_plan(as_json: bool) -> None:
    """The child plans: it is the process that the figures are about."""
    done = subprocess.run(
        [sys.executable, "-m", "worker.precompute", "--plan"],
        stdout=subprocess.PIPE,
        check=False,
    )
    lines = done.stdout.splitlines()
    if not lines:
        raise TasteMatchError("the planning process ended without an answer")
    answer = orjson.loads(lines[-1])
    if answer["event"] == "error":
        raise _raised(answer)
    document = {**answer["plan"], "counts": answer["counts"]}
    if as_json:
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    counts = answer["counts"]
    plan = answer["plan"]
    click.echo(
        f"for {counts['users']:,} users, {counts['restaurants']:,} restaurants, "
        f"{counts['orders']:,} orders:"
    )
    rows = (
        ("predicted peak memory", f"{plan['peak_mb']:.0f} MB"),
        ("predicted snapshot", f"{plan['store_bytes'] / 1e6:.1f} MB"),
        ("neighbours a restaurant (k)", f"{plan['k']:,}"),
        ("ids in a list head", f"{plan['head_length']:,}"),
        ("restaurants a block", f"{plan['item_block']:,}"),
        ("users a block", f"{plan['user_block']:,}"),
        ("rows a database block", f"{plan['extract_rows']:,}"),
    )
    for name, value in rows:
        click.echo(f"  {name:<28} {value}")


def _raised(answer: dict[str, Any]) -> TasteMatchError:
    """The child's error as this process's own, so that the exit code is the same."""
    kind = getattr(errors, str(answer["kind"]), TasteMatchError)
    error: TasteMatchError = kind(str(answer["error"]))
    return error
