"""`tastematch snapshots export` and `import`: a version moves from one machine to another."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from shared.settings import Settings, load_settings
from shared.snapshot.manifest import Manifest
from shared.snapshot.opening import open_store
from shared.snapshot.store import Pointer, SnapshotStore
from tastematch.snapshot_files import import_snapshot
from tests.conformance.small_disks import small_disk
from tests.conformance.snapshot_engines import Builder, publish, read_whole, states
from tests.services.in_process import Done
from tests.services.processes import REPOSITORY
from tests.services.versions import damage, publish_versions

Command = Callable[..., Done]
Env = dict[str, str]
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Shop:
    """A machine with a store of its own."""

    env: Env
    settings: Settings

    @contextmanager
    def store(self) -> Iterator[SnapshotStore]:
        store = open_store(self.settings)
        try:
            yield store
        finally:
            store.close()

    def states(self) -> dict[str, str]:
        with self.store() as store:
            return dict(states(store))

    def pointer(self) -> Pointer:
        with self.store() as store:
            return store.pointer()


def shop_of(folder: Path, redis_url: str | None = None) -> Shop:
    env = {"TASTEMATCH_DATA_DIR": str(folder)} | ({"REDIS_URL": redis_url} if redis_url else {})
    return Shop(env, load_settings(env))


@pytest.fixture(params=["disk to redis", "redis to disk"])
def shops(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> tuple[Shop, Shop]:
    """One with versions, and an empty one."""
    shops = shop_of(tmp_path / "disk"), shop_of(tmp_path / "redis", redis_url)
    return shops if request.param == "disk to redis" else shops[::-1]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return shop_of(tmp_path / "shop")


@pytest.fixture
def exported(tastematch: Command, tmp_path: Path) -> tuple[Manifest, Path]:
    """A version of another machine's, and its file."""
    source = shop_of(tmp_path / "source")
    (manifest,) = publish_versions(source.settings, 1)
    file = tmp_path / "shop.snapshot"
    assert tastematch("snapshots", "export", manifest.version, file, env=source.env).returncode == 0
    return manifest, file


