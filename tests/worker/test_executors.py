"""Where block tasks run: threads and a real Dask cluster make the same bytes; trouble has names."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shared.errors import JobFailed, SchedulerUnavailable
from shared.settings import Settings, load_settings
from tests.services.children import unused_port, wait_until
from tests.services.dask import DaskCluster, dask_cluster
from tests.services.in_process import Done
from tests.worker.blocking_tasks import kill_own_process, wait_for_leave
from tests.worker.ranking.small import matrix_of
from tests.worker.test_precompute import load_dataset, small_town
from worker.executors import block_workers, thread_count
from worker.ranking.array_files import load_array, save_matrix
from worker.ranking.filter_terms import FilterParameters
from worker.ranking.item_filter import fit_item_filter

GRAPH_FILES = ("graph-indices", "graph-values")


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskCluster]:
    """Two workers that no test harms."""
    with dask_cluster(2) as started:
        yield started


def settings_of(folder: Path, address: str | None = None) -> Settings:
    return load_settings(
        {"TASTEMATCH_DATA_DIR": str(folder), "TASTEMATCH_DASK_SCHEDULER": address or ""}
    )


def test_without_a_scheduler_there_are_threads(tmp_path: Path) -> None:
    with block_workers(settings_of(tmp_path)) as workers:
        assert workers.count == thread_count()
        assert list(workers.executor.map(pow, [2, 3], [5, 2])) == [32, 9]
    with block_workers(settings_of(tmp_path), 3) as workers:
        assert (workers.count, workers.ahead) == (3, 6)


def test_a_cluster_makes_the_bytes_that_threads_make(cluster: DaskCluster, tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    users, places = random.integers(0, 500, 6000), random.integers(0, 600, 6000) ** 2 // 600
    matrix = matrix_of([(u, p, 0) for u, p in zip(users, places, strict=True)])
    made = []
    for name, address in (("threads", None), ("dask", cluster.address)):
        folder = tmp_path / name
        folder.mkdir()
        with block_workers(settings_of(tmp_path, address)) as workers:
            assert workers.count == (thread_count() if address is None else 2)
            graph = fit_item_filter(
                save_matrix(matrix, folder),
                folder,
                k=20,
                executor=workers.executor,
                parameters=FilterParameters(rank=40),
            )
        files = [(folder / file).read_bytes() for file in GRAPH_FILES]
        made.append((graph.indptr.tobytes(), *files))
    assert len(made[0][1]) > 4 * 600
    assert made[0] == made[1]
    assert list((tmp_path / "scratch").iterdir()) == [], "the probe is removed"


def test_exceptions_of_tasks_come_back_as_they_are(cluster: DaskCluster, tmp_path: Path) -> None:
    with block_workers(settings_of(tmp_path, cluster.address)) as workers:
        missing = workers.executor.submit(load_array, tmp_path / "missing")
        with pytest.raises(FileNotFoundError):
            missing.result(timeout=10)
        with pytest.raises(ValueError, match="invalid literal"):
            list(workers.executor.map(int, ["1", "one"]))


def test_what_is_left_when_a_run_ends_is_cancelled(cluster: DaskCluster, tmp_path: Path) -> None:
    with block_workers(settings_of(tmp_path, cluster.address)) as workers:
        waiting = [workers.executor.submit(wait_for_leave, tmp_path, n) for n in range(9)]
        until_begun(tmp_path, 2)
    assert all(future.cancelled() for future in waiting)
    (tmp_path / "leave").touch()
    with block_workers(settings_of(tmp_path, cluster.address)) as workers:
        assert list(workers.executor.map(abs, [-1, -2])) == [1, 2]
    # What each worker had at hand may begin, not what the scheduler had kept back.
    assert not [*tmp_path.glob("7-*"), *tmp_path.glob("8-*")]


def test_a_folder_that_workers_do_not_see_is_told(
    cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The same words, another folder: it is relative to the process that reads it.
    settings = settings_of(Path("/proc/self/cwd/data"), cluster.address)
    assert "2 of 2 Dask workers do not see TASTEMATCH_DATA_DIR" in refused(settings)


@pytest.fixture
def shop(sqlite_url: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a small shop."""
    env = {"DATABASE_URL": sqlite_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")}
    load_dataset(env, small_town(tmp_path / "set"))
    return env


def test_a_precompute_on_a_cluster_publishes_the_same_parts(
    cluster: DaskCluster, shop: dict[str, str], tastematch: Callable[..., Done]
) -> None:
    published = [
        tastematch("precompute", "--json", env={**shop, "TASTEMATCH_DASK_SCHEDULER": address})
        for address in ("", cluster.address)
    ]
    assert [done.returncode for done in published] == [0, 0], published
    here, there = (json.loads(done.stdout) for done in published)
    assert here["version"] < there["version"]
    assert here["checksums"] == there["checksums"]


def test_a_scheduler_that_is_not_there_ends_the_command(
    shop: dict[str, str], tastematch: Callable[..., Done]
) -> None:
    address = f"tcp://127.0.0.1:{unused_port()}"
    started = time.monotonic()
    done = tastematch("precompute", env={**shop, "TASTEMATCH_DASK_SCHEDULER": address})
    assert time.monotonic() - started < 30
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.count("\n") == 1
    assert "TASTEMATCH_DASK_SCHEDULER does not answer" in done.stderr
    assert address.rpartition("/")[2] not in done.stderr


def test_encryption_needs_certificates(tmp_path: Path) -> None:
    assert "needs the certificates" in refused(settings_of(tmp_path, "tls://127.0.0.1:8786"))


def test_without_the_extra_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)  # as where it is not installed
    assert "pip install 'tastematch[dask]'" in refused(settings_of(tmp_path, "tcp://dask:8786"))


