"""What both stores keep to: key names, the pointer's line, chunks, and when a pointer may move.

Specified in docs/snapshot-format.md. No store is known here, and nothing is read or written
except the files that a publish takes its parts from.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared.errors import PublishSuperseded, SnapshotDamaged, SnapshotError
from shared.snapshot.manifest import Manifest, is_version
from shared.snapshot.store import CHUNK_BYTES, CatalogEntry, Pointer, SnapshotReader, State

MAX_POINTER_BYTES = 256

_POINTER = re.compile(rb"(tastematch-pointer 1 (\S+) ([0-9]{1,15}) (free|pinned)) ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of everything a store holds. `namespace` has no colon and no wildcard."""

    namespace: str

    @property
    def prefix(self) -> str:
        return f"{self.namespace}:snapshot:"

    @property
    def pointer(self) -> str:
        return f"{self.prefix}pointer"

    @property
    def versions(self) -> str:
        """Complete versions, each with the generation at which it was last activated, or 0."""
        return f"{self.prefix}versions"

    def record(self, version: str) -> str:
        """One entry of `versions`, where the store has no hashes."""
        return f"{self.versions}:{version}"

    def candidate(self, version: str) -> str:
        """The pointer as it will be. Its presence says: this publish goes on and is not swept."""
        return f"{self.prefix}candidate:{version}"

    def manifest(self, version: str) -> str:
        return f"{self.prefix}manifest:{version}"

    def chunk(self, version: str, part: str, number: int) -> str:
        return f"{self.prefix}part:{version}:{part}:{number}"

    def chunks(self, manifest: Manifest, *, chunk_bytes: int) -> Iterator[str]:
        for part, size in manifest.bytes.items():
            for number in range(chunk_count(size, chunk_bytes)):
                yield self.chunk(manifest.version, part, number)

    def version_of(self, key: str) -> str | None:
        """The version whose publish wrote `key`; None for any other key."""
        if not key.startswith(self.prefix):
            return None
        kind, _, rest = key.removeprefix(self.prefix).partition(":")
        version = rest.partition(":")[0]
        is_ours = kind in ("candidate", "manifest", "part") and is_version(version)
        return version if is_ours else None


def encode_pointer(pointer: Pointer) -> bytes:
    mode = "pinned" if pointer.is_pinned else "free"
    text = f"tastematch-pointer 1 {pointer.version} {pointer.generation} {mode}".encode()
    return b"%s %s" % (text, hashlib.sha256(text).hexdigest().encode())


def decode_pointer(data: bytes) -> Pointer:
    """Nothing at all is the pointer before the first activation. Raises SnapshotDamaged."""
    if not data:
        return Pointer(version=None, generation=0, is_pinned=False)
    found = _POINTER.fullmatch(data)
    if found is None or hashlib.sha256(found[1]).hexdigest().encode() != found[5]:
        raise SnapshotDamaged("the pointer to the active snapshot is damaged")
    version = found[2].decode("ascii", "replace")
    if not is_version(version):
        raise SnapshotDamaged("the pointer to the active snapshot names no version")
    return Pointer(version=version, generation=int(found[3]), is_pinned=found[4] == b"pinned")


def readable_pointer(data: bytes) -> Pointer | None:
    """As `decode_pointer`; None where it is damaged."""
    try:
        return decode_pointer(data)
    except SnapshotDamaged:
        return None


def may_activate(seen: Pointer | None, *, expected_generation: int | None) -> bool:
    """Whether a publish may move the pointer that it sees at its end; None: a damaged one.

    A pointer that is gone or unreadable holds no operator's decision that could be undone.
    """
    if seen is None:
        return expected_generation is None
    if seen.version is None:
        return True
    return not seen.is_pinned and seen.generation == expected_generation


def next_generation(generations: Mapping[str, int], *, seen: int | None) -> int:
    """`generations` of the complete versions tell where a lost pointer stood."""
    return max((seen or 0, *generations.values())) + 1


def activated(
    seen: Pointer | None, version: str, generations: Mapping[str, int], *, pin: bool
) -> Pointer:
    """The pointer after an operator's activation."""
    generation = next_generation(generations, seen=seen.generation if seen else None)
    return Pointer(version, generation, is_pinned=pin or (seen is not None and seen.is_pinned))


def unpinned(seen: Pointer | None) -> Pointer:
    if seen is None:
        raise SnapshotDamaged("the pointer to the active snapshot is damaged")
    return Pointer(seen.version, seen.generation, is_pinned=False)


def catalog_entries(
    reader: SnapshotReader, generations: Mapping[str, int], *, seen: Pointer | None
) -> list[CatalogEntry]:
    """Newest first, without versions whose manifest cannot be read."""
    entries = []
    for version in sorted(generations, reverse=True):
        state: State = "kept" if generations[version] else "held"
        if seen is not None and version == seen.version:
            state = "active"
        with suppress(SnapshotError):
            entries.append(CatalogEntry(reader.manifest(version), state))
    return entries


def superseded(version: str) -> PublishSuperseded:
    return PublishSuperseded(
        f"snapshot {version} was not published: a later publish, or a restart of the store, "
        "removed what was written of it"
    )


def parse_generation(record: bytes) -> int:
    """0 for a damaged record, as for a version that was never active."""
    return int(record) if record.isdigit() and len(record) <= 15 else 0


def surplus_versions(versions: Iterable[str], *, keep: int, active: str | None) -> list[str]:
    """What pruning removes, oldest first."""
    assert keep >= 1
    return [version for version in sorted(versions)[:-keep] if version != active]


def chunk_count(size: int, chunk_bytes: int) -> int:
    return -(-size // chunk_bytes)


def read_parts(
    manifest: Manifest, parts: Mapping[str, Path], *, chunk_bytes: int
) -> Iterator[tuple[str, int, bytes]]:
    """Yields (part, number, bytes) of all files. Raises SnapshotDamaged where one differs."""
    assert parts.keys() == manifest.bytes.keys(), "files and manifest name the same parts"
    for part, path in parts.items():
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as file:
            for number in range(chunk_count(manifest.bytes[part], chunk_bytes)):
                chunk = file.read(chunk_bytes)
                digest.update(chunk)
                size += len(chunk)
                yield part, number, chunk
            is_longer = bool(file.read(1))
        if is_longer or (size, digest.hexdigest()) != (
            manifest.bytes[part],
            manifest.checksums[part],
        ):
            raise SnapshotDamaged(f"the file of the part {part} differs from its manifest")


def join_chunks(
    manifest: Manifest, part: str, fetch: Callable[[int], bytes | None]
) -> Iterator[bytes]:
    """Yields what `fetch` finds under 0, 1, ... until the part is whole.

    The first chunk tells the size of all but the last, so that a store may choose it.
    Raises SnapshotDamaged for a chunk that is missing (None) or has another length.
    """
    if part not in manifest.bytes:
        raise SnapshotDamaged(f"snapshot {manifest.version} has no part {part}")
    remaining, chunk_bytes, number = manifest.bytes[part], CHUNK_BYTES, 0
    while remaining:
        chunk = fetch(number)
        if number == 0 and chunk:
            chunk_bytes = min(chunk_bytes, len(chunk))
        if not chunk or len(chunk) != min(chunk_bytes, remaining):
            raise SnapshotDamaged(
                f"chunk {number} of the part {part} of snapshot {manifest.version} "
                + ("is missing" if not chunk else "has a wrong length")
            )
        yield chunk
        remaining -= len(chunk)
        number += 1
