"""`tastematch trigger`."""

from __future__ import annotations

import http.client
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import click

from shared.errors import ApiUnavailable, JobFailed, SettingsError, TasteMatchError
from shared.settings import load_settings

ANSWER_SECONDS = 10.0
POLL_SECONDS = 0.5
AWAY_SECONDS = 30.0  # an API that restarts while a job is followed is waited for
MAX_BODY_BYTES = 1024 * 1024

Job = dict[str, Any]


@click.command("trigger", epilog="Example: tastematch trigger --url http://127.0.0.1:8000 --wait")
@click.option("--url", help="Where the API answers; by default on this machine at PORT.")
@click.option("--token", help="The service token; by default that of the settings.")
@click.option("--wait", is_flag=True, help="Follow the job and exit by its outcome.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=3600.0,
    show_default=True,
    help="Seconds to follow the job at most.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(
    url: str | None, token: str | None, wait: bool, timeout_seconds: float, as_json: bool
) -> None:
    """Triggers a precompute job over HTTP, as a scheduler does.

    With --wait the exit code is 0 when the job succeeded and 1 when it failed or was cancelled.
    """
    settings = load_settings()
    base = url or f"http://127.0.0.1:{settings.port}"
    if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname:
        raise click.BadParameter("must look like http://127.0.0.1:8000", param_hint="--url")
    if token is None:
        if settings.service_token is None:
            raise SettingsError("TASTEMATCH_SERVICE_TOKEN: must be set, or use --token")
        token = settings.service_token.get_secret_value()
    job, location = _call(urljoin(base, "/api/jobs/precompute"), token, method="POST")
    if wait:
        job = _follow(urljoin(base, location), token, job, timeout_seconds=timeout_seconds)
    if as_json:
        click.echo(json.dumps(job, indent=2))
    else:
        click.echo(_shown(job))
    if wait and job["state"] != "succeeded":
        reason = f": {job['error']}" if job["error"] else ""
        raise JobFailed(f"job {job['id']} {job['state']}{reason}")


def _shown(job: Job) -> str:
    coalesced = " (joined the one that was there)" if job.get("coalesced") else ""
    published = f", snapshot {job['snapshot_version']}" if job["snapshot_version"] else ""
    return f"job {job['id']} {job['state']}{published}{coalesced}"


def _follow(url: str, token: str, job: Job, *, timeout_seconds: float) -> Job:
    """Polls the job to its end. Raises ApiUnavailable, or JobFailed after the time-out."""
    deadline = time.monotonic() + timeout_seconds
    away_since: float | None = None
    with _progress_bar() as show:
        while job["state"] in ("queued", "running"):
            if time.monotonic() > deadline:
                raise JobFailed(f"job {job['id']} is still {job['state']} after the time-out")
            time.sleep(POLL_SECONDS)
            try:
                job, _ = _call(url, token, method="GET")
                away_since = None
            except ApiUnavailable:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > AWAY_SECONDS:
                    raise
            show(job)
    return job


def _call(url: str, token: str, *, method: str) -> tuple[Job, str]:
    """(the job, its Location). Raises ApiUnavailable, TasteMatchError for a refusal."""
    request = urllib.request.Request(  # noqa: S310 - http or https, checked before
        url, method=method, headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            job = json.loads(answer.read(MAX_BODY_BYTES))
            return job, answer.headers.get("Location", "")
    except urllib.error.HTTPError as error:
        raise _refusal(error) from None
    except (OSError, http.client.HTTPException):
        raise ApiUnavailable(f"the API at {_place(url)} does not answer") from None
    except ValueError:
        raise TasteMatchError(f"what answers at {_place(url)} is not TasteMatch") from None


def _refusal(error: urllib.error.HTTPError) -> TasteMatchError:
    try:
        problem = json.loads(error.read(MAX_BODY_BYTES))
        detail = " ".join(str(problem["detail"]).split())
    except (ValueError, KeyError, TypeError, OSError):
        detail = "no reason given"
    if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:
        again = error.headers.get("Retry-After")
        hint = f"; try again in {again} s" if again else ""
        return ApiUnavailable(f"the API cannot take the job now: {detail}{hint}")
    return TasteMatchError(f"the API refused with {error.code}: {detail}")


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


@contextmanager
def _progress_bar() -> Iterator[Callable[[Job], None]]:
    if not sys.stderr.isatty():
        yield lambda job: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[state]} {task.fields[stage]}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("job", total=1.0, state="queued", stage="")
        yield lambda job: progress.update(
            task, completed=job["progress"], state=job["state"], stage=job["stage"] or ""
        )
