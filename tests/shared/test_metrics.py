"""Metrics in a process of their own: what is exposed, how many series, by which listener."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.metrics import MAX_SERIES
from shared.metrics_listener import MetricsListener, start_metrics_listener
from tests.services.children import unused_port

REPOSITORY = Path(__file__).parents[2]


def exposed(program: str) -> str:
    """What a fresh process shows after running `program` with `m` as the module."""
    lines = ["from shared import metrics as m", program, "print(m.render()[0].decode())"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"]},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def series(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def value(text: str, name: str) -> float:
    (line,) = [line for line in series(text) if line.rpartition(" ")[0] == name]
    return float(line.rpartition(" ")[2])


EVERYTHING = """
m.start_metrics("api", version="1.2.3")
m.start_metrics("worker", version="1.2.3")
names = ["/api/recommendations", "/api/users/{user_id}/recommendations",
         "/api/restaurants/metadata"] + [f"/api/route{n}/{{id}}" for n in range(20)] + ["other"]
for name in names:
    for method in ["GET", "HEAD", "POST", "BREW"]:
        for status in [200, 304, 400, 401, 403, 404, 405, 410, 422, 500, 503]:
            m.request_ended(method=method, route=name, status=status, seconds=0.01)
for name in m.LISTS:
    for source in m.SOURCES:
        m.recommendations_served(name, source)
parts = ["restaurants", "users", "lists", "popular", "similar", "metadata_index", "cities",
         "metadata", "metadata.zst", "metadata.br", "metadata.gz"]
for version in range(50):
    m.snapshot_taken_up(created_at=1, loaded_at=2, algorithm=f"graph{version}", schema=version,
                        entities={"users": 1}, part_bytes={part: 1 for part in parts})
stages = [{"name": name, "seconds": 1.0} for name in
          ["extract", "matrix", "rank", "lists", "projection", "publish", "prune"]]
for kind in ["precompute"]:
    for state in ["succeeded", "failed", "cancelled"]:
        for origin in ["api", "cron", "cli"] + [f"odd{n}" for n in range(50)]:
            m.job_ended(kind=kind, state=state, origin=origin, seconds=3, stages=stages,
                        peak_rss_mb=100, now=5)
    m.job_progressed(kind, 0.5)
class Pool:
    def checkedin(self): return 3
    def checkedout(self): return 1
