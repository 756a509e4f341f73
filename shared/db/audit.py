"""Statements of the audit table: what operators did, and with which token."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Insert, Select, func, insert, select

from shared.db.models import Audit

Action = Literal[
    "precompute.trigger",
    "job.cancel",
    "snapshot.activate",
    "snapshot.export",
    "snapshot.import",
    "snapshots.unpin",
    "restaurants.put",
    "restaurant.change",
    "users.put",
    "user.erase",
    "orders.put",
]


def record_action(
    *, at: datetime, actor: str, action: Action, subject: str, detail: Mapping[str, Any]
) -> Insert:
    """`actor` is a role or `cli`; `subject` a job, version or id; `detail` is JSON without secrets
    and without what is known of persons.
    """
    return insert(Audit).values(
        at=at, actor=actor, action=action, subject=subject, detail=dict(detail)
    )


def erasures(user_ids: Iterable[int], *, since: datetime) -> Select[str, datetime]:
    """Rows of (subject, when it was last) of those of these users who were erased since then."""
    return (
        select(Audit.subject, func.max(Audit.at))
        .where(
            Audit.at >= since,
            Audit.action == "user.erase",
            Audit.subject.in_([str(each) for each in user_ids]),
        )
        .group_by(Audit.subject)
    )
