"""The `tastematch` command as users run it: a process of its own, in an environment of its own.

A command sees PATH, HOME, a data folder and what the test gives it in `env`, nothing of the
environment in which the tests run. `wait_until` stands here too for the tests that need both.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services.children import Child, unused_port, wait_until

__all__ = ["Child", "Serving", "run_tastematch", "start_serve", "start_worker", "wait_until"]

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "tastematch")
READY_SECONDS = 30.0
STOP_SECONDS = 15.0
PROBE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Serving:
    """A running `tastematch serve`."""

    child: Child
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def run_tastematch(
    *arguments: str | Path, env: Mapping[str, str] | None = None, timeout_seconds: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end, whatever its exit status, and returns it with its output.

    Without TASTEMATCH_DATA_DIR in `env` the command has a data folder that goes away with it.
    Raises AssertionError, with the output so far, when it takes longer than `timeout_seconds`.
    """
    with _command_environment(env) as environment:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
            env=environment,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout_seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise AssertionError(
                    f"{arguments} still ran after {timeout_seconds} s\n{stdout}\n{stderr}"
                ) from None
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@contextlib.contextmanager
def start_serve(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    port: int | None = None,
    ready_seconds: float = READY_SECONDS,
) -> Iterator[Serving]:
    """Runs `tastematch serve` on `port`, by default an unused one, once GET /health is a 200.

    At the end it is stopped by SIGTERM, unless the test has ended it through the child before.
    Raises AssertionError when it does not become ready, ends by itself, or outlives the SIGTERM.
    """
    address = port or unused_port()
    words = ("serve", "--host", "127.0.0.1", "--port", str(address), *arguments)
    with _running(words, env) as child:
        wait_until(
            lambda: _is_alive(child) and _answers_health(address),
            timeout_seconds=ready_seconds,
            describe=lambda: f"GET /health on port {address}",
        )
        yield Serving(child, address)


@contextlib.contextmanager
def start_worker(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    ready: Callable[[Child], object] | str = "worker.started",
    ready_seconds: float = READY_SECONDS,
) -> Iterator[Child]:
    """Runs `tastematch worker` once `ready` holds: a text in its output, or a condition.

    Ends, and fails, as `start_serve` does.
    """
    with _running(("worker", *arguments), env) as child:

        def is_ready() -> object:
            if isinstance(ready, str):
                return ready in child.stdout() or ready in child.stderr()
            return ready(child)

        wait_until(
            lambda: _is_alive(child) and is_ready(),
            timeout_seconds=ready_seconds,
            describe="the worker's start" if callable(ready) else f"the worker to say {ready!r}",
        )
        yield child


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    return unused_port()


@contextlib.contextmanager
def _running(words: tuple[str, ...], env: Mapping[str, str] | None) -> Iterator[Child]:
    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(_command_environment(env))
        logs = stack.enter_context(tempfile.TemporaryDirectory(prefix="tastematch-logs-"))
        child = Child(
            [*COMMAND, *words],
            name=f"tastematch {words[0]}",
            folder=Path(logs),
            environment=environment,
            working_folder=REPOSITORY,
        )
        stack.callback(child.stop, timeout_seconds=STOP_SECONDS)
        try:
            yield child
            if not child.was_signalled:
                _is_alive(child)
                status = child.stop(timeout_seconds=STOP_SECONDS)
                assert status != -signal.SIGKILL, f"SIGTERM did not end it in {STOP_SECONDS} s"
        except BaseException as error:
            error.add_note(child.log_tail())
            raise


@contextlib.contextmanager
def _command_environment(env: Mapping[str, str] | None) -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="tastematch-home-") as home:
        yield {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": home,
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            "TASTEMATCH_DATA_DIR": str(Path(home) / "data"),
            **(env or {}),
        }


def _is_alive(child: Child) -> bool:
    assert child.is_running, f"it ended by itself with status {child.exit_status}"
    return True


def _answers_health(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
