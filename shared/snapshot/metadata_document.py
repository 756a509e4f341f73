"""The full form of the metadata, byte by byte: a head that names the version, the objects, a tail.

The version is a hash of the objects alone: equal content has an equal version, whoever wrote it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

VERSION_HEX_DIGITS = 16
TAIL = b"]}"

_HEAD = b'{"kind":"full","version":"%b","restaurants":['


def document_head(version: str) -> bytes:
    """Has the same length for every version."""
    assert len(version) == VERSION_HEX_DIGITS
    return _HEAD % version.encode("ascii")


class ContentHash:
    """The version of objects, told one after the other in the order of the document."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, item: Buffer) -> None:
        self._digest.update(item)
        self._digest.update(b"\n")

    @property
    def version(self) -> str:
        return self._digest.hexdigest()[:VERSION_HEX_DIGITS]
