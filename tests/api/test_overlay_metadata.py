"""The metadata without restaurants that closed: full forms, deltas and subsets, of any history."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import brotli
import orjson
import zstandard
from hypothesis import Phase, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from api.local_copies import fetch
from api.local_snapshot import LocalSnapshot
from api.overlay import Overlay
from api.overlay_follower import OverlayFollower
from shared.settings import Settings, load_settings
from shared.snapshot.manifest import Manifest
from shared.snapshot.opening import open_overlay, open_store
from shared.snapshot.store import SnapshotStore
from tests.api.overlays import Teller, until
from tests.api.running import OAXACA, OSAKA, SPEC, Api, running
from tests.services.snapshots import SnapshotSpec, projection, publish_snapshot, write_parts

PATH = "/api/restaurants/metadata"
START = datetime(2026, 11, 1, tzinfo=UTC)
STEADY = range(100, 150)
"""Shown and not changed, so that no delta is larger than half of the document."""
CLOSING = (99, 100, 149, 120_000)

names = st.dictionaries(
    st.sampled_from((1, 99, 120_000, 2**53 + 1)), st.sampled_from(("A", "B", "Ü")), max_size=4
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), names),
        st.tuples(st.just("activate"), st.integers(0, 9)),
        st.tuples(st.just("close"), st.sets(st.sampled_from(CLOSING))),
        st.tuples(st.just("close"), st.sets(st.sampled_from(CLOSING))),
        st.tuples(st.just("restart"), st.none()),
    ),
    min_size=3,
    max_size=9,
)


def spec_of(chosen: Mapping[int, str]) -> SnapshotSpec:
    shown = {**chosen, **dict.fromkeys(STEADY, "Steady")}
    return SnapshotSpec(restaurants=dict.fromkeys(shown, "Osaka"), names=shown)


def document_of(spec: SnapshotSpec, closed: set[int]) -> bytes:
    """The full form of a snapshot in which these restaurants are not."""
    kept = {each: city for each, city in spec.restaurants.items() if each not in closed}
    with tempfile.TemporaryDirectory() as name:
        write_parts(Path(name), SnapshotSpec(restaurants=kept, names=spec.names))
        return (Path(name) / "metadata").read_bytes()


def applied(old: bytes, delta: bytes) -> bytes:
    """What a client makes of both, by the rules of docs/api.md."""
    change, document = orjson.loads(delta), orjson.loads(old)
    assert (change["kind"], change["from"]) == ("delta", document["version"])
    changed = [restaurant["id"] for restaurant in change["changed"]]
    assert changed == sorted({*changed})
    assert change["removed"] == sorted({*change["removed"]} - {*changed})
    by_id = {restaurant["id"]: restaurant for restaurant in document["restaurants"]}
    for restaurant_id in change["removed"]:
        by_id.pop(restaurant_id, None)
    by_id |= {restaurant["id"]: restaurant for restaurant in change["changed"]}
    restaurants = [by_id[restaurant_id] for restaurant_id in sorted(by_id)]
    return orjson.dumps(document | {"version": change["version"], "restaurants": restaurants})


class Replica:
    """One API's view of a store, without its threads; every document it showed is noted."""

    def __init__(self, settings: Settings, store: SnapshotStore) -> None:
        self.settings = settings
        self.store = store
        self.now = START
        self.specs: list[tuple[Manifest, SnapshotSpec]] = []
        self.closed: set[int] = set()
        self.served: dict[str, bytes] = {}
        self.start()

    def start(self) -> None:
        self.overlay = Overlay(self.settings.overlay_dir)
        self.overlay.open()
        reader = open_overlay(self.settings)
        self.follower = OverlayFollower(self.settings, self.overlay, reader)
        self.follower.copies = lambda: self.open
        self.open: list[LocalSnapshot] = []
        self.active: tuple[LocalSnapshot, SnapshotSpec] | None = None
        self.overlay.note_activity((each, True, 1) for each in self.closed)
        for manifest, spec in self.specs:
            self.show(manifest, spec)

    def stop(self) -> None:
        self.follower.stop()

    def publish(self, spec: SnapshotSpec) -> None:
        self.now += timedelta(hours=1)
        manifest = publish_snapshot(self.store, spec, created_at=self.now, with_history=True)
        self.specs.append((manifest, spec))
        self.show(manifest, spec)

    def show(self, manifest: Manifest, spec: SnapshotSpec) -> None:
        folder = self.settings.snapshots_dir / manifest.version
        if not folder.exists():
            fetch(self.store, manifest, self.settings.snapshots_dir)
        snapshot = LocalSnapshot(folder, manifest, public_vary=b"Accept-Encoding")
        self.follower.prepare(snapshot)
        self.open.append(snapshot)
        self.active = snapshot, spec
        self.follower.now_shown(snapshot)

    def close(self, closed: set[int]) -> None:
        revision = len(self.served) + 2
        self.overlay.note_activity((each, True, revision) for each in closed - self.closed)
        self.overlay.note_activity((each, False, revision) for each in self.closed - closed)
        self.closed = closed
        if self.active is not None:
            self.follower.now_shown(self.active[0])

    def check(self) -> None:
        if self.active is None:
            return
        snapshot, spec = self.active
        full = bytes(snapshot.shown.metadata[b"identity"].body)
        assert full == document_of(spec, self.closed)
        assert orjson.loads(full)["version"] == snapshot.shown.metadata_version
        self.served[snapshot.shown.metadata_version] = full
        for version, old in self.served.items():
            delta = snapshot.shown.forms.delta(version, None, full_bytes=len(full))
            assert delta is not None
            assert applied(old, bytes(delta.body)) == full


