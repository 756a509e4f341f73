"""Whether a store still holds a version's parts as they were published."""

import hashlib

from shared.errors import SnapshotDamaged
from shared.snapshot.manifest import Manifest
from shared.snapshot.store import SnapshotReader


def verify_parts(reader: SnapshotReader, manifest: Manifest) -> None:
    """Reads every part in bounded pieces and compares it with its checksum.

    Raises SnapshotDamaged for the first part that differs, and what the reader raises.
    """
    for part, expected in manifest.checksums.items():
        digest = hashlib.sha256()
        for chunk in reader.chunks(manifest, part):
            digest.update(chunk)
        if digest.hexdigest() != expected:
            raise SnapshotDamaged(
                f"the part {part} of snapshot {manifest.version} differs from its checksum"
            )
