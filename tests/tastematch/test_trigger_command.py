"""`tastematch trigger` against a real API and a real worker, and against what is neither."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess

import httpx
import pytest
from sqlalchemy import text

from shared.settings import load_settings
from tests.services.children import unused_port
from tests.services.databases import sqlite_address
from tests.services.in_process import Done
from tests.services.processes import Serving, run_tastematch, start_serve
from tests.worker.shop import Shop

Output = CompletedProcess[str] | Done
Trigger = Callable[..., Done]


@pytest.fixture(scope="module")
def open_shop(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shop, Serving]]:
    """One API for all tests that do not end it."""
    folder = tmp_path_factory.mktemp("shop")
    shutil.copyfile(sqlite_template, folder / "shop.db")
    with contextlib.ExitStack() as stack:
        shop = Shop(folder, sqlite_address(folder / "shop.db"), stack=stack)
        yield shop, stack.enter_context(start_serve(env=shop.env))


@pytest.fixture
def shop(open_shop: tuple[Shop, Serving]) -> Iterator[Shop]:
    """A shop without any job, whose workers end with the test."""
    opened, _ = open_shop
    with opened.engine() as engine, engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
    opened.journal_path.unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        yield dataclasses.replace(opened, stack=stack)


@pytest.fixture
def api(open_shop: tuple[Shop, Serving]) -> Serving:
    return open_shop[1]


@pytest.fixture
def new_shop(sqlite_url: str, tmp_path: Path) -> Iterator[Shop]:
    """A shop of the test's own, without an API."""
    with contextlib.ExitStack() as stack:
        yield Shop(tmp_path, sqlite_url, stack=stack)


@pytest.fixture
def trigger(tastematch: Callable[..., Done]) -> Trigger:
    def run(shop: Shop, url: str, *words: str) -> Done:
        return tastematch("trigger", "--url", url, *words, env=shop.env)

    return run


def token_of(shop: Shop, kind: str) -> str:
    token = getattr(load_settings(shop.env), f"{kind}_token")
    assert token is not None
    return str(token.get_secret_value())


def assert_one_line(output: Output, *, status: int, says: str) -> None:
    assert output.returncode == status, output
    assert output.stdout == ""
    (line,) = output.stderr.splitlines()
    assert line.startswith("tastematch: ")
    assert says in line


# --- triggering -------------------------------------------------------------------------------


def test_it_prints_the_job_and_joins_the_one_that_waits(
    trigger: Trigger, shop: Shop, api: Serving
) -> None:
    first = run_tastematch("trigger", "--url", api.url, env=shop.env)
    second = trigger(shop, api.url)
    document = json.loads(trigger(shop, api.url, "--json").stdout)

    (job,) = shop.jobs()
    assert (first.returncode, first.stdout) == (0, f"job {job.id} queued\n")
    assert second.stdout == f"job {job.id} queued (joined the one that was there)\n"
    assert (document["id"], document["coalesced"]) == (job.id, True)
    assert first.stderr == second.stderr == ""


def test_without_an_address_it_asks_this_machine_at_the_port_of_the_settings(
    tastematch: Callable[..., Done], shop: Shop, api: Serving
) -> None:
    output = tastematch("trigger", env=shop.env | {"PORT": str(api.port)})
    assert output.returncode == 0
    assert len(shop.jobs()) == 1


