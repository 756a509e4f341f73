"""Every Prometheus metric of TasteMatch, declared once; docs/operations.md lists them.

The registry is the process's own. API and worker each register their part of it by
`start_metrics`, so that neither shows what it cannot know. Labels hold neither ids, versions nor
raw paths: whatever clients send, there are fewer than MAX_SERIES series. How the text leaves the
process: `metrics_listener.py`, or a route in development.
"""

import contextlib
import os
import platform
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from shared import overlay_metrics, refresh_metrics
from shared.tallies import Count, Counts, Durations, Histograms

MAX_SERIES: Final = 400
MAX_REQUEST_SERIES: Final = 72
OTHER: Final = "other"

# The routes whose latency is kept apart; a histogram child costs 14 series.
HOT_ROUTES: Final = (
    "/api/recommendations",
    "/api/users/{user_id}/recommendations",
    "/api/restaurants/metadata",
)
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
LISTS: Final = ("for_you", "discover", "order_again")
SOURCES: Final = ("personal", "preferences", "popular-city", "popular")
METADATA_KINDS: Final = ("full", "delta", "subset", "not_modified")
ENCODINGS: Final = ("identity", "gzip", "br", "zstd")
DEPENDENCIES: Final = ("store", "database", "worker")
AUTH_FAILURES: Final = ("missing", "expired", "invalid", "forbidden")
ORIGINS: Final = ("api", "cron", "cli", "repair", "overlay")

Service = Literal["api", "worker"]

_HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_JOB_BUCKETS = (1, 5, 15, 30, 60, 120, 300, 600, 1800)
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(f"tastematch_{name}", meaning, labels, registry=None)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(f"tastematch_{name}", meaning, labels, registry=None)


# Both processes
_BUILD = _gauge("build_info", "Release and Python, always 1", "version", "python")
_MEMORY_LIMIT = _gauge("memory_limit_bytes", "Memory limit of the container, or of the machine")
_MEMORY_PEAK = _gauge("memory_peak_bytes", "Largest resident memory of this process so far")

# API
_REQUESTS = Counts("tastematch_http_requests_total", "Requests answered", "method", "route", "code")
_DURATION = Histograms(
    "tastematch_http_request_duration_seconds", "Until it began", _HTTP_BUCKETS, "route", "code"
)
_IN_FLIGHT = _gauge("http_requests_in_flight", "Requests being answered")
_SHED = _counter("http_requests_shed_total", "Requests refused because too many were in flight")
_AUTH_FAILURES = _counter("auth_failures_total", "Requests refused for their token", "reason")
_SERVED = Counts("tastematch_recommendations_served_total", "Id lists served", "list", "source")
_SERVED_304 = Counts("tastematch_recommendations_not_modified_total", "Id lists answered by 304")
_METADATA = Counts("tastematch_metadata_responses_total", "Metadata answers", "kind")
_METADATA_BYTES = Counts("tastematch_metadata_bytes_total", "Bytes of metadata bodies", "encoding")
_CREATED = _gauge("snapshot_created_timestamp_seconds", "When the served snapshot was created")
_LOADED = _gauge("snapshot_loaded_timestamp_seconds", "When this process took it up")
_PINNED = _gauge("snapshot_pinned", "1 while new snapshots are not activated")
_SNAPSHOT = _gauge("snapshot_info", "The served snapshot, always 1", "algorithm", "schema")
_ENTITIES = _gauge("snapshot_entities", "What the served snapshot holds", "kind")
_BYTES = _gauge("snapshot_bytes", "Size of each part of the served snapshot", "part")
_LOAD_FAILURES = _counter("snapshot_load_failures_total", "Versions not taken up", "reason")
_DEGRADED = _gauge("degraded", "1 while this dependency does not answer", "dependency")
_WAKES_FAILED = _counter("refresh_wakes_failed_total", "Wake-ups that no queue took")
_POOL = _gauge("db_pool_connections", "Connections of this process to the database", "state")

