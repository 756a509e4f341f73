"""What the API tells of the overlay: how fresh it is, what it holds, what it did not believe."""

from typing import Final, Literal

from prometheus_client import Counter, Gauge

_READ: Final = Gauge(
    "tastematch_overlay_read_timestamp_seconds",
    "When this process last read the overlay's logs to their end",
    registry=None,
)
_RECORDS: Final = Gauge(
    "tastematch_overlay_records", "Records this process obeys", ["log"], registry=None
)
_REFUSED: Final = Counter(
    "tastematch_overlay_records_refused_total", "Records that were not believed", registry=None
)
_INACTIVE: Final = Gauge(
    "tastematch_overlay_inactive_restaurants",
    "Restaurants of the served snapshot that closed since",
    registry=None,
)
_NOTES: Final = Gauge(
    "tastematch_overlay_notes",
    "Users and restaurants of which only this process knows the latest",
    registry=None,
)

COLLECTORS: Final = (_READ, _RECORDS, _REFUSED, _INACTIVE, _NOTES)


def read_at(seconds: float) -> None:
    _READ.set(seconds)


def known(log: Literal["exclusions", "lists"], records: int) -> None:
    _RECORDS.labels(log).set(records)


def refused(records: int) -> None:
    _REFUSED.inc(records)


def inactive(restaurants: int) -> None:
    _INACTIVE.set(restaurants)


def noted(subjects: int) -> None:
    _NOTES.set(subjects)
