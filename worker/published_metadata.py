"""The restaurants as a published snapshot shows them, streamed back out of the store.

The parts are copied into a folder piece by piece and compared with their checksums; of the
document no more than one restaurant's object is in memory.
"""

import hashlib
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

from shared.errors import SnapshotDamaged
from shared.snapshot.format import MetadataIndex, Restaurants
from shared.snapshot.manifest import Manifest
from shared.snapshot.store import SnapshotReader

CONTENT_PARTS = ("restaurants", "metadata", "metadata_index")


class ShownRestaurants:
    """(id, JSON object) of every restaurant, ascending by id, as often as it is iterated.

    `folder` holds the CONTENT_PARTS. Raises SnapshotDamaged where they contradict each other.
    """

    def __init__(self, folder: Path) -> None:
        self._document = folder / "metadata"
        self._restaurants = Restaurants(mapped(folder / "restaurants"))
        self._index = MetadataIndex(mapped(folder / "metadata_index"))
        self.document_bytes = self._document.stat().st_size
        if self._restaurants.count != self._index.count:
            raise SnapshotDamaged("the parts speak of different numbers of restaurants")

    def __len__(self) -> int:
        return self._restaurants.count

    def __contains__(self, restaurant_id: int) -> bool:
        return self._restaurants.ordinal_of(restaurant_id) is not None

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        with self._document.open("rb") as file:
            for ordinal, restaurant_id in enumerate(self._restaurants.ids):
                start, stop = self._index.span(ordinal)
                if not 0 < start < stop < self.document_bytes:
                    raise SnapshotDamaged("the metadata index points outside the metadata")
                file.seek(start)
                yield restaurant_id, file.read(stop - start)


def fetch_parts(
    store: SnapshotReader, manifest: Manifest, parts: Sequence[str], folder: Path
) -> None:
    """Copies parts of a version into the folder.

    Raises StoreUnavailable, SnapshotNotFound, and SnapshotDamaged where a part is missing or
    differs from its checksum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        if part not in manifest.bytes:
            raise SnapshotDamaged(f"the snapshot {manifest.version} has no part {part}")
        digest = hashlib.sha256()
        with (folder / part).open("wb") as file:
            for chunk in store.chunks(manifest, part):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != manifest.checksums[part]:
            raise SnapshotDamaged(f"the part {part} of {manifest.version} is damaged")


def mapped(path: Path) -> memoryview:
    """Raises SnapshotDamaged for an empty file: no part is empty."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise SnapshotDamaged(f"the part {path.name} is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