def test_with_address_and_token_it_needs_no_settings(
    shop: Shop, api: Serving, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    env = {"TASTEMATCH_DATA_DIR": str(folder), "DATABASE_URL": "nonsense"}
    token = token_of(shop, "service")
    output = run_tastematch("trigger", "--url", f"{api.url}/", "--token", token, env=env)
    assert output.returncode == 0, output
    assert not folder.exists()


# --- waiting ----------------------------------------------------------------------------------


def test_waiting_ends_with_a_success(trigger: Trigger, shop: Shop, api: Serving) -> None:
    shop.started_worker()
    output = trigger(shop, api.url, "--wait", "--json")
    job = json.loads(output.stdout)
    assert output.returncode == 0
    assert (job["state"], job["progress"]) == ("succeeded", 1)
    assert job["id"] == shop.jobs()[0].id


def test_waiting_ends_with_a_failure(trigger: Trigger, shop: Shop, api: Serving) -> None:
    shop.started_worker("--error", "the store is full")
    output = trigger(shop, api.url, "--wait")
    (job,) = shop.jobs()
    assert output.returncode == 1
    assert output.stdout == f"job {job.id} failed\n"
    assert output.stderr == f"tastematch: job {job.id} failed: the store is full\n"


def test_waiting_ends_with_a_cancelling(trigger: Trigger, shop: Shop, api: Serving) -> None:
    statuses: list[int] = []

    def cancel() -> None:
        shop.until_started()
        headers = {"Authorization": f"Bearer {token_of(shop, 'service')}"}
        with httpx.Client(base_url=api.url, headers=headers) as client:
            (job,) = client.get("/api/jobs").json()["items"]
            statuses.append(client.post(f"/api/jobs/{job['id']}/cancel").status_code)

    shop.started_worker("--until", shop.folder / "never")
    operator = threading.Thread(target=cancel)
    operator.start()
    output = trigger(shop, api.url, "--wait")
    operator.join()
    (job,) = shop.jobs()
    assert statuses == [202]
    assert output.returncode == 1
    assert output.stdout == f"job {job.id} cancelled\n"
    assert output.stderr == f"tastematch: job {job.id} cancelled\n"


def test_waiting_has_an_end(trigger: Trigger, shop: Shop, api: Serving) -> None:
    output = trigger(shop, api.url, "--wait", "--timeout", "0.5")
    assert_one_line(output, status=1, says="is still queued after the time-out")


def test_an_api_that_restarts_meanwhile_is_waited_for(new_shop: Shop) -> None:
    outputs: list[Output] = []
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    with start_serve(env=new_shop.env, port=port):
        waiting = threading.Thread(
            target=lambda: outputs.append(
                run_tastematch(
                    *("trigger", "--url", url, "--wait", "--timeout", "60"), env=new_shop.env
                )
            )
        )
        waiting.start()
        new_shop.until_queued()
    with start_serve(env=new_shop.env, port=port):
        new_shop.started_worker()
        waiting.join(60)
    assert [output.returncode for output in outputs] == [0], outputs


# --- refusals ---------------------------------------------------------------------------------


def test_a_wrong_token_is_one_line(trigger: Trigger, shop: Shop, api: Serving) -> None:
    output = trigger(shop, api.url, "--token", "wrong-horse")
    assert_one_line(output, status=1, says="refused with 401: ")
    assert "wrong-horse" not in output.stderr


def test_a_token_that_may_not_trigger_is_one_line(
    trigger: Trigger, shop: Shop, api: Serving
) -> None:
    output = trigger(shop, api.url, "--token", token_of(shop, "viewer"))
    assert_one_line(output, status=1, says="refused with 403: ")
    assert shop.jobs() == []


def test_a_queue_that_is_away_is_one_line(trigger: Trigger, new_shop: Shop) -> None:
    new_shop.redis_url = f"redis://127.0.0.1:{unused_port()}/0"
    with start_serve(env=new_shop.env) as api:
        output = trigger(new_shop, api.url)
    assert_one_line(output, status=4, says="cannot take the job now: ")
    assert "try again in" in output.stderr
    assert new_shop.jobs() == []


def test_an_api_that_is_away_is_one_line(trigger: Trigger, shop: Shop) -> None:
    address = f"127.0.0.1:{unused_port()}"
    output = trigger(shop, f"http://somebody:secret@{address}")
    assert_one_line(output, status=4, says=f"the API at http://{address} does not answer")


@pytest.mark.parametrize(
    "words",
    [
        ["--url", "ftp://127.0.0.1"],
        ["--url", "127.0.0.1:8000"],
        ["--url", "http://127.0.0.1:port"],
        ["--url", "http://"],
        ["--token", "two words"],
        ["--token", "line\nbreak"],
        ["--timeout", "0"],
        ["now"],
    ],
)
def test_wrong_usage(tastematch: Callable[..., Done], shop: Shop, words: Sequence[str]) -> None:
    output = tastematch("trigger", *words, env=shop.env)
    assert output.returncode == 2, output
    assert "Traceback" not in output.stderr


# --- what is not TasteMatch -------------------------------------------------------------------


@contextlib.contextmanager
def answering(
    status: int, body: bytes, headers: dict[str, str] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """A foreign server: its address, and the tokens that it was sent."""
    tokens: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers["Authorization"])
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Not on the tests' own stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", tokens
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"{}", b"[]", b"null", b"\xff"])
def test_another_program_is_one_line(trigger: Trigger, shop: Shop, body: bytes) -> None:
    with answering(200, body) as (url, _):
        assert_one_line(trigger(shop, url), status=1, says="is not TasteMatch")


def test_a_token_is_not_carried_to_where_a_redirect_points(trigger: Trigger, shop: Shop) -> None:
    with answering(200, b"{}") as (other, tokens):
        with answering(302, b"", {"Location": f"{other}/api/jobs/precompute"}) as (url, _):
            output = trigger(shop, url)
        assert_one_line(output, status=1, says="refused with 302")
    assert tokens == []


def test_what_a_refusal_says_cannot_write_on_the_terminal(trigger: Trigger, shop: Shop) -> None:
    body = json.dumps({"detail": "no\n\x1b[2Jthing"}).encode()
    with answering(400, body) as (url, _):
        assert_one_line(trigger(shop, url), status=1, says="refused with 400: no [2Jthing")
