"""Copies of snapshots on the local disk: fetched from the store, verified, opened, removed.

A copy is a folder `<snapshots dir>/<version>` with the parts and the manifest. It appears by one
rename, after every length and checksum was right and every byte was synced, and never changes.
Several processes may share the folder: who is faster makes the copy, the others open it, and a
copy that is removed loses its name first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from api.local_snapshot import ENCODED_PARTS, REQUIRED_PARTS, YOUNG_PARTS, LocalSnapshot
from shared.errors import SettingsError, SnapshotDamaged
from shared.snapshot.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    decode_manifest,
    encode_manifest,
    is_version,
)
from shared.snapshot.store import SnapshotReader

MANIFEST_FILE = "manifest"
CURRENT_FILE = "current"
INCOMING_PREFIX = ".incoming-"
REMOVING_PREFIX = ".removing-"
LOCK_FILE = ".lock"
ABANDONED_SECONDS = 10.0  # a folder this old that nobody has locked belongs to nobody
SPARE_DISK_BYTES = 4 * 1024**2


def local_versions(snapshots_dir: Path) -> list[str]:
    """The copies that are there, newest first; whether they are good shows when they are opened."""
    try:
        return sorted((n for n in os.listdir(snapshots_dir) if is_version(n)), reverse=True)
    except OSError:
        return []


def check_folder(snapshots_dir: Path) -> None:
    """Raises SettingsError where copies can neither be written nor are there to serve from."""
    try:
        snapshots_dir.mkdir(parents=True, exist_ok=True)
        probe = snapshots_dir / f"{REMOVING_PREFIX}{secrets.token_hex(4)}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        if not local_versions(snapshots_dir):
            raise SettingsError(f"TASTEMATCH_DATA_DIR: cannot be used ({error.strerror})") from None


def current_version(snapshots_dir: Path) -> str | None:
    """The version that some process on this machine served last."""
    try:
        name = (snapshots_dir / CURRENT_FILE).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if is_version(name) else None


def mark_current(snapshots_dir: Path, version: str) -> None:
    """Notes, for the next start, which copy to open. Raises OSError."""
    fresh = snapshots_dir / f"{INCOMING_PREFIX}{CURRENT_FILE}-{secrets.token_hex(4)}"
    try:
        _write_synced(fresh, version.encode())
        fresh.replace(snapshots_dir / CURRENT_FILE)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def open_verified(folder: Path, *, public_vary: bytes) -> LocalSnapshot:
    """Opens a copy after reading every byte of it.

    Raises SnapshotDamaged, SnapshotUnsupported, OSError.
    """
    with (folder / MANIFEST_FILE).open("rb") as file:
        manifest = decode_manifest(file.read(MAX_MANIFEST_BYTES + 1), version=folder.name)
    for part in _wanted_parts(manifest):
        path = folder / part
        if part in YOUNG_PARTS and not path.exists():
            continue  # the release before made this copy
        if path.stat().st_size != manifest.bytes[part]:
            raise SnapshotDamaged(f"the local part {part} has another length")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != manifest.checksums[part]:
                raise SnapshotDamaged(f"the local part {part} differs from its checksum")
    return LocalSnapshot(folder, manifest, public_vary=public_vary)


def fetch(
    store: SnapshotReader,
    manifest: Manifest,
    snapshots_dir: Path,
    *,
    on_chunk: Callable[[], None] = lambda: None,
) -> Path:
    """Copies a version from the store, chunk by chunk, and returns its folder.

    `on_chunk` is called after each chunk; what it raises ends the copying. Raises SnapshotDamaged
    where length or checksum differ, StoreUnavailable, SnapshotNotFound, and OSError where the
    local disk refuses. Whatever happens, no half copy has a version's name.
    """
    snapshots_dir.mkdir(parents=True, exist_ok=True)
    wanted = _wanted_parts(manifest)
    needed = sum(manifest.bytes[part] for part in wanted) + SPARE_DISK_BYTES
    if (free := shutil.disk_usage(snapshots_dir).free) < needed:
        raise OSError(f"the copy needs {needed:,} bytes of disk, {free:,} are free")
    target = snapshots_dir / manifest.version
    with _incoming_folder(snapshots_dir, manifest.version) as incoming:
        for part in wanted:
            _copy_part(store, manifest, part, incoming / part, on_chunk)
        _write_synced(incoming / MANIFEST_FILE, encode_manifest(manifest))
        (incoming / LOCK_FILE).unlink()
        _sync_folder(incoming)
        try:
            incoming.rename(target)
        except OSError:
            if not (target / MANIFEST_FILE).exists():  # unless another process was faster
                raise
        _sync_folder(snapshots_dir)
    return target


def remove_copy(folder: Path) -> None:
    """Removes a copy; it loses its name first, so that nobody opens half of it."""
    doomed = folder.with_name(f"{REMOVING_PREFIX}{folder.name}-{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def sweep(snapshots_dir: Path) -> None:
    """Removes what processes that ended in mid-copy left behind; a living one holds its lock."""
    try:
        names = os.listdir(snapshots_dir)
    except FileNotFoundError:
        return
    for name in names:
        is_left = name.startswith(INCOMING_PREFIX) and _is_abandoned(snapshots_dir / name)
        if is_left or name.startswith(REMOVING_PREFIX):
            shutil.rmtree(snapshots_dir / name, ignore_errors=True)


def _wanted_parts(manifest: Manifest) -> list[str]:
    """The parts the API reads; those it does not know are left where they are."""
    for part in REQUIRED_PARTS:
        if part not in manifest.bytes:
            raise SnapshotDamaged(f"the manifest names no part {part}")
    optional = (*YOUNG_PARTS, *ENCODED_PARTS.values())
    return [*REQUIRED_PARTS, *(part for part in optional if part in manifest.bytes)]


def _copy_part(
    store: SnapshotReader,
    manifest: Manifest,
    part: str,
    path: Path,
    on_chunk: Callable[[], None],
) -> None:
    digest = hashlib.sha256()
    left = manifest.bytes[part]
    with path.open("wb") as file:
        for chunk in store.chunks(manifest, part):
            left -= len(chunk)
            if left < 0:
                raise SnapshotDamaged(f"the part {part} is longer than its manifest states")
            digest.update(chunk)
            file.write(chunk)
            on_chunk()
        if left:
            raise SnapshotDamaged(f"the part {part} is shorter than its manifest states")
        if digest.hexdigest() != manifest.checksums[part]:
            raise SnapshotDamaged(f"the part {part} differs from its checksum")
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _incoming_folder(snapshots_dir: Path, version: str) -> Iterator[Path]:
    folder = snapshots_dir / f"{INCOMING_PREFIX}{version}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        with (folder / LOCK_FILE).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        if time.time() - folder.stat().st_mtime < ABANDONED_SECONDS:
            return False  # it may be about to be locked, or to get its name
        with (folder / LOCK_FILE).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
