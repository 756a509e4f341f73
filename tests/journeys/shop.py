"""A shop that runs TasteMatch: its commands, its API over HTTP, its jobs as they end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.services.children import Child
from tests.services.datasets import FIRST_ORDER_DATE, write_dataset
from tests.services.processes import run_tastematch, start_serve, wait_until

LISTS = ("for_you", "discover", "order_again")
FOLLOW_SECONDS = 5.0  # from the publication of a version until every API serves it
JOB_SECONDS = 30.0
LATER = FIRST_ORDER_DATE + timedelta(days=60)

Env = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Api:
    """A running API and who asks it. Every call names its token: none is the public."""

    child: Child
    port: int
    http: httpx.Client
    service_token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, *, token: str | None = None, **headers: str) -> httpx.Response:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.get(path, headers=fields | _bearer(token))

    def as_service(self, path: str) -> httpx.Response:
        return self.get(path, token=self.service_token)

    def post(self, path: str, document: object = None) -> httpx.Response:
        return self.http.post(path, json=document, headers=_bearer(self.service_token))

    def user_list(self, user_id: int, list_name: str = "for_you") -> httpx.Response:
        """The longest page of a user's list, asked for by a backend."""
        return self.as_service(f"/api/users/{user_id}/recommendations?list={list_name}&limit=50")

    def version(self) -> str | None:
        """The version from which it answers."""
        return self.get("/api/lists/popular").headers.get("X-Snapshot-Version")

    def follows(self, version: str) -> None:
        """Waits as long as an API may take to serve what was published or activated."""
        wait_until(
            lambda: self.version() == version,
            timeout_seconds=FOLLOW_SECONDS,
            describe=lambda: f"{version} to be served: {self.get('/ready').text}",
        )

    def trigger(self) -> str:
        """The id of the job that was queued or joined."""
        answer = self.post("/api/jobs/precompute")
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def ended_job(self, job_id: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            job: dict[str, Any] = self.as_service(f"/api/jobs/{job_id}").json()
            return job if job["state"] in ("succeeded", "failed", "cancelled") else None

        return wait_until(
            ended,
            timeout_seconds=JOB_SECONDS,
            describe=lambda: f"the job's end: {self.as_service('/api/jobs').text}",
        )

    def waits_for_idleness(self) -> None:
        """Until no job is queued or running, a trailing one included."""
        wait_until(
            lambda: all(
                job["state"] not in ("queued", "running")
                for job in self.as_service("/api/jobs").json()["items"]
            ),
            timeout_seconds=JOB_SECONDS,
            describe="the jobs to end",
        )

    def precomputed(self) -> str:
        """Triggers a run, waits for its success, and returns the version once it is served."""
        return self.outcome_served(self.trigger())

    def outcome_served(self, job_id: str) -> str:
        """As `precomputed`. A run that a trigger joined is followed by one more, which counts."""
        job = self.ended_job(job_id)
        while (newest := self.as_service("/api/jobs?limit=1").json()["items"][0])["id"] != job[
            "id"
        ]:
            job = self.ended_job(newest["id"])
        assert job["state"] == "succeeded", job
        version: str = job["snapshot_version"]
        self.follows(version)
        return version


@contextmanager
def running_api(env: Env, *, service_token: str, port: int | None = None) -> Iterator[Api]:
    with start_serve(env=env, port=port) as serving, httpx.Client(base_url=serving.url) as http:
        yield Api(serving.child, serving.port, http, service_token)


def command(env: Env, *words: str | Path) -> str:
    """Runs a command that must succeed, and returns what it printed."""
    done = run_tastematch(*words, env=env)
    assert done.returncode == 0, f"{words}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def recommended(env: Env, user_id: int, list_name: str = "for_you") -> list[int]:
    """A user's list as the command reads it from the store."""
    words = ("recommend", "--user", str(user_id), "--list", list_name, "--limit", "50", "--json")
    ids: list[int] = json.loads(command(env, *words))["ids"]
    return ids


def write_orders(
    folder: Path,
    user_id: int,
    restaurants: Sequence[int],
    *,
    first_id: int,
    since: datetime = LATER,
) -> Path:
    """A data set of newer orders alone, the last restaurant ordered last."""
    return write_dataset(
        folder,
        orders=[
            {
                "id": first_id + number,
                "user_id": user_id,
                "restaurant_id": restaurant_id,
                "order_date": since + timedelta(minutes=number),
            }
            for number, restaurant_id in enumerate(restaurants)
        ],
    )


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}
