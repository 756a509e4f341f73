"""`tastematch trigger`."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, urlsplit

import click

from shared.errors import ApiUnavailable, JobFailed, SettingsError, TasteMatchError
from shared.settings import load_settings
from tastematch.job_progress import job_progress

TRIGGER_PATH = "/api/jobs/precompute"
ANSWER_SECONDS = 10.0
POLL_SECONDS = 1.0  # where the API does not say when to ask again
MAX_POLL_SECONDS = 30.0
AWAY_SECONDS = 30.0  # an API that restarts while a job is followed is waited for
MAX_BODY_BYTES = 1024 * 1024

Job = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """Where it answers, and as whom it is asked. No redirect is followed: the token stays here."""

    base: SplitResult
    token: str

    @property
    def place(self) -> str:
        """For messages; without a user and password that the address may hold."""
        return f"{self.base.scheme}://{self.base.netloc.rpartition('@')[2]}"


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
    api = _api(url, token)
    job, wait_seconds = _call(api, "POST", TRIGGER_PATH)
    if wait:
        job = _follow(api, job, wait_seconds, timeout_seconds=timeout_seconds)
    if as_json:
        click.echo(json.dumps(job, indent=2))
    else:
        click.echo(_shown(job))
    if wait and job["state"] != "succeeded":
        reason = f": {job['error']}" if job["error"] else ""
        raise JobFailed(f"job {job['id']} {job['state']}{reason}")


def _api(url: str | None, token: str | None) -> Api:
    settings = None if url and token else load_settings()
    if url is None:
        assert settings is not None, "read where no address was given"
        url = f"http://127.0.0.1:{settings.port}"
    if token is None:
        assert settings is not None, "read where no token was given"
        if settings.service_token is None:
            raise SettingsError("TASTEMATCH_SERVICE_TOKEN: must be set, or use --token")
        token = settings.service_token.get_secret_value()
    if not token or not all("!" <= character <= "~" for character in token):
        raise click.BadParameter("is not a bearer token", param_hint="--token")
    try:
        base = urlsplit(url)
        is_valid = base.scheme in ("http", "https") and bool(base.hostname) and base.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise click.BadParameter("must look like http://127.0.0.1:8000", param_hint="--url")
    return Api(base, token)


def _shown(job: Job) -> str:
    coalesced = " (joined the one that was there)" if job.get("coalesced") else ""
    published = f", snapshot {job['snapshot_version']}" if job["snapshot_version"] else ""
    return f"job {job['id']} {job['state']}{published}{coalesced}"


def _follow(api: Api, job: Job, wait_seconds: float, *, timeout_seconds: float) -> Job:
    """Polls the job to its end. Raises ApiUnavailable, or JobFailed after the time-out."""
    deadline = time.monotonic() + timeout_seconds
    away_since: float | None = None
    with job_progress() as show:
        while job["state"] in ("queued", "running"):
            show(f"{job['state']} {job['stage'] or ''}", job["progress"])
            left = deadline - time.monotonic()
            if left <= 0:
                raise JobFailed(f"job {job['id']} is still {job['state']} after the time-out")
            time.sleep(min(wait_seconds, left))
            try:
                job, wait_seconds = _call(api, "GET", f"/api/jobs/{job['id']}")
                away_since = None
            except ApiUnavailable:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > AWAY_SECONDS:
                    raise
        show(f"{job['state']} {job['stage'] or ''}", job["progress"])
    return job


def _call(api: Api, method: str, path: str) -> tuple[Job, float]:
    """Returns the job, and the seconds after which to ask again.

    Raises ApiUnavailable, TasteMatchError for a refusal.
    """
    is_secure = api.base.scheme == "https"
    kind = http.client.HTTPSConnection if is_secure else http.client.HTTPConnection
    connection = kind(api.base.hostname or "", api.base.port, timeout=ANSWER_SECONDS)
    headers = {"Authorization": f"Bearer {api.token}", "Accept": "application/json"}
    try:
        connection.request(method, api.base.path.rstrip("/") + path, headers=headers)
        answer = connection.getresponse()
        body = answer.read(MAX_BODY_BYTES)
    except (OSError, http.client.HTTPException, UnicodeError):
        raise ApiUnavailable(f"the API at {api.place} does not answer") from None
    finally:
        connection.close()
    if answer.status not in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
        raise _refusal(answer, body)
    return _job(api, body), _wait_seconds(answer)


def _job(api: Api, body: bytes) -> Job:
    try:
        job = json.loads(body)
        known = ("id", "state", "progress", "stage", "error", "snapshot_version")
        if isinstance(job, dict) and all(name in job for name in known):
            return job
    except ValueError:
        pass
    raise TasteMatchError(f"what answers at {api.place} is not TasteMatch")


def _wait_seconds(answer: http.client.HTTPResponse) -> float:
    try:
        seconds = float(answer.headers.get("Retry-After", ""))
    except ValueError:
        return POLL_SECONDS
    return min(seconds, MAX_POLL_SECONDS) if seconds > 0 else POLL_SECONDS


def _refusal(answer: http.client.HTTPResponse, body: bytes) -> TasteMatchError:
    try:
        words = " ".join(str(json.loads(body)["detail"]).split())
        detail = "".join(filter(str.isprintable, words))
    except (ValueError, KeyError, TypeError):
        detail = "no reason given"
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        again = answer.headers.get("Retry-After", "")
        hint = f"; try again in {again} s" if again.isdigit() else ""
        return ApiUnavailable(f"the API cannot take the job now: {detail}{hint}")
    return TasteMatchError(f"the API refused with {answer.status}: {detail}")
