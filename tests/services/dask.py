"""A real Dask cluster for tests: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.services.children import Child, unused_port, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 40.0
STOP_SECONDS = 5.0


class DaskCluster:
    """A scheduler, and workers of one thread without a nanny, so that one that dies stays dead."""

    def __init__(self, *, protocol: str = "tcp", environment: Mapping[str, str] | None = None):
        self.folder = Path(tempfile.mkdtemp(prefix="tastematch-dask-"))
        self.address = f"{protocol}://127.0.0.1:{unused_port()}"
        self.workers: list[Child] = []
        self._environment = {
            "PATH": os.defpath,
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            **(environment or {}),
        }
        port = self.address.rpartition(":")[2]
        words = ("--protocol", protocol, "--port", port, "--dashboard-address", "127.0.0.1:0")
        self.scheduler = self._child("scheduler", "dask_scheduler", *words)

    def add_workers(self, count: int, *, pythonpath: str | None = None) -> None:
        """Starts workers and waits until the scheduler knows all that run."""
        for _ in range(count):
            name = f"worker-{len(self.workers)}"
            words = ["--nthreads", "1", "--no-nanny", "--name", name, "--memory-limit", "0"]
            words += ["--local-directory", str(self.folder)]
            self.workers.append(
                self._child(name, "dask_worker", self.address, *words, pythonpath=pythonpath)
            )
        running = [worker for worker in self.workers if worker.is_running]
        wait_until(
            lambda: all("Registered to" in worker.stderr() for worker in running),
            timeout_seconds=START_SECONDS,
            describe=lambda: "\n".join(c.log_tail() for c in (self.scheduler, *self.workers)),
        )

    def stop(self) -> None:
        for child in (*self.workers, self.scheduler):
            child.stop(timeout_seconds=STOP_SECONDS)
        shutil.rmtree(self.folder)

    def _child(self, name: str, module: str, *words: str, pythonpath: str | None = None) -> Child:
        common = ("--host", "127.0.0.1", "--no-dashboard")
        changes = {} if pythonpath is None else {"PYTHONPATH": pythonpath}
        return Child(
            [sys.executable, "-m", f"distributed.cli.{module}", *words, *common],
            name=name,
            folder=self.folder,
            environment=self._environment | changes,
            working_folder=self.folder,
        )


@contextlib.contextmanager
def dask_cluster(
    workers: int, *, protocol: str = "tcp", environment: Mapping[str, str] | None = None
) -> Iterator[DaskCluster]:
    """A cluster of the test's own, complete at the beginning."""
    cluster = DaskCluster(protocol=protocol, environment=environment)
    try:
        cluster.add_workers(workers)
        yield cluster
    finally:
        cluster.stop()