def refused(done: Done) -> str:
    """The one line that says why."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("tastematch: ")
    return line.removeprefix("tastematch: ")


def test_a_version_moves_from_one_store_to_another(
    tastematch: Command, shops: tuple[Shop, Shop], tmp_path: Path
) -> None:
    source, target = shops
    old, new = publish_versions(source.settings, 2)
    file = tmp_path / "shop.snapshot"

    done = tastematch("snapshots", "export", old.version, file, env=source.env)

    size = sum(old.bytes.values())
    parts = len(old.bytes)
    assert done.stdout == f"exported {old.version}, {parts} parts, {size:,} bytes\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]

    done = tastematch("snapshots", "import", file, env=target.env)

    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"imported {old.version}, {size:,} bytes, held\n"
        f"to serve it: tastematch snapshots activate {old.version}\n"
    )
    assert target.states() == {old.version: "held"}
    assert target.pointer() == Pointer(None, 0, is_pinned=False)
    with target.store() as store:
        read_whole(store, old.version)
        assert store.manifest(old.version) == old
    assert list(Path(target.settings.scratch_dir).iterdir()) == []

    # Going on to a third machine, it is the same file.
    again = tmp_path / "again.snapshot"
    again.write_bytes(b"what was there before")
    tastematch("snapshots", "export", old.version, again, env=target.env)
    assert again.read_bytes() == file.read_bytes()

    assert tastematch("snapshots", "activate", old.version, env=target.env).returncode == 0
    done = tastematch("snapshots", "import", file, env=target.env)
    assert done.stdout == f"{old.version} is there already: nothing was changed\n"
    assert target.states() == {old.version: "active"}
    assert source.states() == {new.version: "active", old.version: "kept"}


@pytest.mark.parametrize("pinned", [False, True])
def test_what_is_imported_is_never_active_by_itself(
    tastematch: Command, shop: Shop, exported: tuple[Manifest, Path], pinned: bool
) -> None:
    manifest, file = exported
    with shop.store() as store:
        (active,) = publish_versions(shop.settings, 1)
        store.activate(active.version, pin=pinned)
    before = shop.pointer()
    assert tastematch("snapshots", "import", file, env=shop.env).returncode == 0
    assert shop.pointer() == before
    assert shop.states() == {active.version: "active", manifest.version: "held"}


def test_an_old_version_comes_with_a_warning_of_its_end(
    tastematch: Command, shop: Shop, exported: tuple[Manifest, Path], tmp_path: Path
) -> None:
    manifest, file = exported
    with shop.store() as store:
        builder = Builder(tmp_path / "scratch")
        for _ in range(3):
            publish(store, builder.build({"lists": 10}))
    done = tastematch("snapshots", "import", file, env=shop.env)
    assert "3 newer versions are kept: unless it is active, the next" in done.stdout
    with shop.store() as store:
        assert store.prune(3) == [manifest.version]


@pytest.mark.parametrize("at", [0.0, 0.2, 0.5, 0.99, "head", "manifest", "parts"])
def test_a_damaged_or_cut_file_is_refused(
    tastematch: Command, shop: Shop, exported: tuple[Manifest, Path], at: float | str
) -> None:
    """Cut off at a share of it; or each byte of a stretch of it changed in turn."""
    _, file = exported
    whole = file.read_bytes()
    head = whole.index(b"\n") + 1
    parts = whole.index(b"\n", whole.index(b"\n", head) + 1)
    places = {"head": range(head), "manifest": range(head, head + 40), "parts": ()}
    if isinstance(at, float):
        changed = [whole[: int(at * len(whole))]]
    elif at == "parts":
        changed = [whole + b"\0", whole[:-1], whole[:parts], whole[:-1] + b"!"]
    else:
        changed = [whole[:p] + bytes([whole[p] ^ 1]) + whole[p + 1 :] for p in places[at]]
    for content in changed:
        file.write_bytes(content)
        refused(tastematch("snapshots", "import", file, env=shop.env))
        assert shop.states() == {}
    assert changed
    # Also where the version is there, and the file would not be needed.
    file.write_bytes(whole)
    assert tastematch("snapshots", "import", file, env=shop.env).returncode == 0
    file.write_bytes(changed[-1])
    refused(tastematch("snapshots", "import", file, env=shop.env))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no exported snapshot"),
        (b"id,name\n1,Ramen\n", "no exported snapshot"),
        (b"\x1f\x8b\x08\x00" + bytes(1000), "no exported snapshot"),
        (bytes(100_000), "no exported snapshot"),
        (b"tastematch-export 1 20261125T105812345678Z-3fa2 99999999\n", "damaged"),
        (b"tastematch-export 1 ../../../../etc/passwd 10\n0123456789", "damaged"),
        (b"tastematch-export 2 anything else\n", "format 2 of exports, which this release"),
    ],
)
def test_a_foreign_file_is_refused(
    tastematch: Command, shop: Shop, tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "foreign"
    file.write_bytes(content)
    assert reason in refused(tastematch("snapshots", "import", file, env=shop.env))
    assert shop.states() == {}


def test_what_cannot_be_read_or_written_is_one_line(
    tastematch: Command, shop: Shop, exported: tuple[Manifest, Path], tmp_path: Path
) -> None:
    (manifest,) = publish_versions(shop.settings, 1)
    version = manifest.version
    for file in (tmp_path / "missing", tmp_path):
        refused(tastematch("snapshots", "import", file, env=shop.env))
    for file in (tmp_path / "missing" / "file", tmp_path):
        refused(tastematch("snapshots", "export", version, file, env=shop.env))
    unknown = "20261125T100000000000Z-0000"
    refused(tastematch("snapshots", "export", unknown, tmp_path / "file", env=shop.env))
    damage(shop.settings, version)
    assert "metadata" in refused(
        tastematch("snapshots", "export", version, tmp_path / "file", env=shop.env)
    )
    assert not (tmp_path / "file").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_content_of_the_same_version_replaces_nothing(
    tastematch: Command, shop: Shop, exported: tuple[Manifest, Path], tmp_path: Path
) -> None:
    manifest, file = exported
    other = Builder(tmp_path / "scratch").build({"lists": 10})
    with shop.store() as store:
        renamed = replace(other.manifest, version=manifest.version)
        publish(store, replace(other, manifest=renamed))
        line = refused(tastematch("snapshots", "import", file, env=shop.env))
        assert "with other content" in line
        assert store.manifest(manifest.version) == renamed


def test_a_run_that_sweeps_costs_an_import_another_try(
    shop: Shop, exported: tuple[Manifest, Path]
) -> None:
    manifest, file = exported
    swept: list[float] = []
    with shop.store() as store, shop.store() as run:

        def sweep_once(doing: str, done: float) -> None:
            if doing == "importing" and not swept:
                swept.append(done)
                run.sweep()

        imported, outcome = import_snapshot(shop.settings, store, str(file), tell=sweep_once)
        assert (imported, outcome, len(swept)) == (manifest, "imported", 1)
        read_whole(store, manifest.version)


def test_a_disk_without_room_is_told_before_it_is_filled(
    tastematch: Command, tmp_path: Path
) -> None:
    source = shop_of(tmp_path / "source")
    built = Builder(tmp_path / "scratch").build({"lists": 12 * MB})
    with source.store() as store, small_disk(tmp_path / "disk", 10) as disk:
        publish(store, built)
        file = tmp_path / "shop.snapshot"
        line = refused(tastematch("snapshots", "export", built.version, disk / "x", env=source.env))
        assert "the disk is full: 12.3 MB are needed" in line
        assert list(disk.iterdir()) == []
        assert (
            tastematch("snapshots", "export", built.version, file, env=source.env).returncode == 0
        )
        full = shop_of(disk / "data")
        assert "the disk is full" in refused(tastematch("snapshots", "import", file, env=full.env))
        assert full.states() == {}


MEASURED = """
    import sys
    from shared.peak_memory import peak_rss_mb
    from tastematch.cli import run
    code = run(sys.argv[1:])
    print(round(peak_rss_mb()), file=sys.stderr)
    sys.exit(code)
