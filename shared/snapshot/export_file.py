"""One version as one file: a line, its manifest, then its parts one after another.

Specified in docs/snapshot-format.md. Written and read from the beginning to the end, in pieces, so
that a pipe will do; every byte is under a checksum, those of the manifest and those in it.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from shared.errors import SnapshotDamaged, SnapshotUnsupported
from shared.snapshot.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    decode_manifest,
    encode_manifest,
    is_version,
)
from shared.snapshot.store import CHUNK_BYTES, SnapshotReader
from shared.snapshot.verification import verified_chunks

FORMAT = 1

_HEAD = re.compile(rb"tastematch-export ([0-9]{1,6})(?: (\S{1,64}) ([0-9]{1,9}))?(?: .*)?\n")
_MAX_HEAD_BYTES = 256
_CUT_OFF = "the file is cut off"

Progress = Callable[[int], None]  # told the bytes of the parts so far


def write_export(
    file: BinaryIO, reader: SnapshotReader, manifest: Manifest, *, on_progress: Progress
) -> None:
    """Raises SnapshotDamaged where a part differs from its checksum, and what the reader raises."""
    encoded = encode_manifest(manifest)
    file.write(b"tastematch-export %d %s %d\n" % (FORMAT, manifest.version.encode(), len(encoded)))
    file.write(encoded)
    written = 0
    for part in sorted(manifest.bytes):
        for chunk in verified_chunks(reader, manifest, part):
            file.write(chunk)
            written += len(chunk)
            on_progress(written)


def export_bytes(manifest: Manifest) -> int:
    """An upper limit of what `write_export` writes."""
    return _MAX_HEAD_BYTES + MAX_MANIFEST_BYTES + sum(manifest.bytes.values())


def read_manifest(file: BinaryIO) -> Manifest:
    """Reads as far as the parts. Raises SnapshotDamaged, SnapshotUnsupported."""
    head = file.readline(_MAX_HEAD_BYTES)
    found = _HEAD.fullmatch(head)
    if found is None:
        raise SnapshotDamaged("the file is no exported snapshot")
    if int(found[1]) != FORMAT:
        raise SnapshotUnsupported(
            f"the file has format {int(found[1])} of exports, which this release does not read"
        )
    version, size = (found[2] or b"").decode("ascii", "replace"), int(found[3] or 0)
    if not is_version(version) or size > MAX_MANIFEST_BYTES:
        raise SnapshotDamaged("the first line of the file is damaged")
    encoded = file.read(size)
    if len(encoded) < size:
        raise SnapshotDamaged(_CUT_OFF)
    return decode_manifest(encoded, version=version)


def read_parts(file: BinaryIO, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """Yields (part, piece) of at most CHUNK_BYTES, an empty part as one empty piece.

    What was yielded is trustworthy only once the last is. Raises SnapshotDamaged.
    """
    for part in sorted(manifest.bytes):
        digest, remaining = hashlib.sha256(), manifest.bytes[part]
        if not remaining:
            yield part, b""
        while remaining:
            piece = file.read(min(CHUNK_BYTES, remaining))
            if not piece:
                raise SnapshotDamaged(_CUT_OFF)
            digest.update(piece)
            remaining -= len(piece)
            yield part, piece
        if digest.hexdigest() != manifest.checksums[part]:
            raise SnapshotDamaged(f"the part {part} in the file differs from its checksum")
    if file.read(1):
        raise SnapshotDamaged("the file goes on after its end")