# Worker
_JOBS = _counter("jobs_total", "Jobs that ended", "kind", "state", "origin")
_JOB_DURATION = Histogram(
    "tastematch_job_duration_seconds",
    "From start to end",
    ["kind"],
    buckets=_JOB_BUCKETS,
    registry=None,
)
_JOB_STAGE = _gauge("job_stage_duration_seconds", "Stages of the last job", "stage")
_JOB_PEAK = _gauge("job_peak_rss_bytes", "Peak memory of the last job", "kind")
_JOB_PROGRESS = _gauge("job_progress_ratio", "Progress of the job, 0 to 1", "kind")
_JOB_SUCCESS = _gauge("job_last_success_timestamp_seconds", "When one last succeeded", "kind")
_HEARTBEAT = _gauge("worker_heartbeat_timestamp_seconds", "When the worker last looked for work")

_GROUPS: dict[Service, tuple[Any, ...]] = {
    "api": (
        *(_REQUESTS, _DURATION, _IN_FLIGHT, _SHED, _AUTH_FAILURES, _SERVED, _SERVED_304),
        *(_METADATA, _METADATA_BYTES, _CREATED, _LOADED, _PINNED, _SNAPSHOT, _ENTITIES, _BYTES),
        *(_LOAD_FAILURES, _DEGRADED, _WAKES_FAILED, _POOL),
        *overlay_metrics.COLLECTORS,
    ),
    "worker": (
        *(_JOBS, _JOB_DURATION, _JOB_STAGE, _JOB_PEAK, _JOB_PROGRESS, _JOB_SUCCESS, _HEARTBEAT),
        *refresh_metrics.COLLECTORS,
    ),
}

_registry = CollectorRegistry()
_started: set[Service] = set()
_request_series: dict[tuple[str, str, int], tuple[Count, Durations]] = {}
# They exist from the start, so that a rate over them begins at zero.
_served_series = {(name, source): _SERVED.of(name, source) for name in LISTS for source in SOURCES}
_not_modified = _SERVED_304.of()


def start_metrics(service: Service, *, version: str) -> None:
    """Called by an entry point before anything is recorded; a second call does nothing."""
    if service in _started:
        return
    disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series
    if not _started:
        for collector in (_BUILD, _MEMORY_LIMIT, _MEMORY_PEAK):
            _registry.register(collector)
        ProcessCollector(registry=_registry)
        _BUILD.labels(version, platform.python_version()).set(1)
        _MEMORY_LIMIT.set(_memory_limit_bytes())
        _MEMORY_PEAK.set_function(_memory_peak_bytes)
    for collector in _GROUPS[service]:
        _registry.register(collector)
    _started.add(service)
    if service == "api":
        _create_known_children()


def render() -> tuple[bytes, str]:
    """The exposition text and its content type."""
    return generate_latest(_registry), CONTENT_TYPE_LATEST


def watch_in_flight(count: Callable[[], int]) -> None:
    _IN_FLIGHT.set_function(lambda: float(count()))


def request_ended(*, method: str, route: str, status: int, seconds: float) -> None:
    """`route` is a template such as `/api/restaurants/{restaurant_id}`, never a raw path."""
    series = _request_series.get((method, route, status))
    if series is None:
        series = _create_request_series(method, route, status)
    count, durations = series
    count.value += 1
    durations.observe(seconds)


def request_shed() -> None:
    _SHED.inc()


def auth_failed(reason: Literal["missing", "expired", "invalid", "forbidden"]) -> None:
    _AUTH_FAILURES.labels(reason).inc()


def recommendations_served(list_name: str, source: str) -> None:
    """`list_name` is one of LISTS, `source` one of SOURCES."""
    _served_series[list_name, source].value += 1


def recommendations_not_modified() -> None:
    _not_modified.value += 1


def metadata_served(
    kind: Literal["full", "delta", "subset", "not_modified"], *, encoding: str, size_bytes: int
) -> None:
    """`encoding` is one of ENCODINGS."""
    _METADATA.of(kind).value += 1
    if size_bytes:
        _METADATA_BYTES.of(encoding).value += size_bytes


