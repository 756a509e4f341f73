"""Processes that a test run starts: a free port, a child with its output in files, waiting.

Every child leads a session of its own: Ctrl-C in the terminal reaches the test run alone, which
then ends its children by process id. What the child does, and when it is ready, is not known here.
"""

from __future__ import annotations

import contextlib
import pwd
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

# "wheel": servers come from the wheels even where the machine has its own.
SERVERS_VARIABLE = "TASTEMATCH_TEST_SERVERS"
# What a server sees of the environment: nothing of the test run's own.
SYSTEM_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
# Below the range from which Linux (32768) and macOS (49152) give out client ports: a client that
# retries a dead server's port from that range can connect to itself and then holds the port.
FIRST_PORT = 20_000
LAST_PORT = 32_000
POLL_SECONDS = 0.02
KILL_SECONDS = 10.0
LOG_TAIL_LINES = 60

T = TypeVar("T")


def unused_port() -> int:
    """Returns a port of 127.0.0.1 on which nothing listens."""
    candidates = random.SystemRandom()
    for _ in range(200):
        port = candidates.randrange(FIRST_PORT, LAST_PORT)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no unused port between {FIRST_PORT} and {LAST_PORT}")


def wait_until(
    condition: Callable[[], T], *, timeout_seconds: float, describe: str | Callable[[], str]
) -> T:
    """Polls `condition` until it returns something true, and returns that.

    `describe` names what is awaited; as a function it is called at the failure only, and may show
    a log. Raises AssertionError after `timeout_seconds`; what `condition` raises goes through.
    """
    started = time.monotonic()
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() - started > timeout_seconds:
            what = describe() if callable(describe) else describe
            raise AssertionError(
                f"waited {timeout_seconds} s in vain for {what}; last seen: {result!r}"
            )
        time.sleep(POLL_SECONDS)


def identity(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """Returns the arguments with which `subprocess` runs a program as `account`; None: as now."""
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


class Child:
    """One process that this test run started, its output files and its end.

    `folder` takes `<name>.out` and `<name>.err`, to which a later child of that name appends.
    Signals reach the descendants too, since PostgreSQL gives each of its processes a session.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        name: str,
        folder: Path,
        environment: Mapping[str, str],
        working_folder: Path,
        account: pwd.struct_passwd | None = None,
    ) -> None:
        self.name = name
        self.stdout_path = folder / f"{name}.out"
        self.stderr_path = folder / f"{name}.err"
        self.was_signalled = False
        with self.stdout_path.open("ab") as stdout, self.stderr_path.open("ab") as stderr:
            self._process = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=working_folder,
                env=dict(environment),
                start_new_session=True,
                **identity(account),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """The exit status, the negative signal number, or None while the process runs."""
        return self._process.poll()

    @property
    def is_running(self) -> bool:
        return self.exit_status is None

    def stdout(self) -> str:
        return self.stdout_path.read_text(encoding="utf-8", errors="replace")

    def stderr(self) -> str:
        return self.stderr_path.read_text(encoding="utf-8", errors="replace")

    def log_tail(self) -> str:
        """Returns the last lines of both output files under a heading, for failure messages."""
        parts = [f"{self.name} (pid {self.pid}, exit status {self.exit_status})"]
        for title, text in (("stdout", self.stdout()), ("stderr", self.stderr())):
            lines = text.splitlines()[-LOG_TAIL_LINES:]
            parts += [f"--- {title} ---", *lines] if lines else []
        return "\n".join(parts)

    def descendants(self) -> list[psutil.Process]:
        """Returns those still running of the processes that it started, and that they started."""
        try:
            found: list[psutil.Process] = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [process for process in found if is_alive(process)]

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process itself, which may end by it."""
        self.was_signalled = True
        self._process.send_signal(number)

    def pause(self) -> None:
        """Freezes the process and its descendants: connections stay open, nothing answers."""
        # The parent first: a stopped parent cannot fork a child that this would miss.
        self._process.send_signal(signal.SIGSTOP)
        descendants = self.descendants()
        _each(descendants, psutil.Process.suspend)
        wait_until(
            lambda: all(_is_still(process) for process in (psutil.Process(self.pid), *descendants)),
            timeout_seconds=KILL_SECONDS,
            describe=f"{self.name} to freeze",
        )

    def resume(self) -> None:
        _each(self.descendants(), psutil.Process.resume)
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends the process and its descendants by SIGKILL, and waits until they are gone."""
        self.was_signalled = True
        descendants = self.descendants()
        self._process.kill()
        self._process.wait(KILL_SECONDS)
        _kill_all(descendants)

    def stop(
        self, *, number: signal.Signals = signal.SIGTERM, timeout_seconds: float = 15.0
    ) -> int:
        """Asks the process to end, kills it after the time, returns the exit status.

        The status is `-SIGKILL` where the signal alone did not suffice. Descendants that outlive
        the process are killed. A process that has ended already only has its status returned.
        """
        if not self.is_running:
            return self._process.returncode
        self.resume()
        descendants = self.descendants()
        self.send(number)
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        _kill_all(descendants)
        return self._process.returncode


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that only waits for its parent to notice does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_still(process: psutil.Process) -> bool:
    return not is_alive(process) or process.status() == psutil.STATUS_STOPPED


def _each(processes: Sequence[psutil.Process], action: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            action(process)


def _kill_all(processes: Sequence[psutil.Process]) -> None:
    _each(processes, psutil.Process.kill)
    wait_until(
        lambda: not any(is_alive(process) for process in processes),
        timeout_seconds=KILL_SECONDS,
        describe="killed processes to end",
    )