"""


def test_a_pipe_will_do_and_memory_is_bounded(tmp_path: Path, redis_url: str) -> None:
    source, target = shop_of(tmp_path / "source"), shop_of(tmp_path / "target", redis_url)
    built = Builder(tmp_path / "scratch").build({"lists": 48 * MB, "users": 3, "empty": 0})
    with source.store() as store:
        publish(store, built)

    def start(shop: Shop, *words: str, stdin: int | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(MEASURED), "snapshots", *words],
            env={"PATH": os.environ["PATH"], **shop.env},
            cwd=REPOSITORY,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    _, stderr = start(target, "list").communicate(timeout=30)
    idle_mb = int(stderr)
    sending = start(source, "export", built.version, "-")
    assert sending.stdout is not None
    receiving = start(target, "import", "-", stdin=sending.stdout.fileno())
    sending.stdout.close()
    stdout, stderr = receiving.communicate(timeout=60)
    assert receiving.returncode == 0, stderr
    assert stdout.startswith(f"imported {built.version}, 48,000,003 bytes, held".encode())
    assert sending.stderr is not None
    said, sending_mb = sending.stderr.read().decode().splitlines()
    sending.stderr.close()
    assert sending.wait(30) == 0
    assert said == f"exported {built.version}, 3 parts, 48,000,003 bytes"
    for peak_mb in (int(sending_mb), int(stderr)):
        assert peak_mb < idle_mb + 44  # the parts alone have 48
    with target.store() as store:
        read_whole(store, built.version)
