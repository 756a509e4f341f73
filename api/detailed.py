"""The detailed form of a list: ids joined with the restaurants and the reason for each.

Restaurants are slices of the mapped metadata, so they are the very bytes that
`/api/restaurants/metadata` gives, and the list's order and length are those of the bare ids.
"""

from __future__ import annotations

from collections.abc import Iterator

from api.evidence import reasons_of
from api.local_snapshot import LocalSnapshot
from api.serving import Served

_ITEM = b'{"id":%b,"source":"%b","reason":{"code":"%b","restaurant_ids":[%b]},"restaurant":%b}'
_DOCUMENT = (
    b'{"items":[%b],"list":"%b","snapshot_version":"%b","metadata_version":"%b",'
    b'"generated_at":"%b","next_cursor":%b}'
)


def detailed_body(
    snapshot: LocalSnapshot,
    served: Served,
    *,
    list_name: str,
    next_cursor: bytes | None,
    metadata_version: bytes,
) -> bytes:
    """The JSON document. It depends on what its ETag names alone."""
    return _DOCUMENT % (
        b",".join(detailed_items(snapshot, served)),
        list_name.encode(),
        snapshot.version_text,
        metadata_version,
        snapshot.created_at_text,
        b"null" if next_cursor is None else b'"%b"' % next_cursor,
    )


def detailed_items(snapshot: LocalSnapshot, served: Served) -> Iterator[bytes]:
    """The JSON object of each restaurant of the list."""
    reasons = reasons_of(snapshot, served)
    texts, projection = snapshot.id_texts, snapshot.content.projection
    for segment in served.segments:
        source = segment.source.encode()
        for ordinal in segment.ordinals:
            code, own = reasons[ordinal]
            named = b",".join([texts[ordinal] for ordinal in own])
            yield _ITEM % (texts[ordinal], source, code.encode(), named, projection(ordinal))
