"""The API as a process of its own, asked through raw sockets: limits, signals, addresses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from shared.tokens import issue_user_token
from tests.api.running import PERSONAL, SPEC
from tests.services.children import Child, unused_port, wait_until
from tests.services.processes import Serving, run_tastematch, start_serve
from tests.services.snapshots import SnapshotSpec, publish_snapshot

get = partial(httpx.get, verify=False)  # or it reads all certificates, each time
MANY = SnapshotSpec(restaurants=dict.fromkeys(range(1, 12_001)))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose store holds a snapshot with 1.5 MB of metadata."""
    folder = tmp_path_factory.mktemp("served")
    store = open_store(_settings(folder))
    publish_snapshot(store, MANY)
    store.close()
    return folder


@pytest.fixture(scope="module")
def serving(data_dir: Path) -> Iterator[Serving]:
    with start_serve(env={"TASTEMATCH_DATA_DIR": str(data_dir)}) as started:
        _wait_for_lists(started.url)
        yield started


def _settings(folder: Path) -> Settings:
    return load_settings({"TASTEMATCH_DATA_DIR": str(folder)})


def _wait_for_lists(url: str) -> None:
    address = f"{url}/api/lists/popular"
    wait_until(lambda: get(address).status_code == 200, timeout_seconds=10, describe="a snapshot")


def _connect(port: int, *, timeout_seconds: float = 20.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_seconds)


def _read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    pieces = []
    while piece := connection.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def _read_until(connection: socket.socket, end: bytes) -> bytes:
    read = b""
    while not read.endswith(end):
        piece = connection.recv(65_536)
        assert piece, read
        read += piece
    return read


def _exchange(port: int, request: bytes) -> bytes:
    with _connect(port) as connection:
        connection.sendall(request)
        return _read_all(connection)


def _problem(answer: bytes) -> dict[str, Any]:
    """The document of a refusal, after a look at the fields that every answer has."""
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(re.findall(r"^([a-z-]+): (.*?)\r?$", head.decode(), re.MULTILINE))
    assert fields["content-type"] == "application/problem+json"
    assert fields["connection"] == "close"
    assert fields["cache-control"] == "no-store"
    assert {"server-timing", "x-process-time"} <= set(fields)
    document: dict[str, Any] = json.loads(body)
    assert document["request_id"] == fields["x-request-id"]
    assert head.startswith(b"HTTP/1.1 %d " % document["status"])
    return document


# --- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 9_000), 414),
        (b"GET /?%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 20_000), 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: %s\r\n\r\n" % (b"a" * 40_000), 431),
        (b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 6_000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX-A: " + b"a" * 1_000_000, 431),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000, 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", None),
    ],
)
def test_what_is_too_large_or_no_request_is_refused(
    serving: Serving, request_bytes: bytes, status: int | None
) -> None:
    answer = _exchange(serving.port, request_bytes)
    document = _problem(answer)
    assert document["status"] == (status or document["status"])
    assert document["status"] in (400, 413, 414, 431)
    assert get(f"{serving.url}/health").status_code == 200


@pytest.mark.parametrize("size", [8_000, 30_000])
def test_what_is_large_but_allowed_passes(serving: Serving, size: int) -> None:
    response = get(f"{serving.url}/health", headers={"X-Long": "a" * size})
    assert response.status_code == 200


def test_floods_take_no_memory(serving: Serving) -> None:
    process = psutil.Process(serving.child.pid)
    before = process.memory_info().rss
    endless = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    for head, piece in (
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n", b"x" * 65_536),
        (endless, chunk),
        (b"GET / HTTP/1.1\r\n", b"X-Flood: " + b"x" * 1_000 + b"\r\n"),
        (b"GET /", b"x" * 65_536),
    ):
        with _connect(serving.port) as connection:
            connection.sendall(head)
            sent = 0
            with contextlib.suppress(OSError):  # the server closed
                while sent < 100_000_000:
                    connection.sendall(piece)
                    sent += len(piece)
            assert sent < 20_000_000
    assert process.memory_info().rss - before < 20 * 1024**2
    assert get(f"{serving.url}/health").status_code == 200


