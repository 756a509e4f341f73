"""One job: a unit of background work as everyone sees it, and the states it goes through.

queued -> running -> succeeded | failed
   |         |-> queued        the worker was lost and tries are left
   `---------`-> cancelled
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Kind = Literal["precompute"]

ACTIVE_STATES: tuple[State, ...] = ("queued", "running")
LEASE_SECONDS = 15.0
HEARTBEAT_SECONDS = 2.0
MAX_TRIES = 3


@dataclass(frozen=True, slots=True)
class Job:
    """`progress` is 0 to 1; `stages` are `{"name", "seconds"}` in the order they ran."""

    id: str
    kind: str
    state: State
    origin: str
    progress: float
    stage: str | None
    stages: list[dict[str, Any]]
    peak_rss_mb: float | None
    error: str | None
    snapshot_version: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    tries: int

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE_STATES

    def as_dict(self) -> dict[str, Any]:
        """The job resource of the HTTP API. `job_id` and `status` repeat `id` and `state`."""
        return {
            "id": self.id,
            "job_id": self.id,
            "kind": self.kind,
            "state": self.state,
            "status": self.state,
            "progress": round(self.progress, 4),
            "stage": self.stage,
            "stages": self.stages,
            "peak_rss_mb": self.peak_rss_mb,
            "origin": self.origin,
            "error": self.error,
            "created_at": _instant(self.created_at),
            "started_at": _instant(self.started_at),
            "finished_at": _instant(self.finished_at),
            "snapshot_version": self.snapshot_version,
        }


def _instant(value: datetime | None) -> str | None:
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
