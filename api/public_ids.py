"""Bare id lists that are the same for everyone, with the cache rules of the metadata."""

from __future__ import annotations

import time
from collections.abc import Sequence

from api.answers import Answer, Headers, length_of
from api.caching import is_match
from api.local_snapshot import LocalSnapshot


def public_ids(
    snapshot: LocalSnapshot, ordinals: Sequence[int], *, name: bytes, headers: Headers
) -> Answer:
    """`name` says which list it is within the snapshot; with the version it makes the ETag."""
    etag = b'"%b.%b"' % (name, snapshot.version_text)
    fields = [
        *snapshot.shown.public_fields,
        (b"etag", etag),
        snapshot.age_field(time.time()),
    ]
    if is_match(headers.get(b"if-none-match"), etag):
        return Answer(304, fields)
    body = b"[%b]" % b",".join(map(snapshot.id_texts.__getitem__, ordinals))
    return Answer(200, [*fields, length_of(body)], body)
