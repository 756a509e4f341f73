"""The history of the metadata: delta applied to an old document is the new one, byte for byte."""

from __future__ import annotations

import tempfile
import tracemalloc
from array import array
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.local_copies import fetch
from api.local_snapshot import LocalSnapshot
from shared.settings import Settings, load_settings
from shared.snapshot.manifest import Manifest
from shared.snapshot.metadata_history import MAX_VERSIONS, PART, MetadataHistory, places_after
from shared.snapshot.opening import open_store
from shared.snapshot.store import SnapshotStore
from tests.services.snapshots import SnapshotSpec, publish_snapshot, write_parts
from tests.services.versions import damage
from worker.metadata_history import followed_by
from worker.published_metadata import ShownRestaurants

START = datetime(2026, 11, 1, tzinfo=UTC)
STEADY = range(100, 140)
"""Always shown and never changed, so that no delta is larger than half of the document."""

Names = Mapping[int, str]

names = st.dictionaries(
    st.sampled_from((1, 99, 120_000, 2**53 + 1, 2**63 - 1)),
    st.sampled_from(("A", "B", "Ü")),
    max_size=4,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), names),
        st.tuples(st.just("publish"), names),
        st.tuples(st.just("hold"), names),
        st.tuples(st.just("activate"), st.integers(0, 9)),
    ),
    min_size=2,
    max_size=7,
)


def spec_of(chosen: Names) -> SnapshotSpec:
    shown = {**chosen, **dict.fromkeys(STEADY, "Steady")}
    return SnapshotSpec(restaurants=dict.fromkeys(shown, "Osaka"), names=shown)


class Shop:
    """A store, and the snapshots in it as an API that copied them sees them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store: SnapshotStore = open_store(settings)
        self.now = START
        self.served: dict[str, bytes] = {}
        """Every document that was active, by its version."""

    def publish(
        self, spec: SnapshotSpec, *, activate: bool = True, with_history: bool = True
    ) -> Manifest:
        self.now += timedelta(hours=1)
        return publish_snapshot(
            self.store, spec, created_at=self.now, activate=activate, with_history=with_history
        )

    def open(self, manifest: Manifest) -> LocalSnapshot:
        folder = self.settings.snapshots_dir / manifest.version
        if not folder.exists():
            fetch(self.store, manifest, self.settings.snapshots_dir)
        return LocalSnapshot(folder, manifest, public_vary=b"Accept-Encoding")

    def serve(self, manifest: Manifest) -> LocalSnapshot:
        """The API's view of the active version, noted as seen by clients."""
        snapshot = self.open(manifest)
        full = snapshot.shown.metadata[b"identity"]
        self.served[manifest.metadata_version] = bytes(full.body)
        return snapshot


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    opened = Shop(load_settings({"TASTEMATCH_DATA_DIR": str(tmp_path)}))
    with closing(opened.store):
        yield opened


def delta_of(snapshot: LocalSnapshot, since: str) -> bytes | None:
    found = snapshot.shown.forms.delta(since, None, full_bytes=0)
    return None if found is None else bytes(found.body)


def applied(old: bytes, delta: bytes) -> bytes:
    """What a client makes of both: the document as it would be had it fetched the full form."""
    change = orjson.loads(delta)
    document = orjson.loads(old)
    assert (change["kind"], change["from"]) == ("delta", document["version"])
    by_id = {restaurant["id"]: restaurant for restaurant in document["restaurants"]}
    changed = [restaurant["id"] for restaurant in change["changed"]]
    assert changed == sorted({*changed})
    assert change["removed"] == sorted({*change["removed"]} - {*changed})
    for restaurant_id in change["removed"]:
        by_id.pop(restaurant_id, None)
    by_id |= {restaurant["id"]: restaurant for restaurant in change["changed"]}
    restaurants = [by_id[restaurant_id] for restaurant_id in sorted(by_id)]
    return orjson.dumps(document | {"version": change["version"], "restaurants": restaurants})


