"""Forms of the metadata beside the full one: what changed since a version, and chosen restaurants.

Both are slices of the uncompressed metadata, joined per answer and never parsed. They are coded
with gzip or not at all: there are too many of them to be prepared in every coding. What is coded
per answer is bounded, and deltas are remembered, as clients mostly ask for the same few.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from api.answers import JSON_TYPE, HeaderField, length_of
from api.caching import IDENTITY, Negotiator
from shared.errors import NotAcceptable, SnapshotDamaged
from shared.snapshot.format import MetadataIndex, Restaurants
from shared.snapshot.metadata_history import MetadataHistory, places_after

GZIP = b"gzip"
MAX_CODED_BYTES = 512 * 1024  # takes about 3 ms
MAX_REMEMBERED_BYTES = 2 * 1024**2

_LEVEL = 1
_GZIP_WINDOW = 31
_DELTA = b'{"kind":"delta","from":"%b","version":"%b","changed":[%b],"removed":[%b]}'
_SUBSET = b'{"kind":"subset","version":"%b","restaurants":[%b]}'


@dataclass(frozen=True, slots=True)
class Representation:
    """One encoding of one form: its body and the header fields of its 200 and its 304."""

    body: bytes | memoryview
    etag: bytes
    coding: bytes
    fields: list[HeaderField]
    unchanged_fields: list[HeaderField]


def represent(
    body: bytes | memoryview, *, etag: bytes, coding: bytes, common: Sequence[HeaderField]
) -> Representation:
    """`common` are the fields that 200 and 304 share, but the ETag."""
    unchanged = [(b"etag", etag), *common]
    encoding = [] if coding == IDENTITY else [(b"content-encoding", coding)]
    fields = [JSON_TYPE, length_of(body), *encoding, *unchanged]
    return Representation(body, etag, coding, fields, unchanged)


class MetadataForms:
    """Of one snapshot; remembers the deltas that were asked for last.

    `common`: the fields that 200 and 304 of every form share. Raises SnapshotDamaged where the
    history is not that of these metadata.
    """

    def __init__(
        self,
        *,
        version: str,
        document: memoryview,
        index: MetadataIndex,
        restaurants: Restaurants,
        history: MetadataHistory | None,
        common: Sequence[HeaderField],
    ) -> None:
        self._version = version
        self._document = document
        self._index = index
        self._restaurants = restaurants
        self._history = history
        self._common = common
        self._numbers: dict[str, int] = {}
        if history is not None:
            self._numbers = {known: number for number, known in enumerate(history.versions)}
            is_its_own = history.versions[-1] == version
            if not is_its_own or memoryview(history.changed_at).nbytes != restaurants.count:
                raise SnapshotDamaged("the metadata history speaks of other metadata")
        self._negotiator = Negotiator((GZIP, IDENTITY))
        self._plain = Negotiator((IDENTITY,))
        self._deltas: OrderedDict[tuple[str, bytes], Representation] = OrderedDict()
        self._remembered_bytes = 0
        self._too_large: set[str] = set()
        self._uncoded_bytes: dict[str, int] = {}  # of deltas above MAX_CODED_BYTES

    def projection(self, ordinal: int) -> memoryview:
        """The restaurant's JSON object as it stands in the metadata."""
        start, stop = self._index.span(ordinal)
        if not 0 < start < stop < len(self._document):
            raise SnapshotDamaged("the metadata index points outside the metadata")
        return self._document[start:stop]

    def subset(self, ids: Sequence[int], accept_encoding: bytes | None) -> Representation:
        """The restaurants of these ids in their order, each once, without those unknown.

        Raises NotAcceptable.
        """
        coding = self._negotiator.choose(accept_encoding)
        found = map(self._restaurants.ordinal_of, dict.fromkeys(ids))
        items = b",".join(self.projection(ordinal) for ordinal in found if ordinal is not None)
        return self._represent(_SUBSET % (self._version.encode(), items), coding)

    def delta(
        self, since: str, accept_encoding: bytes | None, *, full_bytes: int
    ) -> Representation | None:
        """What came after that version, or None where the full form is to be sent instead.

        full_bytes: of the full form as this client would get it.
        """
        is_known = since == self._version or since in self._numbers
        if not is_known or since in self._too_large:
            return None
        coding = self._coding(since, accept_encoding, full_bytes)
        if coding is None:
            return None
        remembered = self._deltas.get((since, coding))
        if remembered is not None:
            self._deltas.move_to_end((since, coding))
            return remembered
        body = self._delta_body(since)
        if since != self._version and 2 * len(body) > len(self._document):
            self._too_large.add(since)
            return None
        if len(body) > MAX_CODED_BYTES:
            self._uncoded_bytes[since] = len(body)
            coding = self._coding(since, accept_encoding, full_bytes)
            if coding is None:
                return None
        made = self._represent(body, coding)
        self._remember((since, coding), made)
        return made

    def _coding(self, since: str, accept_encoding: bytes | None, full_bytes: int) -> bytes | None:
        """In which a delta is sent, as far as its size is known; None for the full form."""
        try:
            coding = self._negotiator.choose(accept_encoding)
            size = self._uncoded_bytes.get(since)
            if coding == GZIP and size is not None:
                coding = self._plain.choose(accept_encoding)
                return None if size > full_bytes else coding
        except NotAcceptable:
            return None
        return coding

    def _delta_body(self, since: str) -> bytes:
        changed: list[memoryview] = []
        removed: list[bytes] = []
        history = self._history
        if history is not None and since != self._version:
            number = self._numbers[since]
            left = len(self._document) // 2
            for ordinal in places_after(history.changed_at, number):
                changed.append(self.projection(ordinal))
                left -= len(changed[-1]) + 1
                if left < 0:
                    break  # too large already
            if left >= 0:
                gone = places_after(history.removed_at, number)
                removed = [b"%d" % history.removed_ids[at] for at in gone]
        texts = (since.encode(), self._version.encode())
        return _DELTA % (*texts, b",".join(changed), b",".join(removed))

    def _represent(self, body: bytes, coding: bytes) -> Representation:
        # Equal versions of two snapshots may have other deltas: the tag names the bytes.
        digest = hashlib.sha256(body).hexdigest()[:16].encode()
        if coding == GZIP:
            body = zlib.compress(body, _LEVEL, _GZIP_WINDOW)
        etag = b'"%b-%b-%b"' % (self._version.encode(), digest, coding)
        return represent(body, etag=etag, coding=coding, common=self._common)

    def _remember(self, key: tuple[str, bytes], made: Representation) -> None:
        if key in self._deltas or len(made.body) > MAX_REMEMBERED_BYTES:
            return
        self._deltas[key] = made
        self._remembered_bytes += len(made.body)
        while self._remembered_bytes > MAX_REMEMBERED_BYTES:
            _, forgotten = self._deltas.popitem(last=False)
            self._remembered_bytes -= len(forgotten.body)
