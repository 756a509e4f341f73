"""What `make demo` runs after the installation: from an empty folder to an answered curl line."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.services.children import Child, unused_port, wait_until
from tests.services.processes import REPOSITORY

COMMAND = [sys.executable, "-m", "tastematch.demo"]
READY_SECONDS = 60.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
        "PORT": str(unused_port()),
        # A shell that points elsewhere does not lead the demo away from the embedded default.
        "DATABASE_URL": "postgres://nobody@127.0.0.1:1/shop",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }


def answer_of(words: list[str]) -> bytes:
    """What the printed curl line answers; curl itself need not be on the machine."""
    headers = [words[at + 1] for at, word in enumerate(words) if word == "-H"]
    request = urllib.request.Request(words[-1])
    for header in headers:
        name, _, value = header.partition(": ")
        request.add_header(name, value)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
        return bytes(answer.read())


def run_demo(environment: dict[str, str], folder: Path, *, ended_by: signal.Signals) -> str:
    """Starts the demo, follows its curl lines, ends it; returns what it printed."""
    folder.mkdir()
    child = Child(
        COMMAND,
        name="demo",
        folder=folder,
        environment=environment,
        working_folder=REPOSITORY,
    )
    try:
        wait_until(
            lambda: "Ctrl-C stops it" in child.stdout() or child.exit_status is not None,
            timeout_seconds=READY_SECONDS,
            describe=child.log_tail,
        )
        said = child.stdout()
        assert "Ctrl-C stops it" in said, child.log_tail()
        lines = [shlex.split(line) for line in said.splitlines() if line.startswith("  curl ")]
        answers = [answer_of(words) for words in lines]
        mine, as_operator, metadata = answers
        assert mine == as_operator
        names = re.findall(rb'"id":(\d+),"name"', metadata)
        ids = mine.decode().strip("[]").split(",")
        assert len(ids) == 20
        assert set(ids) <= {name.decode() for name in names}
        helpers = child.descendants()
        assert helpers, "the API and the worker are processes of the demo"
        child.send(ended_by)
        wait_until(
            lambda: child.exit_status is not None and not any(h.is_running() for h in helpers),
            timeout_seconds=15,
            describe=child.log_tail,
        )
        assert child.exit_status == (0 if ended_by == signal.SIGINT else 128 + ended_by)
        return said
    finally:
        child.stop(timeout_seconds=15)


def test_from_an_empty_folder_and_again(environment: dict[str, str], tmp_path: Path) -> None:
    first = run_demo(environment, tmp_path / "first", ended_by=signal.SIGINT)
    for stage in ("create the database", "import data/entree", "precompute a snapshot"):
        assert re.search(rf"^{stage} +\d+\.\d s$", first, re.MULTILINE)
    assert "imported 50467, updated 0, unchanged 0, rejected 0" in first

    second = run_demo(environment, tmp_path / "second", ended_by=signal.SIGTERM)
    assert "there already" in second
    assert "import" not in second


def test_a_taken_port_is_one_clear_line(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(environment["PORT"]))):
        done = subprocess.run(
            COMMAND,
            env=environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert environment["PORT"] in done.stderr
    assert not Path(environment["TASTEMATCH_DATA_DIR"], "tastematch.db").exists()
