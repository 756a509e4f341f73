"""Metrics of the refreshes between two snapshots: a part of the worker's (`metrics.py`)."""

from __future__ import annotations

from datetime import datetime

from prometheus_client import Counter, Gauge

_OPEN = Gauge("tastematch_changes_open", "Changes that lists do not follow yet", registry=None)
_OLDEST = Gauge(
    "tastematch_changes_oldest_open_seconds", "Age of the oldest of them", registry=None
)
_USERS = Counter("tastematch_refreshed_users_total", "Users told anew", registry=None)
_RESTAURANTS = Counter(
    "tastematch_refreshed_restaurants_total", "Restaurants told anew", registry=None
)
_SECONDS = Counter(
    "tastematch_refresh_seconds_total", "Seconds in which changes were told", registry=None
)

COLLECTORS = (_OPEN, _OLDEST, _USERS, _RESTAURANTS, _SECONDS)


def changes_open(count: int, *, oldest: datetime | None, now: datetime) -> None:
    """Both instants by the database's clock; `oldest` is None where nothing is open."""
    _OPEN.set(count)
    _OLDEST.set(0.0 if oldest is None else max(0.0, (now - oldest).total_seconds()))


def changes_published(*, users: int, restaurants: int, seconds: float) -> None:
    """One batch."""
    _USERS.inc(users)
    _RESTAURANTS.inc(restaurants)
    _SECONDS.inc(seconds)
