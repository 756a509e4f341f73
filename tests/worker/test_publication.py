"""The last step of a run, against a store that others use as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import JobLost, PublishSuperseded
from shared.settings import load_settings
from shared.snapshot.opening import open_store
from shared.snapshot.store import SnapshotStore
from tests.conformance.snapshot_engines import TINY, Builder, Built, states
from worker.parent import SWITCHING
from worker.progress import Progress
from worker.publication import ROUNDS, publish


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SnapshotStore]:
    opened = open_store(load_settings({"TASTEMATCH_DATA_DIR": str(tmp_path / "data")}))
    yield opened
    opened.close()


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return Builder(tmp_path / "built").build(TINY)


class Check:
    """Asked before a publish and right before the switch; says what happens in those moments."""

    def __init__(self, store: SnapshotStore, *, swept_at: set[int], lost_at: int = 0) -> None:
        self._store = store
        self._swept_at = swept_at
        self._lost_at = lost_at
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        if self.asked in self._swept_at:
            self._store.sweep()  # by a run that has lost its job, and not noticed yet
        if self.asked == self._lost_at:
            raise JobLost("the job was taken over by another worker")


def published(store: SnapshotStore, built: Built, check: Check) -> tuple[str, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    progress = Progress(told.append)
    with progress.stage("publish"):
        state = publish(
            store,
            built.manifest,
            built.parts["lists"].parent,
            generation=store.pointer().generation,
            activate=True,
            check=check,
            before_visible=lambda: None,
            progress=progress,
        )
    return state, [event for event in told if event["event"] == "published"]


def test_a_publish_that_was_swept_is_done_again(store: SnapshotStore, built: Built) -> None:
    state, told = published(store, built, Check(store, swept_at={2}))

    assert state == "active"
    assert states(store) == {built.version: "active"}
    assert told == [{"event": "published", "version": built.version}]
    assert not SWITCHING.locked()


def test_a_publish_that_is_always_swept_comes_to_an_end(store: SnapshotStore, built: Built) -> None:
    check = Check(store, swept_at=set(range(2, 20, 2)))
    with pytest.raises(PublishSuperseded):
        published(store, built, check)

    assert check.asked == 2 * ROUNDS
    assert states(store) == {}


@pytest.mark.parametrize("lost_at", [1, 2, 3])
def test_a_run_that_has_lost_its_job_publishes_nothing(
    store: SnapshotStore, built: Built, lost_at: int
) -> None:
    with pytest.raises(JobLost):
        published(store, built, Check(store, swept_at={2}, lost_at=lost_at))

    assert states(store) == {}
    assert not SWITCHING.locked()


def test_a_run_that_has_lost_its_job_sweeps_nobody(store: SnapshotStore, tmp_path: Path) -> None:
    """The publish of the run that took over goes on."""
    builder = Builder(tmp_path / "more")
    mine, late = builder.build(TINY), builder.build(TINY)

    def meanwhile() -> None:
        with pytest.raises(JobLost):
            published(store, late, Check(store, swept_at=set(), lost_at=1))

    state = store.publish(
        mine.manifest, mine.parts, expected_generation=0, activate=True, check=meanwhile
    )
    assert state == "active"
    assert states(store) == {mine.version: "active"}