@given(steps)
@settings(max_examples=20, deadline=None)
def test_every_served_version_plus_its_delta_is_the_new_document(
    chosen: list[tuple[str, Names | int]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        shop = Shop(load_settings({"TASTEMATCH_DATA_DIR": name}))
        with closing(shop.store):
            known: dict[str, set[str]] = {}  # metadata versions served when each was published
            published: list[Manifest] = []
            for step, detail in chosen:
                if not isinstance(detail, int):
                    activate = step == "publish"
                    before = set(shop.served)
                    manifest = shop.publish(spec_of(detail), activate=activate)
                    known[manifest.version] = before | {manifest.metadata_version}
                    published.append(manifest)
                    if not activate:
                        continue
                elif published:
                    manifest = published[detail % len(published)]
                    shop.store.activate(manifest.version, pin=False)
                else:
                    continue
                snapshot = shop.serve(manifest)
                new = shop.served[manifest.metadata_version]
                for version, old in shop.served.items():
                    delta = delta_of(snapshot, version)
                    assert delta is not None or version not in known[manifest.version]
                    if delta is not None:
                        assert applied(old, delta) == new
                        assert orjson.loads(delta)["version"] == manifest.metadata_version


def test_after_a_rollback_a_delta_names_only_what_differs_from_what_was_served(shop: Shop) -> None:
    first = shop.publish(spec_of({1: "A", 99: "A"}))
    broken = shop.publish(spec_of({1: "B", 99: "B"}))
    shop.store.activate(first.version, pin=False)
    repaired = shop.open(shop.publish(spec_of({1: "C", 99: "A"})))
    since_first = orjson.loads(delta_of(repaired, first.metadata_version) or b"")
    since_broken = orjson.loads(delta_of(repaired, broken.metadata_version) or b"")
    assert [restaurant["id"] for restaurant in since_first["changed"]] == [1]
    assert [restaurant["id"] for restaurant in since_broken["changed"]] == [1, 99]


def test_what_was_held_back_changes_no_delta(shop: Shop) -> None:
    first = shop.publish(spec_of({1: "A", 99: "A"}))
    shop.publish(spec_of({1: "B", 99: "B"}), activate=False)
    newest = shop.open(shop.publish(spec_of({1: "C", 99: "A"})))
    delta = orjson.loads(delta_of(newest, first.metadata_version) or b"")
    assert [restaurant["id"] for restaurant in delta["changed"]] == [1]


def test_what_goes_and_comes_back(shop: Shop) -> None:
    manifests = [shop.publish(spec_of(chosen)) for chosen in ({1: "A"}, {}, {1: "A", 99: "N"})]
    snapshots = list(map(shop.serve, manifests))
    versions = [manifest.metadata_version for manifest in manifests]
    gone = orjson.loads(delta_of(snapshots[1], versions[0]) or b"")
    assert (gone["changed"], gone["removed"]) == ([], [1])
    back = orjson.loads(delta_of(snapshots[2], versions[1]) or b"")
    assert ([r["id"] for r in back["changed"]], back["removed"]) == ([1, 99], [])
    for version in versions[:2]:
        delta = delta_of(snapshots[2], version)
        assert delta is not None
        assert applied(shop.served[version], delta) == shop.served[versions[2]]


def test_a_run_that_changes_nothing_keeps_the_part_as_it_is(shop: Shop) -> None:
    shop.publish(spec_of({1: "A"}))
    second, third = (shop.publish(spec_of({1: "B"})) for _ in range(2))
    assert second.checksums[PART] == third.checksums[PART]


def test_the_first_run_of_this_release_goes_on_from_what_is_served(shop: Shop) -> None:
    old = shop.publish(spec_of({1: "A"}), with_history=False)
    new = shop.open(shop.publish(spec_of({1: "B"})))
    assert b'"name":"B"' in (delta_of(new, old.metadata_version) or b"")


def test_a_damaged_snapshot_is_passed_over_for_the_one_before(shop: Shop) -> None:
    first = shop.publish(spec_of({1: "A"}))
    second = shop.publish(spec_of({1: "B"}))
    damage(shop.settings, second.version)
    third = shop.open(shop.publish(spec_of({1: "C"})))
    assert delta_of(third, first.metadata_version) is not None
    assert delta_of(third, second.metadata_version) is None


def test_with_nothing_readable_left_it_starts_cleanly(shop: Shop) -> None:
    only = shop.publish(spec_of({1: "A"}))
    damage(shop.settings, only.version)
    new = shop.open(shop.publish(spec_of({1: "B"})))
    assert delta_of(new, only.metadata_version) is None
    assert delta_of(new, new.manifest.metadata_version) is not None


def test_history_outlives_the_snapshots_it_came_from(shop: Shop) -> None:
    manifests = []
    for name in "ABCD":
        manifests.append(shop.publish(spec_of({1: name})))
        shop.serve(manifests[-1])
        shop.store.prune(1)
    newest = shop.open(manifests[-1])
    for manifest in manifests:
        delta = delta_of(newest, manifest.metadata_version)
        assert delta is not None
        assert (
            applied(shop.served[manifest.metadata_version], delta)
            == (shop.served[manifests[-1].metadata_version])
        )


def chain(folder: Path, specs: list[SnapshotSpec], *, seconds: list[int]) -> MetadataHistory:
    """The history of metadata that followed each other at these times."""
    history = shown = None
    for number, spec in enumerate(specs):
        at = folder / str(number)
        at.mkdir()
        version = write_parts(at, spec)
        new = ShownRestaurants(at)
        history = followed_by(history, shown, new, version=version, seconds=seconds[number])
        shown = new
    assert history is not None
    return history


def test_content_that_returns_is_one_version(tmp_path: Path) -> None:
    specs = [SnapshotSpec(dict.fromkeys((1, 2), None), names={1: name}) for name in "ABCBA"]
    history = chain(tmp_path, specs, seconds=[0, 1, 2, 3, 4])
    assert len(history.versions) == 3  # C, B, A
    assert list(history.current_until) == [3, 4, 0]
    assert list(bytes(history.changed_at)) == [2, 0]


def test_at_most_200_versions_are_kept(tmp_path: Path) -> None:
    count = MAX_VERSIONS + 5
    specs = [SnapshotSpec(dict.fromkeys((1, 2), None), names={1: str(n)}) for n in range(count)]
    specs[-1] = SnapshotSpec(dict.fromkeys((2, 3), None))
    history = chain(tmp_path, specs, seconds=list(range(count)))
    assert len(history.versions) == MAX_VERSIONS
    assert list(bytes(history.changed_at)) == [0, MAX_VERSIONS - 1]
    assert (list(history.removed_ids), list(history.removed_at)) == ([1], [MAX_VERSIONS - 1])


def test_a_version_is_kept_for_30_days_after_it_was_the_newest(tmp_path: Path) -> None:
    day = 24 * 3600
    specs = [SnapshotSpec(dict.fromkeys((1, 2), None), names={1: name}) for name in "ABCD"]
    del specs[1].restaurants[2]  # type: ignore[attr-defined]
    # A was the newest until day 40, B until day 69, C until day 71.
    history = chain(tmp_path, specs, seconds=[0, 40 * day, 69 * day, 71 * day])
    assert len(history.versions) == 3
    assert list(bytes(history.changed_at)) == [2, 1]
    assert list(history.removed_ids) == []


def test_versions_with_more_removed_ids_than_could_be_sent_are_forgotten(tmp_path: Path) -> None:
    specs = [
        SnapshotSpec(dict.fromkeys((1, *range(10_000 * n, 10_000 * n + 40)), None))
        for n in range(1, 6)
    ]
    specs.append(SnapshotSpec(dict.fromkeys((1, 2), None)))
    history = chain(tmp_path, specs, seconds=list(range(6)))
    assert len(history.versions) == 1
    assert list(history.removed_ids) == []


def test_of_both_documents_one_restaurant_at_a_time_is_in_memory(tmp_path: Path) -> None:
    shown: list[ShownRestaurants] = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        names = dict.fromkeys(range(number, 20_000, 2), "Renamed")
        write_parts(folder, SnapshotSpec(dict.fromkeys(range(20_000)), names=names))
        shown.append(ShownRestaurants(folder))
    first = followed_by(None, None, shown[0], version="0" * 16, seconds=0)
    tracemalloc.start()
    try:
        followed_by(first, shown[0], shown[1], version="1" * 16, seconds=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert shown[0].document_bytes > 2_000_000
    assert peak < 500_000


@given(st.binary(max_size=300), st.integers(0, 255))
def test_places_after_finds_every_greater_number(numbers: bytes, number: int) -> None:
    expected = [place for place, found in enumerate(numbers) if found > number]
    assert list(places_after(array("B", numbers), number)) == expected
