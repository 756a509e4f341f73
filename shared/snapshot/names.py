"""Parts that are lists of names: a name's place is its code, and code 0 is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from shared.errors import SnapshotDamaged

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAMES_BYTES = 16 * 1024**2


def encode_names(names: Sequence[str | None]) -> bytes:
    assert names[0] is None
    return orjson.dumps(names)


def decode_names(data: bytes, *, part: str) -> list[str | None]:
    """part: what the error names. Raises SnapshotDamaged."""
    try:
        names = orjson.loads(data) if len(data) <= MAX_NAMES_BYTES else None
    except ValueError:
        names = None
    if (
        not isinstance(names, list)
        or names[:1] != [None]
        or not all(isinstance(name, str) for name in names[1:])
    ):
        raise SnapshotDamaged(f"the {part} part is not a list of names")
    return names
