"""Where the block tasks of a precompute run: threads of this process, or a Dask cluster.

Threads share one copy of the matrices, and the sparse products release the interpreter's lock. The
tasks of `worker/ranking` take block ranges and the path of a folder, so any executor runs them that
sees that folder. Dask is imported when a scheduler is set, and only here: it takes 25 MB.
"""

import logging
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from shared.errors import JobFailed, SchedulerUnavailable
from shared.settings import Settings
from worker.ranking.array_files import load_array, save_array

MAX_THREADS = 4
"""Beyond these, scratch would take more of the budget than it gives back in time."""
CONNECT_SECONDS = 5.0
PROBE_SECONDS = 15.0
RESULT_SECONDS = 60.0
"""For the bytes of one result, once it is computed."""
WATCH_SECONDS = 2.0
LOST_SECONDS = 60.0
"""For a supervisor to start workers again that are all gone."""
CLOSE_SECONDS = 2.0

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Workers:
    """An executor, and how many tasks it runs at a time."""

    executor: Executor
    count: int

    @property
    def ahead(self) -> int:
        """Tasks to hand over before the results of the first are taken."""
        return 2 * self.count


def thread_count() -> int:
    """Threads that a precompute uses here: one a core that this process may run on."""
    return max(1, min(MAX_THREADS, len(os.sched_getaffinity(0))))


@contextmanager
def block_workers(
    settings: Settings, threads: int | None = None, *, lost_seconds: float = LOST_SECONDS
) -> Iterator[Workers]:
    """Threads, `thread_count` of them by default, or the workers of TASTEMATCH_DASK_SCHEDULER.

    lost_seconds: how long the cluster may be without any worker in the middle of a run.
    Raises SchedulerUnavailable where the cluster cannot be used. Futures of a cluster raise it
    too, where it is lost, and JobFailed where workers die of a task; what a task raises comes back
    as it is.
    """
    if settings.dask_scheduler is None:
        count = threads or thread_count()
        with ThreadPoolExecutor(count, thread_name_prefix="block") as executor:
            yield Workers(executor, count)
        return
    client = _connect(settings.dask_scheduler)
    try:
        count = _checked_threads(client, settings.scratch_dir)
        cluster = _DaskExecutor(client, lost_seconds=lost_seconds)
        try:
            yield Workers(cluster, count)
        finally:
            cluster.shutdown(wait=False, cancel_futures=True)
    finally:
        with suppress(Exception):  # a lost scheduler does not matter any more
            client.close(timeout=CLOSE_SECONDS)


class _DaskExecutor(Executor):
    """Tasks on a cluster, each with a future of our own that always ends.

    Dask tries a task again whose worker died, and waits without end for a cluster to get workers:
    a thread looks after them and gives up.
    """

    def __init__(self, client: Any, *, lost_seconds: float) -> None:
        self._client = client
        self._lost_seconds = lost_seconds
        self._lock = threading.Lock()
        self._waiting: dict[Future[Any], Any] = {}
        """Ours, each with the future of Dask's that it stands for."""
        self._trouble: str | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="dask-watch", daemon=True).start()

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        local: Future[R] = Future()
        with self._lock:
            if self._trouble is not None:
                raise SchedulerUnavailable(self._trouble)
            self._waiting[local] = None
        try:
            remote = self._client.submit(fn, *args, pure=False, **kwargs)
        except Exception as error:
            self._forget(local)
            raise SchedulerUnavailable(
                f"the Dask scheduler takes no more tasks ({type(error).__name__})"
            ) from None

        def ended(future: Future[R]) -> None:
            self._forget(future)
            if future.cancelled() and not self._ended.is_set():
                with suppress(Exception):
                    remote.cancel()

        with self._lock:
            self._waiting[local] = remote
        local.add_done_callback(ended)
        remote.add_done_callback(lambda done: _hand_over(done, local))
        return local

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._ended.set()
        with self._lock:
            waiting = dict(self._waiting)
        for future in waiting:
            if cancel_futures:
                future.cancel()
            elif wait:
                future.exception()
        if cancel_futures:
            # All at once: one after the other, each would make way for the next to begin.
            with suppress(Exception):
                self._client.cancel([remote for remote in waiting.values() if remote is not None])

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._waiting.pop(future, None)

    def _watch(self) -> None:
        seen = time.monotonic()
        while not self._ended.wait(WATCH_SECONDS):
            if _threads_of(self._client):
                seen = time.monotonic()
            elif time.monotonic() - seen > self._lost_seconds:
                self._give_up("the Dask cluster lost all its workers in the middle of the run")
                return

    def _give_up(self, trouble: str) -> None:
        with self._lock:
            self._trouble = trouble
            waiting = list(self._waiting)
        for future in waiting:
            with suppress(InvalidStateError):
                future.set_exception(SchedulerUnavailable(trouble))


