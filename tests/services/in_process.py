"""The `tastematch` command within the test's own process: the same door without its start.

For the many small cases of a command; at least one test of each command runs it as users do.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from tastematch.cli import run

Environment = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Done:
    """As `subprocess.CompletedProcess` has it."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def tastematch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., Done]]:
    """A function that runs the words of a command line in an environment of TasteMatch's own."""
    for variable in list(os.environ):
        if variable.startswith(("TASTEMATCH_", "DB_")) or variable in (
            "DATABASE_URL",
            "REDIS_URL",
            "PORT",
        ):
            monkeypatch.delenv(variable)

    def call(*words: str | Path, env: Environment | None = None) -> Done:
        with monkeypatch.context() as patched:
            for name, value in ({"TASTEMATCH_DATA_DIR": str(tmp_path)} | dict(env or {})).items():
                patched.setenv(name, value)
            capsys.readouterr()
            with _own_signals():
                code = run([str(word) for word in words])
            captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    yield call
    structlog.reset_defaults()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Puts back how the test run takes signals: a command that has a loop may change it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
