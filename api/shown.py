"""What is shown of a snapshot's metadata, and the header fields that say which: at one moment.

With no restaurant closed since, it is what the snapshot holds, coded by the worker. Otherwise the
document is cut anew, without them: the very bytes, and so the very version, that a snapshot
without them would have.
"""

from __future__ import annotations

import io
import mmap
import tempfile
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from email.utils import format_datetime
from pathlib import Path
from typing import IO

from api.answers import JSON_TYPE, HeaderField
from api.caching import IDENTITY, Negotiator
from api.metadata_forms import MetadataContent, MetadataForms, Representation, represent
from api.recoding import recoded
from shared.snapshot.manifest import Manifest
from shared.snapshot.metadata_document import (
    TAIL,
    VERSION_HEX_DIGITS,
    ContentHash,
    document_head,
)

SOURCES = ("personal", "preferences", "popular-city", "popular")

PRIVATE_CACHE: HeaderField = (b"cache-control", b"private, no-cache")
PRIVATE_VARY: HeaderField = (b"vary", b"Authorization, Origin, Accept-Encoding")
PUBLIC_CACHE: HeaderField = (
    b"cache-control",
    b"public, max-age=60, stale-while-revalidate=3600, stale-if-error=86400",
)


@dataclass(frozen=True, slots=True)
class Shown:
    """`metadata` is the full form by coding, `forms` the others; the fields are of lists."""

    metadata_version: str
    metadata_version_text: bytes
    metadata: Mapping[bytes, Representation]
    negotiator: Negotiator
    forms: MetadataForms
    personal_fields: Mapping[str, list[HeaderField]]
    public_fields: list[HeaderField]
    gone: frozenset[int]
    """Ordinals of the restaurants it is without."""
    is_interim: bool = False
    """The metadata are not this snapshot's: its own cannot be cut yet."""
    is_withheld: bool = False
    """There are none that may be shown."""

    @property
    def is_whole(self) -> bool:
        return not self.gone and not self.is_interim


def shown_whole(
    manifest: Manifest,
    content: MetadataContent,
    encoded: Mapping[bytes, bytes],
    *,
    public_vary: bytes,
) -> Shown:
    """All that the snapshot holds. encoded: the document by coding, the preferred one first."""
    bodies: dict[bytes, bytes | memoryview] = {**encoded, IDENTITY: content.document}
    etags = {coding: b'"%b-%b"' % (content.version.encode(), coding) for coding in bodies}
    return _shown(manifest, content, content.version, bodies, etags, public_vary=public_vary)


def shown_without(
    gone: frozenset[int],
    manifest: Manifest,
    content: MetadataContent,
    codings: Sequence[bytes],
    *,
    public_vary: bytes,
    folder: Path,
) -> Shown:
    """Without some ordinals. Takes about 0.1 s for each 2 MB of metadata.

    folder: on the disk that takes the document, where it does.
    """
    version, document = _cut(content, gone, folder)
    coded = {coding: recoded(document, coding) for coding in codings if coding != IDENTITY}
    bodies: dict[bytes, bytes | memoryview] = {
        coding: body for coding, body in coded.items() if body is not None
    }
    # Other bytes than a snapshot has of the same version: a strong validator tells them apart.
    etags = {coding: b'"%b-%b.live"' % (version.encode(), coding) for coding in bodies}
    bodies[IDENTITY], etags[IDENTITY] = document, b'"%b-identity"' % version.encode()
    return _shown(manifest, content, version, bodies, etags, public_vary=public_vary, gone=gone)


def shown_instead(
    whole: Shown, before: Shown | None, manifest: Manifest, *, public_vary: bytes
) -> Shown:
    """The metadata of the snapshot before, where the own ones cannot be cut yet."""
    if before is None or before.is_withheld:
        return replace(whole, is_interim=True, is_withheld=True)
    personal, public = _list_fields(manifest, before.metadata_version, public_vary)
    return replace(
        before,
        personal_fields=personal,
        public_fields=public,
        gone=frozenset(),
        is_interim=True,
    )


def _shown(
    manifest: Manifest,
    content: MetadataContent,
    version: str,
    bodies: Mapping[bytes, bytes | memoryview],
    etags: Mapping[bytes, bytes],
    *,
    public_vary: bytes,
    gone: frozenset[int] = frozenset(),
) -> Shown:
    # No Last-Modified: most snapshots do not change the metadata.
    common = [PUBLIC_CACHE, (b"vary", public_vary), *_names(manifest, version)]
    personal, public = _list_fields(manifest, version, public_vary)
    return Shown(
        metadata_version=version,
        metadata_version_text=version.encode(),
        metadata={
            coding: represent(body, etag=etags[coding], coding=coding, common=common)
            for coding, body in bodies.items()
        },
        negotiator=Negotiator(tuple(bodies)),
        forms=MetadataForms(
            content,
            version=version,
            full_bytes=len(bodies[IDENTITY]),
            common=common,
            gone=gone,
        ),
        personal_fields=personal,
        public_fields=public,
        gone=gone,
    )


def _names(manifest: Manifest, version: str) -> list[HeaderField]:
    return [
        (b"x-snapshot-version", manifest.version.encode()),
        (b"x-metadata-version", version.encode()),
    ]


def _list_fields(
    manifest: Manifest, version: str, public_vary: bytes
) -> tuple[dict[str, list[HeaderField]], list[HeaderField]]:
    """Of personal lists by their source, and of public ones."""
    modified = (b"last-modified", format_datetime(manifest.created_at, usegmt=True).encode())
    names = _names(manifest, version)
    private: list[HeaderField] = [JSON_TYPE, PRIVATE_CACHE, PRIVATE_VARY, modified, *names]
    personal = {
        source: [*private, (b"x-recommendation-source", source.encode())] for source in SOURCES
    }
    return personal, [JSON_TYPE, PUBLIC_CACHE, (b"vary", public_vary), modified, *names]


def _cut(content: MetadataContent, gone: Set[int], folder: Path) -> tuple[str, memoryview]:
    """The version and the document without some ordinals, on the disk where that takes it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            version = _write_cut(content, gone, file)
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
            return version, memoryview(mapped)
    except OSError:
        held = io.BytesIO()
        return _write_cut(content, gone, held), held.getbuffer()


def _write_cut(content: MetadataContent, gone: Set[int], file: IO[bytes]) -> str:
    contents = ContentHash()
    file.write(document_head("0" * VERSION_HEX_DIGITS))
    separator = b""
    for ordinal in range(content.restaurants.count):
        if ordinal not in gone:
            item = content.projection(ordinal)
            contents.add(item)
            file.write(separator)
            file.write(item)
            separator = b","
    file.write(TAIL)
    file.seek(0)
    file.write(document_head(contents.version))
    file.flush()
    return contents.version
