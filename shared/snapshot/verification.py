"""Whether a store still holds a version's parts as they were published."""

import hashlib
from collections.abc import Iterator

from shared.errors import SnapshotDamaged
from shared.snapshot.manifest import Manifest
from shared.snapshot.store import SnapshotReader


def verify_parts(reader: SnapshotReader, manifest: Manifest) -> None:
    """Reads every part in bounded pieces and compares it with its checksum.

    Raises SnapshotDamaged for the first part that differs, and what the reader raises.
    """
    for part in manifest.checksums:
        for _ in verified_chunks(reader, manifest, part):
            pass


def verified_chunks(reader: SnapshotReader, manifest: Manifest, part: str) -> Iterator[bytes]:
    """The part's bytes in order, trustworthy only once the last has come.

    Raises SnapshotDamaged behind the last where they differ from the checksum, and what the reader
    raises.
    """
    digest = hashlib.sha256()
    for chunk in reader.chunks(manifest, part):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != manifest.checksums[part]:
        raise SnapshotDamaged(
            f"the part {part} of snapshot {manifest.version} differs from its checksum"
        )
