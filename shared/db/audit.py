"""Statements of the audit table: what operators did, and with which token."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Insert, insert

from shared.db.models import Audit

Action = Literal["precompute.trigger", "job.cancel", "snapshot.activate", "snapshots.unpin"]


def record_action(
    *, at: datetime, actor: str, action: Action, subject: str, detail: Mapping[str, Any]
) -> Insert:
    """`actor` is a role or `cli`; `subject` the job or version; `detail` holds JSON, no secrets."""
    return insert(Audit).values(
        at=at, actor=actor, action=action, subject=subject, detail=dict(detail)
    )