m.watch_pool(Pool())
m.worker_seen(7)
"""


def test_no_traffic_makes_more_series_than_the_limit() -> None:
    for service, at_least in (("api", 250), ("worker", 40)):
        other = {"api": "worker", "worker": "api"}[service]
        program = EVERYTHING.replace(f'm.start_metrics("{other}", version="1.2.3")', "")
        assert at_least < len(series(exposed(program))) < MAX_SERIES


def test_each_metric_has_the_prefix_a_help_text_and_a_unit_that_prometheus_knows() -> None:
    text = exposed(EVERYTHING)
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}

    assert {name for name in names if not name.startswith("tastematch_")} == {
        name for name in names if name.startswith("process_")
    }
    for line in text.splitlines():
        if line.startswith("# HELP"):
            assert len(line.split(maxsplit=3)) == 4, line
        if line.startswith("# TYPE") and line.endswith(" counter"):
            assert line.split()[2].endswith("_total"), line
    assert not any(line.split("{")[0].endswith("_created") for line in series(text))


def test_requests_are_counted_exactly_and_timed_by_class() -> None:
    text = exposed(
        'm.start_metrics("api", version="1")\n'
        "for status, seconds in [(200, 0.002), (200, 0.2), (304, 0.001)]:\n"
        '    m.request_ended(method="GET", route="/api/recommendations", status=status,'
        " seconds=seconds)\n"
        "m.watch_in_flight(lambda: 3)\n"
        "m.request_shed()"
    )
    labels = 'method="GET",route="/api/recommendations"'
    timed = 'code="2xx",route="/api/recommendations"'

    assert value(text, f'tastematch_http_requests_total{{code="200",{labels}}}') == 2
    assert value(text, f'tastematch_http_requests_total{{code="304",{labels}}}') == 1
    assert value(text, "tastematch_http_requests_in_flight") == 3
    assert value(text, "tastematch_http_requests_shed_total") == 1
    assert value(text, f"tastematch_http_request_duration_seconds_count{{{timed}}}") == 2
    bucket = f"tastematch_http_request_duration_seconds_bucket{{{timed.replace(',', ',le=@,', 1)}}}"
    assert value(text, bucket.replace("@", '"0.0025"')) == 1


def test_rates_begin_at_zero() -> None:
    text = exposed('m.start_metrics("api", version="1")')

    for name in ("for_you", "discover", "order_again"):
        for source in ("personal", "preferences", "popular-city", "popular"):
            labels = f'list="{name}",source="{source}"'
            assert value(text, f"tastematch_recommendations_served_total{{{labels}}}") == 0
    assert value(text, 'tastematch_metadata_responses_total{kind="not_modified"}') == 0
    assert value(text, 'tastematch_degraded{dependency="store"}') == 0


def test_api_and_worker_show_only_what_they_know() -> None:
    api = exposed('m.start_metrics("api", version="1")')
    worker = exposed('m.start_metrics("worker", version="1")')

    assert "tastematch_http_requests_in_flight" in api
    assert "tastematch_worker_heartbeat" not in api
    assert "tastematch_worker_heartbeat" in worker
    assert "tastematch_http" not in worker
    for text in (api, worker):
        assert value(text, "tastematch_memory_limit_bytes") > 2**20
        assert value(text, "tastematch_memory_peak_bytes") > 2**20
        assert value(text, "process_resident_memory_bytes") > 2**20
        assert 'tastematch_build_info{python="' in text


def test_the_last_job_replaces_the_one_before() -> None:
    text = exposed(
        'm.start_metrics("worker", version="1")\n'
        "def end(state, stages, now):\n"
        '    m.job_ended(kind="precompute", state=state, origin="api", seconds=2, now=now,'
        " stages=stages, peak_rss_mb=64)\n"
        'end("succeeded", [{"name": "extract", "seconds": 1.5}], 100)\n'
        'end("failed", [{"name": "publish", "seconds": 2.5}], 200)'
    )

    assert value(text, 'tastematch_job_stage_duration_seconds{stage="publish"}') == 2.5
    assert 'stage="extract"' not in text
    assert value(text, 'tastematch_job_last_success_timestamp_seconds{kind="precompute"}') == 100
    assert value(text, 'tastematch_job_peak_rss_bytes{kind="precompute"}') == 64 * 2**20
    labels = 'kind="precompute",origin="api",state="failed"'
    assert value(text, f"tastematch_jobs_total{{{labels}}}") == 1


# The listener


@pytest.fixture
def listening() -> Any:
    port = unused_port()
    listener = start_metrics_listener(port, "localhost")
    yield port
    listener.close()


def ask(port: int, method: str, path: str, host: str = "127.0.0.1") -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read()
    finally:
        connection.close()


def test_the_listener_answers_metrics_and_health_and_nothing_else(listening: int) -> None:
    status, content_type, body = ask(listening, "GET", "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    assert b"# HELP" in body or body == b""
    status, _, body = ask(listening, "GET", "/health")
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert ask(listening, "HEAD", "/metrics")[::2] == (200, b"")
    for path in ("/", "/metrics/", "/../etc/passwd", "/api/jobs"):
        assert ask(listening, "GET", path)[0] == 404
    for method in ("POST", "DELETE", "BREW"):
        status, content_type, body = ask(listening, method, "/metrics")
        assert (status, content_type) == (405, "application/problem+json")
        assert json.loads(body)["code"] == "method-not-allowed"


def test_answers_of_the_listener_have_the_fields_that_all_answers_have(listening: int) -> None:
    for path in ("/metrics", "/nowhere"):
        connection = http.client.HTTPConnection("127.0.0.1", listening, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            fields = {name.lower() for name, _ in connection.getresponse().getheaders()}
            assert {"x-request-id", "x-process-time", "server-timing", "cache-control"} <= fields


def test_a_silent_client_does_not_keep_others_waiting(listening: int) -> None:
    with socket.create_connection(("127.0.0.1", listening)) as silent:
        silent.sendall(b"GET /met")
        assert ask(listening, "GET", "/metrics")[0] == 200


def test_localhost_answers_on_both_families(listening: int) -> None:
    hosts = {str(found[4][0]) for found in socket.getaddrinfo("localhost", listening)}
    for host in hosts:
        assert ask(listening, "GET", "/health", host)[0] == 200


def test_any_address_takes_ipv4_and_ipv6() -> None:
    port = unused_port()
    listener = start_metrics_listener(port, "::")
    try:
        for host in ("127.0.0.1", "::1"):
            assert ask(port, "GET", "/health", host)[0] == 200
    finally:
        listener.close()


def test_a_taken_port_is_one_clear_line(listening: int) -> None:
    with pytest.raises(SettingsError, match=r"^TASTEMATCH_METRICS_PORT: .*in use"):
        start_metrics_listener(listening, "localhost")


def test_a_foreign_host_is_one_clear_line() -> None:
    with pytest.raises(SettingsError, match=r"^TASTEMATCH_METRICS_PORT: "):
        start_metrics_listener(unused_port(), "192.0.2.1")


def test_a_closed_listener_frees_its_port() -> None:
    port = unused_port()
    for _ in range(3):
        listener: MetricsListener = start_metrics_listener(port, "127.0.0.1")
        assert ask(port, "GET", "/health")[0] == 200
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            ask(port, "GET", "/health")