def test_a_worker_that_dies_is_replaced_by_the_others_and_the_scheduler_is_not(
    tmp_path: Path,
) -> None:
    with (
        dask_cluster(2) as cluster,
        block_workers(settings_of(tmp_path, cluster.address)) as workers,
    ):
        futures = [workers.executor.submit(wait_for_leave, tmp_path, n) for n in range(4)]
        until_begun(tmp_path, 2)
        cluster.workers[0].kill()
        (tmp_path / "leave").touch()
        assert [future.result(timeout=20) for future in futures] == [0, 1, 2, 3]

        (tmp_path / "leave").unlink()
        futures = [workers.executor.submit(wait_for_leave, tmp_path, n) for n in (7, 8)]
        wait_until(
            lambda: list(tmp_path.glob("[78]-*")), timeout_seconds=20, describe="a task to begin"
        )
        cluster.scheduler.kill()
        for future in futures:
            with pytest.raises(SchedulerUnavailable, match="was lost in the middle of the run"):
                future.result(timeout=20)


def test_a_block_that_kills_its_worker_fails_and_so_does_a_cluster_that_has_none(
    tmp_path: Path,
) -> None:
    no_second_try = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with dask_cluster(1, environment=no_second_try) as cluster:
        settings = settings_of(tmp_path, cluster.address)
        with block_workers(settings, lost_seconds=1) as workers:
            killing = workers.executor.submit(kill_own_process)
            with pytest.raises(JobFailed, match="died of the same block; have they enough memory"):
                killing.result(timeout=20)
            with pytest.raises(SchedulerUnavailable, match="lost all its workers"):
                workers.executor.submit(abs, -1).result(timeout=20)
            with pytest.raises(SchedulerUnavailable, match="lost all its workers"):
                workers.executor.submit(abs, -1)
        assert "has no workers" in refused(settings)

        other_release = tmp_path / "other" / "worker" / "ranking"
        other_release.mkdir(parents=True)
        for name in ("../__init__", "__init__", "array_files"):
            (other_release / f"{name}.py").touch()
        cluster.add_workers(1, pythonpath=str(tmp_path / "other"))
        assert "1 of 1 Dask workers cannot run this release" in refused(settings)


def refused(settings: Settings) -> str:
    """The one line that is said in the place of workers."""
    with pytest.raises(SchedulerUnavailable) as caught, block_workers(settings):
        pass
    assert "\n" not in caught.value.message
    return caught.value.message


def until_begun(folder: Path, count: int) -> None:
    """Waits until that many tasks have begun, each in a process of its own."""
    wait_until(
        lambda: len({path.name.partition("-")[2] for path in folder.glob("[0-9]-*")}) >= count,
        timeout_seconds=20,
        describe="the tasks to begin",
    )
