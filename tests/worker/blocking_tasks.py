"""Tasks for workers in other processes: one that waits to be let go, one that ends its process."""

import os
import signal
import time
from pathlib import Path

PATIENCE_SECONDS = 60.0


def wait_for_leave(folder: Path, number: int) -> int:
    """Notes by `<number>-<process id>` that it has begun, then waits for a file `leave`."""
    (folder / f"{number}-{os.getpid()}").touch()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (folder / "leave").exists():
        assert time.monotonic() < deadline, "nobody let it go"
        time.sleep(0.02)
    return number


def kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