async def test_slow_clients_are_cut_off_and_harm_nobody(serving: Serving) -> None:
    """Half heads, half bodies, silence, and readers that do not read: all at once."""

    async def opened(sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        writer.write(sent)
        await writer.drain()
        return reader, writer

    started = time.monotonic()
    silent = [await opened(b"") for _ in range(20)]
    half_heads = [await opened(b"GET /health HTTP/1.1\r\nHost:") for _ in range(100)]
    second_heads = [
        await opened(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /hea") for _ in range(20)
    ]
    half_bodies = [
        await opened(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        for _ in range(100)
    ]
    # A body that no route reads, dripping on after the answer.
    drips = await opened(b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n")
    whole = (
        b"GET /api/restaurants/metadata HTTP/1.1\r\nHost: a\r\nAccept-Encoding: identity\r\n\r\n"
    )
    stalled = _connect(serving.port)
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.sendall(whole * 40)

    async with httpx.AsyncClient(base_url=serving.url) as client:
        for _ in range(50):
            response = await client.get("/api/lists/popular")
            assert response.status_code == 200
    served_seconds = time.monotonic() - started

    async def rest(reader: asyncio.StreamReader) -> bytes:
        return await asyncio.wait_for(reader.read(), 20)

    for reader, _ in silent:
        assert await rest(reader) == b""
    for reader, _ in half_heads:
        assert _problem(await rest(reader))["code"] == "request-timeout"
    for reader, _ in second_heads:
        assert b"request-timeout" in await rest(reader)
    for reader, _ in half_bodies:
        assert _problem(await rest(reader))["code"] == "request-timeout"
    assert b'{"status":"ok"}' in await rest(drips[0])
    assert time.monotonic() - started < 15
    assert served_seconds < 5
    for _, writer in (*silent, *half_heads, *second_heads, *half_bodies, drips):
        writer.close()
    connections = psutil.Process(serving.child.pid).net_connections
    port = stalled.getsockname()[1]
    deadline = time.monotonic() + 20
    while any(c.raddr and c.raddr.port == port and c.status != "CLOSE" for c in connections()):
        assert time.monotonic() < deadline, "a client that reads nothing keeps its connection"
        await asyncio.sleep(0.1)
    stalled.close()


# --- the wire ---------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(serving: Serving) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-ID: n%d\r\n%s\r\n"
    last = request % (4, b"Connection: close\r\n")
    answer = _exchange(serving.port, b"".join(request % (n, b"") for n in range(4)) + last)
    assert re.findall(rb"x-request-id: (n\d)", answer) == [b"n0", b"n1", b"n2", b"n3", b"n4"]
    assert answer.count(b"HTTP/1.1 200 OK") == 5


def test_head_and_304_have_no_body_on_the_wire(serving: Serving) -> None:
    for path in ("/api/restaurants/metadata", "/api/lists/popular", "/health"):
        head = b"HEAD %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode()
        answer = _exchange(serving.port, head)
        assert answer.endswith(b"\r\n\r\n")
        assert int(re.search(rb"content-length: (\d+)", answer)[1]) > 0  # type: ignore[index]
        assert b"transfer-encoding" not in answer
    conditional = b"GET /api/lists/popular HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n"
    answer = _exchange(serving.port, conditional + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 304 ")
    assert answer.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in answer


def test_http_1_0_is_answered_and_closed(serving: Serving) -> None:
    answer = _exchange(serving.port, b"GET /health HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b'{"status":"ok"}')


@pytest.mark.parametrize("path", ["//", "/../etc/passwd", "/%2e%2e%2fetc", "/docs/../../x", "*"])
def test_odd_paths_lead_nowhere(serving: Serving, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answer = _exchange(serving.port, request.encode())
    assert _problem(answer)["status"] in (400, 404)


def test_no_answer_names_the_server(serving: Serving) -> None:
    for path in ("/health", "/nowhere", "/ready"):
        assert "server" not in get(serving.url + path).headers


def test_log_lines_are_json_and_hold_no_text_of_clients(tmp_path: Path) -> None:
    with start_serve(env={"TASTEMATCH_DATA_DIR": str(tmp_path)}) as serving:
        for request in (
            b"GET /nowhere-hunter2%0a%1b[31m?q=hunter2 HTTP/1.1\r\nUser-Agent: hunter2\r\n",
            b"GET /api/recommendations HTTP/1.1\r\nAuthorization: Bearer hunter2\r\n",
            b"GET /health HTTP/1.1\r\nX-Request-ID: a\x0bhunter2\r\n",
            b"hunter2\r\n",
        ):
            _exchange(serving.port, request + b"Host: a\r\nConnection: close\r\n\r\n")
        serving.child.stop()
        lines = serving.child.stderr().splitlines()
    requests = [event for line in lines if (event := json.loads(line))["event"] == "request"]
    assert [(line["route"], line["status"]) for line in requests] == [
        ("unmatched", 404),
        ("/api/recommendations", 401),
        ("unmatched", 400),
        ("unmatched", 400),
    ]
    assert {"ts", "level", "method", "seconds", "request_id"} <= set(requests[0])
    assert not [line for line in lines if "hunter2" in line or "\x1b" in line]


# --- addresses and signals --------------------------------------------------------------------


def test_localhost_is_both_loopback_addresses(tmp_path: Path) -> None:
    with start_serve("--host", "localhost", env={"TASTEMATCH_DATA_DIR": str(tmp_path)}) as serving:
        for host in ("127.0.0.1", "[::1]"):
            assert get(f"http://{host}:{serving.port}/health").status_code == 200


def test_every_address_is_ipv4_too(tmp_path: Path) -> None:
    with start_serve("--host", "::", env={"TASTEMATCH_DATA_DIR": str(tmp_path)}) as serving:
        for host in ("127.0.0.1", "[::1]"):
            assert get(f"http://{host}:{serving.port}/health").status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::"])
def test_a_taken_port_is_one_clear_line(tmp_path: Path, host: str) -> None:
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    with socket.socket(family) as holder:
        holder.bind(("::" if host == "::" else "127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = run_tastematch(
            *("serve", "--host", host),
            env={"TASTEMATCH_DATA_DIR": str(tmp_path), "PORT": str(port)},
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"tastematch: port {port} is taken by another program; set PORT to a free one"
    ]


def test_an_unknown_host_is_one_clear_line(tmp_path: Path) -> None:
    done = run_tastematch(
        "serve", env={"TASTEMATCH_DATA_DIR": str(tmp_path), "TASTEMATCH_HOST": "no such host"}
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "TASTEMATCH_HOST" in done.stderr


def test_a_data_folder_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    settings.snapshots_dir.write_text("a file where a folder belongs")
    done = run_tastematch("serve", env={"TASTEMATCH_DATA_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("tastematch: TASTEMATCH_DATA_DIR: cannot be used (")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_is_in_flight_finish(data_dir: Path, number: signal.Signals) -> None:
    env = {"TASTEMATCH_DATA_DIR": str(data_dir)}
    with contextlib.ExitStack() as sockets, start_serve(env=env) as serving:
        _wait_for_lists(serving.url)
        idle = [sockets.enter_context(_connect(serving.port)) for _ in range(50)]
        for connection in idle:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            _read_until(connection, b'{"status":"ok"}')
        half = sockets.enter_context(_connect(serving.port))
        half.sendall(b"GET /health HTTP/1.1\r\nHo")
        slow = sockets.enter_context(_connect(serving.port))
        slow.sendall(b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        wait_until(
            lambda: get(f"{serving.url}/health").status_code == 200,
            timeout_seconds=5,
            describe="an answer beside the slow request",
        )
        started = time.monotonic()
        serving.child.send(number)
        # While something is in flight the port stays open, and says that it is leaving.
        ready = wait_until(
            lambda: _status(f"{serving.url}/ready") == 503, timeout_seconds=2, describe="draining"
        )
        assert ready
        slow.sendall(b"cd")
        answer = _read_all(slow)
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert b"connection: close" in answer
        _wait_for_end(serving.child, seconds=10)
        assert time.monotonic() - started < 10
        assert serving.child.exit_status == 0
        assert [connection.recv(1) for connection in idle] == [b""] * 50


def test_a_signal_ends_a_request_that_never_ends(data_dir: Path) -> None:
    env = {"TASTEMATCH_DATA_DIR": str(data_dir)}
    with contextlib.ExitStack() as sockets, start_serve(env=env) as serving:
        slow = sockets.enter_context(_connect(serving.port))
        slow.sendall(b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        started = time.monotonic()
        serving.child.send(signal.SIGTERM)
        _wait_for_end(serving.child, seconds=12)
        assert time.monotonic() - started < 10
        assert serving.child.exit_status == 0


def test_idle_connections_do_not_hold_up_a_stop(data_dir: Path) -> None:
    env = {"TASTEMATCH_DATA_DIR": str(data_dir)}
    with contextlib.ExitStack() as sockets, start_serve(env=env) as serving:
        for _ in range(20):
            sockets.enter_context(_connect(serving.port))
        started = time.monotonic()
        serving.child.send(signal.SIGINT)
        _wait_for_end(serving.child, seconds=5)
        assert time.monotonic() - started < 3
        assert serving.child.exit_status == 0


def test_killed_it_starts_again_from_its_own_copy(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    store = open_store(settings)
    manifest = publish_snapshot(store, SPEC)
    store.close()
    token = issue_user_token(settings, user_id=PERSONAL, ttl_seconds=600, now=time.time())
    headers = {"Authorization": f"Bearer {token}"}
    env = {"TASTEMATCH_DATA_DIR": str(tmp_path)}
    with start_serve(env=env) as serving:
        _wait_for_lists(serving.url)
        wait_until(
            (tmp_path / "snapshots" / "current").exists,
            timeout_seconds=5,
            describe="the note of what to open",
        )
        expected = get(f"{serving.url}/api/recommendations", headers=headers).json()
        serving.child.kill()
    shutil.rmtree(settings.store_dir)
    # A database that nobody answers for.
    env |= {"DATABASE_URL": f"postgresql://nobody@127.0.0.1:{unused_port()}/shop"}
    started = time.monotonic()
    with start_serve(env=env) as serving:
        response = get(f"{serving.url}/api/recommendations", headers=headers)
        assert time.monotonic() - started < 5
        assert response.status_code == 200
        assert response.json() == expected
        assert response.headers["x-snapshot-version"] == manifest.version
        ready = get(f"{serving.url}/ready")
        assert ready.status_code == 200
        assert ready.json()["status"] == "degraded"
        assert ready.json()["checks"]["database"] == "down"


def test_metrics_stay_off_the_public_port_in_production(tmp_path: Path) -> None:
    secret = "s" * 40
    metrics_port = unused_port()
    env = {
        "TASTEMATCH_DATA_DIR": str(tmp_path),
        "TASTEMATCH_ENV": "production",
        "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{unused_port()}/shop",
        "TASTEMATCH_JWT_SECRET": secret,
        "TASTEMATCH_SERVICE_TOKEN": secret[::-1] + "t",
        "TASTEMATCH_METRICS_PORT": str(metrics_port),
    }
    with start_serve(env=env) as serving:
        assert get(f"{serving.url}/metrics").status_code == 404
        private = get(f"http://127.0.0.1:{metrics_port}/metrics")
        assert private.status_code == 200
        assert "tastematch_http_requests_total" in private.text


def _status(url: str) -> int | None:
    try:
        return get(url, timeout=2).status_code
    except httpx.HTTPError:
        return None


def _wait_for_end(child: Child, *, seconds: float) -> None:
    wait_until(lambda: not child.is_running, timeout_seconds=seconds, describe="its end")
