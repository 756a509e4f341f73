"""`tastematch serve --with-worker`: one program of two processes."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from tests.services.children import is_alive, wait_until
from tests.services.processes import Serving, start_serve


@pytest.fixture
def env(tmp_path: Path, sqlite_url: str) -> dict[str, str]:
    return {"TASTEMATCH_DATA_DIR": str(tmp_path / "data"), "DATABASE_URL": sqlite_url}


def _worker(serving: Serving) -> psutil.Process:
    """The worker, once it says that it is at work."""

    with httpx.Client(base_url=serving.url) as client:  # one: each reads all certificates

        def found() -> psutil.Process | None:
            workers = _workers(serving)
            checks = client.get("/ready").json()["checks"]
            return workers[0] if workers and checks["worker"] == "ok" else None

        return wait_until(found, timeout_seconds=20, describe="a worker that is seen")


def _workers(serving: Serving) -> list[psutil.Process]:
    found = []
    for process in serving.child.descendants():
        with contextlib.suppress(psutil.Error):  # it may end while it is looked at
            if "worker" in process.cmdline():
                found.append(process)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_worker_ends_with_the_api(env: dict[str, str], number: signal.Signals) -> None:
    with start_serve("--with-worker", env=env) as serving:
        worker = _worker(serving)
        assert serving.child.stop(number=number, timeout_seconds=12) == 0
        assert not is_alive(worker)
        assert "worker.ended" not in serving.child.stderr()


def test_the_worker_ends_with_an_api_that_is_killed(env: dict[str, str]) -> None:
    with start_serve("--with-worker", env=env) as serving:
        worker = _worker(serving)
        serving.child._process.kill()  # the process alone, none of its descendants
        serving.child.was_signalled = True
        wait_until(lambda: not is_alive(worker), timeout_seconds=12, describe="the worker's end")


def test_a_worker_that_dies_is_started_again(env: dict[str, str]) -> None:
    with start_serve("--with-worker", env=env) as serving:
        first = _worker(serving)
        first.kill()
        wait_until(
            lambda: [worker for worker in _workers(serving) if worker.pid != first.pid],
            timeout_seconds=10,
            describe="another worker",
        )
        assert "worker.ended" in serving.child.stderr()
