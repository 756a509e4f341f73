"""Hot paths on a connection: in pieces, in rows, with bodies, to clients that go or do not read."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from api.server import KEEP_ALIVE_SECONDS
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from shared.tokens import issue_user_token
from tests.api.running import PERSONAL, SPEC
from tests.api.wire import Wire, wire
from tests.services.children import wait_until
from tests.services.processes import Serving, start_serve
from tests.services.snapshots import publish_snapshot

LISTS = "/api/recommendations"
METADATA = "/api/restaurants/metadata"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    made = load_settings({"TASTEMATCH_DATA_DIR": str(tmp_path_factory.mktemp("hot"))})
    store = open_store(made)
    publish_snapshot(store, SPEC)
    store.close()
    return made


@pytest.fixture(scope="module")
def serving(settings: Settings) -> Iterator[Serving]:
    with (
        start_serve(env={"TASTEMATCH_DATA_DIR": str(settings.data_dir)}) as started,
        wire(started.port) as asked,
    ):
        wait_until(
            lambda: asked.ask(METADATA).status == 200, timeout_seconds=10, describe="a snapshot"
        )
        yield started


@pytest.fixture
def connection(serving: Serving) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", serving.port), timeout=20) as opened:
        yield opened


@pytest.fixture
def bearer(settings: Settings) -> str:
    token = issue_user_token(settings, user_id=PERSONAL, ttl_seconds=600, now=time.time())
    return f"Authorization: Bearer {token}\r\n"


def _head(method: str, target: str, number: int, *, extra: str = "", version: str = "1.1") -> bytes:
    fields = f"Host: api.test\r\nX-Request-ID: n{number}\r\n{extra}"
    return f"{method} {target} HTTP/{version}\r\n{fields}\r\n".encode()


def test_a_row_of_hot_and_other_requests_is_answered_in_order(
    connection: socket.socket, bearer: str
) -> None:
    row = [
        ("GET", LISTS, 200),
        ("HEAD", LISTS, 200),
        ("GET", "/ready", 200),
        ("GET", "/health", 200),
        ("GET", "/none", 404),
        ("GET", METADATA, 200),
        ("GET", "/api/lists/popular", 200),
        ("HEAD", METADATA, 200),
        ("GET", LISTS, 200),
    ]
    requests = [_head(method, path, n, extra=bearer) for n, (method, path, _) in enumerate(row)]
    connection.sendall(b"".join(requests))
    answers = Wire(connection)

    for number, (method, _, status) in enumerate(row):
        reply = answers.reply(has_body=method != "HEAD")
        assert (reply.status, reply["x-request-id"]) == (status, f"n{number}")


def test_a_request_may_come_byte_by_byte(connection: socket.socket, bearer: str) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for number in range(2):
        for byte in _head("GET", LISTS, number, extra=bearer):
            connection.sendall(bytes([byte]))
        reply = Wire(connection).reply(has_body=True)
        assert (reply.status, reply["x-request-id"]) == (200, f"n{number}")


@pytest.mark.parametrize("extra", ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_body_is_no_next_request(connection: socket.socket, bearer: str, extra: str) -> None:
    body = b"GET /" if extra.startswith("Content") else b"5\r\nGET /\r\n0\r\n\r\n"
    connection.sendall(_head("GET", LISTS, 1, extra=bearer + extra) + body)
    answers = Wire(connection)
    assert answers.reply(has_body=True)["x-request-id"] == "n1"

    connection.sendall(_head("GET", "/health", 2))
    reply = answers.reply(has_body=True)
    assert (reply.status, reply["x-request-id"]) == (200, "n2")


@pytest.mark.parametrize(
    ("version", "extra"), [("1.1", "Connection: close\r\n"), ("1.0", ""), ("1.0", "Expect: x\r\n")]
)
def test_a_client_that_wants_no_more_is_let_go(
    connection: socket.socket, bearer: str, version: str, extra: str
) -> None:
    connection.sendall(_head("GET", LISTS, 1, extra=bearer + extra, version=version))
    reply = Wire(connection).reply(has_body=True)
    assert (reply.status, reply["connection"]) == (200, "close")
    assert connection.recv(1) == b""


def test_an_offer_to_speak_otherwise_is_passed_over(connection: socket.socket, bearer: str) -> None:
    extra = f"{bearer}Connection: Upgrade\r\nUpgrade: websocket\r\n"
    connection.sendall(_head("GET", LISTS, 1, extra=extra))
    assert Wire(connection).reply(has_body=True).status == 200


def test_a_client_that_reads_late_gets_every_answer(connection: socket.socket) -> None:
    count = 3_000
    row = b"".join(_head("GET", METADATA, number) for number in range(count))
    sending = Thread(target=connection.sendall, args=(row,))
    sending.start()
    answers = Wire(connection)
    for number in range(count):
        reply = answers.reply(has_body=True)
        assert (reply.status, reply["x-request-id"]) == (200, f"n{number}")
    sending.join()


def test_only_idle_connections_are_closed(serving: Serving) -> None:
    started = time.monotonic()
    with wire(serving.port) as busy, wire(serving.port) as idle:
        assert idle.ask("/health").status == 200
        while not idle.is_closed(within_seconds=0.5):
            assert busy.ask("/health").status == 200
        waited = time.monotonic() - started
        assert busy.ask("/health").status == 200
    assert KEEP_ALIVE_SECONDS - 0.5 < waited < KEEP_ALIVE_SECONDS + 3


def test_serving_lists_loads_no_database_package(settings: Settings, bearer: str) -> None:
    with start_serve(env={"TASTEMATCH_DATA_DIR": str(settings.data_dir)}) as other:
        with wire(other.port) as asked:
            name, _, value = bearer.strip().partition(": ")
            assert asked.ask(LISTS, fields={name: value}).status == 200
            assert asked.ask(METADATA).status == 200
        maps = Path(f"/proc/{other.child.pid}/maps").read_text()
    assert "orjson" in maps, "the file tells which packages are loaded"
    assert "sqlalchemy" not in maps
    assert "cryptography" not in maps
