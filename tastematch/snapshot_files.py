"""Versions move between machines as files: out of a store, and into one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

from shared.errors import PublishSuperseded, SnapshotDamaged, SnapshotNotFound, TasteMatchError
from shared.settings import Settings
from shared.snapshot.export_file import export_bytes, read_manifest, read_parts, write_export
from shared.snapshot.manifest import Manifest
from shared.snapshot.store import SnapshotStore

PIPE = "-"
"""In the place of a file: standard output, or standard input."""

_ATTEMPTS = 3  # a precompute that publishes sweeps an import, once
_MB = 1_000_000

Tell = Callable[[str, float], None]  # what is done, and how far it is (0-1)


def export_snapshot(store: SnapshotStore, version: str, target: str, *, tell: Tell) -> Manifest:
    """Writes a version to a file, which is whole or not there, for its owner alone.

    A file that is there is replaced. Raises SnapshotNotFound, SnapshotDamaged, StoreUnavailable;
    TasteMatchError where the file cannot be written.
    """
    manifest = store.manifest(version)
    total = sum(manifest.bytes.values())

    def write(file: BinaryIO) -> None:
        write_export(
            file, store, manifest, on_progress=lambda done: tell("exporting", done / (total or 1))
        )

    if target == PIPE:
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        with _file_errors("written"), _new_file(Path(target), need=export_bytes(manifest)) as file:
            write(file)
    return manifest


def import_snapshot(
    settings: Settings, store: SnapshotStore, source: str, *, tell: Tell
) -> tuple[Manifest, Literal["imported", "present"]]:
    """Puts a version from a file into the store, held: it is never activated here.

    The file is read and verified to its end before anything is written to the store. Raises
    SnapshotDamaged, SnapshotUnsupported, StoreFull, StoreUnavailable; TasteMatchError where the
    file cannot be read.
    """
    with _file_errors("read"), _source(source) as file:
        manifest = read_manifest(file)
        if source != PIPE:
            _check_length(file, manifest)
        if _is_present(store, manifest):
            for _ in _verified(file, manifest, tell):
                pass
            return manifest, "present"
        from worker.scratch import scratch_folder

        with scratch_folder(settings.scratch_dir) as scratch:
            _check_room(scratch, sum(manifest.bytes.values()))
            parts = {part: scratch / part for part in manifest.bytes}
            for path in parts.values():
                path.touch()
            for part, piece in _verified(file, manifest, tell):
                with parts[part].open("ab") as output:
                    output.write(piece)
            return manifest, _publish(store, manifest, parts, tell)


def _publish(
    store: SnapshotStore, manifest: Manifest, parts: dict[str, Path], tell: Tell
) -> Literal["imported", "present"]:
    total = sum(manifest.bytes.values())

    def attempt() -> None:
        store.publish(
            manifest,
            parts,
            expected_generation=None,
            activate=False,
            sweep_others=False,
            on_progress=lambda written: tell("importing", written / (total or 1)),
        )

    for _ in range(_ATTEMPTS - 1):
        try:
            attempt()
            return "imported"
        except PublishSuperseded:
            if _is_present(store, manifest):
                return "present"
    attempt()
    return "imported"


def _is_present(store: SnapshotStore, manifest: Manifest) -> bool:
    """Releases may write a manifest in other words; the parts tell whether it is the same."""
    try:
        found = store.manifest(manifest.version)
    except SnapshotNotFound:
        return False
    if (found.bytes, found.checksums) != (manifest.bytes, manifest.checksums):
        raise SnapshotDamaged(
            f"the store has a snapshot {manifest.version} with other content: nothing is replaced"
        )
    return True


def _verified(file: BinaryIO, manifest: Manifest, tell: Tell) -> Iterator[tuple[str, bytes]]:
    done, total = 0, sum(manifest.bytes.values())
    for part, piece in read_parts(file, manifest):
        yield part, piece
        done += len(piece)
        tell("verifying", done / (total or 1))


def _check_length(file: BinaryIO, manifest: Manifest) -> None:
    """Before a long copy. Raises SnapshotDamaged."""
    expected = file.tell() + sum(manifest.bytes.values())
    found = os.fstat(file.fileno()).st_size
    if found != expected:
        raise SnapshotDamaged(f"the file has {found:,} bytes, not the {expected:,} it states")


def _check_room(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need:
        raise TasteMatchError(
            f"the disk is full: {need / _MB:.1f} MB are needed, {free / _MB:.1f} MB are free"
        )


@contextmanager
def _source(source: str) -> Iterator[BinaryIO]:
    if source == PIPE:
        yield sys.stdin.buffer
        return
    with Path(source).open("rb") as file:
        yield file


@contextmanager
def _new_file(path: Path, *, need: int) -> Iterator[BinaryIO]:
    """Written beside its place, mode 0600, and put there when it is whole and on the disk."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _check_room(path.parent, need)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.is_dir():
            raise IsADirectoryError(None, "is a folder")
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


@contextmanager
def _file_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TasteMatchError(f"the file cannot be {doing} ({error.strerror})") from None