def snapshot_taken_up(
    *,
    created_at: float,
    loaded_at: float,
    algorithm: str,
    schema: int,
    entities: Mapping[str, int],
    part_bytes: Mapping[str, int],
) -> None:
    """Times in epoch seconds; `entities` counts restaurants, users and interactions."""
    _CREATED.set(created_at)
    _LOADED.set(loaded_at)
    for gauge in (_SNAPSHOT, _ENTITIES, _BYTES):
        gauge.clear()
    _SNAPSHOT.labels(algorithm, str(schema)).set(1)
    for kind in ("restaurants", "users", "interactions"):
        _ENTITIES.labels(kind).set(entities.get(kind, 0))
    for part, size in part_bytes.items():
        _BYTES.labels(part).set(size)


def snapshot_pinned(is_pinned: bool) -> None:
    _PINNED.set(is_pinned)


def snapshot_load_failed(reason: Literal["damaged", "unsupported", "no_space", "store"]) -> None:
    _LOAD_FAILURES.labels(reason).inc()


def dependency_degraded(dependency: str, is_degraded: bool) -> None:
    """`dependency` is one of DEPENDENCIES."""
    _DEGRADED.labels(dependency).set(is_degraded)


def wake_failed() -> None:
    """A worker was not woken for changes; it finds them by itself, later."""
    _WAKES_FAILED.inc()


def watch_pool(pool: Any) -> None:
    """Shows the pool of the API's engine: what `engine.pool` holds."""
    _POOL.labels("in_use").set_function(lambda: float(pool.checkedout()))
    _POOL.labels("idle").set_function(lambda: float(pool.checkedin()))


def worker_seen(now: float) -> None:
    """`now` in epoch seconds; called whenever the worker has looked for work."""
    _HEARTBEAT.set(now)


def job_progressed(kind: str, progress: float) -> None:
    _JOB_PROGRESS.labels(kind).set(progress)


def job_ended(
    *,
    kind: str,
    state: str,
    origin: str,
    seconds: float,
    stages: Sequence[Mapping[str, Any]],
    peak_rss_mb: float | None,
    now: float,
) -> None:
    """`stages` are those of the job record; `now` in epoch seconds."""
    _JOBS.labels(kind, state, origin if origin in ORIGINS else OTHER).inc()
    _JOB_DURATION.labels(kind).observe(seconds)
    _JOB_STAGE.clear()
    for stage in stages:
        _JOB_STAGE.labels(stage["name"]).set(stage["seconds"])
    if peak_rss_mb is not None:
        _JOB_PEAK.labels(kind).set(peak_rss_mb * 1024 * 1024)
    if state == "succeeded":
        _JOB_SUCCESS.labels(kind).set(now)


def _create_known_children() -> None:
    """Series that exist from the start, so that a rate over them begins at zero."""
    for counts, labels in ((_METADATA, METADATA_KINDS), (_METADATA_BYTES, ENCODINGS)):
        for label in labels:
            counts.of(label)
    for family, values in (
        (_DEGRADED, DEPENDENCIES),
        (_AUTH_FAILURES, AUTH_FAILURES),
        (_LOAD_FAILURES, ("damaged", "unsupported", "no_space", "store")),
    ):
        for value in values:
            family.labels(value)


def _create_request_series(method: str, route: str, status: int) -> tuple[Count, Durations]:
    durations = _DURATION.of(route if route in HOT_ROUTES else OTHER, f"{status // 100}xx")
    if len(_request_series) >= MAX_REQUEST_SERIES:
        return _REQUESTS.of(OTHER, OTHER, OTHER), durations
    count = _REQUESTS.of(method if method in METHODS else OTHER, route, str(status))
    return _request_series.setdefault((method, route, status), (count, durations))


def _memory_peak_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _memory_limit_bytes() -> float:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
            return float(min(int(Path(path).read_text()), total))
    return float(total)