def _hand_over(remote: Any, local: Future[Any]) -> None:
    """Gives a task's outcome to our future, unless that has ended already."""
    from distributed import KilledWorker

    with suppress(InvalidStateError):
        try:
            if remote.status == "finished":
                local.set_result(remote.result(timeout=RESULT_SECONDS))
                return
            error = remote.exception(timeout=RESULT_SECONDS) if remote.status == "error" else None
        except Exception as failure:
            lost = f"a result was lost on its way from the Dask cluster ({type(failure).__name__})"
            local.set_exception(SchedulerUnavailable(lost))
            return
        if error is None:
            lost = "the connection to the Dask scheduler was lost in the middle of the run"
            local.set_exception(SchedulerUnavailable(lost))
        elif isinstance(error, KilledWorker):
            died = f"{error.allowed_failures + 1} Dask workers died of the same block"
            local.set_exception(JobFailed(f"{died}; have they enough memory?"))
        else:
            local.set_exception(error)


def _connect(address: str) -> Any:
    try:
        from distributed import Client, Security
    except ImportError:
        raise SchedulerUnavailable(
            "TASTEMATCH_DASK_SCHEDULER needs Dask: pip install 'tastematch[dask]'"
        ) from None
    # What goes wrong becomes an error of ours, with a line of its own.
    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        if address.startswith("tls:") and not _has_certificates(Security()):  # type: ignore[no-untyped-call]
            raise SchedulerUnavailable(
                "a tls:// scheduler needs the certificates of a Dask client: distributed.comm.tls"
            )
        return Client(  # type: ignore[no-untyped-call]
            address, timeout=CONNECT_SECONDS, set_as_default=False
        )
    except (OSError, ImportError, ValueError, TypeError, RuntimeError) as error:
        raise SchedulerUnavailable(
            f"the scheduler at TASTEMATCH_DASK_SCHEDULER does not answer ({type(error).__name__})"
        ) from None


def _has_certificates(security: Any) -> bool:
    return security.get_connection_args("client").get("ssl_context") is not None


def _threads_of(client: Any) -> dict[str, int]:
    """Threads of each worker by its address; empty where the scheduler does not answer, too."""
    try:
        found = client.sync(client.scheduler.ncores, callback_timeout=CONNECT_SECONDS)
    except Exception:
        return {}
    return {str(address): int(count) for address, count in found.items()}


def _checked_threads(client: Any, scratch: Path) -> int:
    """Threads of all workers, after each has read a file that was written here.

    Reading it takes the code that every task takes, and the folder that they all lie in.
    """
    workers = _threads_of(client)
    if not workers:
        raise SchedulerUnavailable("the scheduler at TASTEMATCH_DASK_SCHEDULER has no workers")
    secret = np.frombuffer(secrets.token_bytes(16), np.uint8)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-probe-", dir=scratch) as folder:
            path = Path(folder).absolute() / "probe"
            save_array(path, secret)
            answers = [
                client.submit(load_array, path, workers=[address], pure=False)
                for address in workers
            ]
            reasons = [_answer_of(answer, secret) for answer in answers]
    except OSError as error:
        raise JobFailed(f"TASTEMATCH_DATA_DIR cannot be written ({error.strerror})") from None
    if bad := [reason for reason in reasons if reason is not None]:
        raise SchedulerUnavailable(f"{len(bad)} of {len(workers)} Dask workers {bad[0]}")
    return max(1, sum(workers.values()))


def _answer_of(answer: Any, secret: np.ndarray[Any, Any]) -> str | None:
    """What is wrong with the worker that was asked, to be read after `Dask workers`."""
    try:
        if np.array_equal(answer.result(timeout=PROBE_SECONDS), secret):
            return None
    except TimeoutError:
        return "do not answer"
    except OSError:
        pass
    except Exception as error:
        return f"cannot run this release of TasteMatch ({type(error).__name__})"
    return "do not see TASTEMATCH_DATA_DIR: it has to be one shared folder"