@given(steps)
# Shrinking publishes hundreds of snapshots, which takes minutes.
@given_settings(max_examples=10, deadline=None, phases=[Phase.reuse, Phase.generate])
def test_whatever_a_client_holds_its_delta_makes_the_full_form_of_it(
    chosen: list[tuple[str, object]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        settings = load_settings({"TASTEMATCH_DATA_DIR": name})
        with closing(open_store(settings)) as store:
            replica = Replica(settings, store)
            for step, detail in chosen:
                if step == "publish":
                    assert isinstance(detail, dict)
                    replica.publish(spec_of(detail))
                elif step == "activate" and replica.specs:
                    assert isinstance(detail, int)
                    manifest, spec = replica.specs[detail % len(replica.specs)]
                    store.activate(manifest.version, pin=False)
                    replica.show(manifest, spec)
                elif step == "close":
                    assert isinstance(detail, set)
                    replica.close(detail)
                elif step == "restart":
                    replica.stop()
                    replica.start()
                replica.check()
            replica.stop()


async def test_every_coding_of_the_cut_form_holds_the_same(api: Api, teller: Teller) -> None:
    snapshot = api.resources.snapshots.require_active()
    whole = {}
    for coding in ("zstd", "br", "gzip", "identity"):
        whole[coding] = await api.client.get(PATH, headers={"Accept-Encoding": coding})
    teller.closed(OSAKA[0], OAXACA[3])
    await until(lambda: snapshot.shown.gone)
    expected = document_of(SPEC, {OSAKA[0], OAXACA[3]})
    decode = {
        "zstd": zstandard.decompress,
        "br": brotli.decompress,
        "gzip": gzip.decompress,
        "identity": bytes,
    }
    etags = set()
    for coding, made in decode.items():
        headers = {"Accept-Encoding": coding}
        async with api.client.stream("GET", PATH, headers=headers) as response:
            raw = b"".join([piece async for piece in response.aiter_raw()])
        assert response.headers.get("content-encoding", "identity") == coding
        assert made(raw) == expected
        assert response.headers["x-metadata-version"] == orjson.loads(expected)["version"]
        headers["If-None-Match"] = whole[coding].headers["etag"]
        assert (await api.client.get(PATH, headers=headers)).status_code == 200
        headers["If-None-Match"] = response.headers["etag"]
        assert (await api.client.get(PATH, headers=headers)).status_code == 304
        etags.add(response.headers["etag"])
    assert len(etags) == len(decode)


async def test_a_delta_since_the_snapshots_own_version_takes_out_what_closed(
    api: Api, teller: Teller
) -> None:
    snapshot = api.resources.snapshots.require_active()
    own = snapshot.manifest.metadata_version
    versions = [own]
    for closed in ((OSAKA[1],), (OSAKA[1], OSAKA[2])):
        teller.closed(*closed)
        await until(lambda: len(snapshot.shown.gone) == len(closed))  # noqa: B023
        versions.append(snapshot.shown.metadata_version)
    teller.opened(OSAKA[1])
    await until(lambda: len(snapshot.shown.gone) == 1)
    deltas = {}
    for version in versions:
        deltas[version] = (await api.client.get(f"{PATH}?since={version}")).json()
    found = [(len(each["changed"]), each["removed"]) for each in deltas.values()]
    assert found == [(0, [OSAKA[2]]), (1, [OSAKA[2]]), (1, [])]
    assert deltas[versions[2]]["changed"] == [projection(SPEC, OSAKA[1])]
    subset = (await api.client.get(f"{PATH}?ids={OSAKA[2]},{OSAKA[1]}")).json()
    assert [each["id"] for each in subset["restaurants"]] == [OSAKA[1]]
    lists = await api.client.get("/api/recommendations", headers=api.as_user(1))
    shown = {lists.headers["x-metadata-version"], subset["version"], deltas[own]["version"]}
    assert shown == {snapshot.shown.metadata_version}


async def test_after_a_rollback_clients_of_the_later_version_get_a_delta(
    settings: Settings, store: SnapshotStore
) -> None:
    specs = [spec_of({1: "A", 99: "A"}), spec_of({1: "B", 2**53 + 1: "B"})]
    first, second = (publish_snapshot(store, each, with_history=True) for each in specs)
    async with running(settings) as api:
        await api.serves(second.version)
        held = (await api.client.get(PATH)).content
        store.activate(first.version, pin=True)
        await api.serves(first.version)
    # After a restart too: the copy of the later version is still there.
    async with running(settings) as api:
        forms = api.resources.snapshots.require_active().shown.forms
        await until(lambda: forms.others)
        delta = await api.client.get(f"{PATH}?since={second.metadata_version}")
        assert delta.json()["removed"] == [2**53 + 1]
        assert applied(held, delta.content) == document_of(specs[0], set())
