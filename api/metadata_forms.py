"""Forms of the metadata beside the full one: what changed since a version, and chosen restaurants.

Both are slices of the uncompressed metadata, joined per answer and never parsed. They are coded
with gzip or not at all: there are too many of them to be prepared in every coding. What is coded
per answer is bounded, and deltas are remembered, as clients mostly ask for the same few.

Restaurants that closed since the snapshot are left out of both, and named as removed. Versions that
the snapshot's own history does not know, since they came after it or beside it, are told apart
(`metadata_versions.py`).
"""

from __future__ import annotations

import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

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

NO_IDS: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Representation:
    """One encoding of one form: its body and the header fields of its 200 and its 304."""

    body: bytes | memoryview
    etag: bytes
    coding: bytes
    fields: list[HeaderField]
    unchanged_fields: list[HeaderField]


class Since(NamedTuple):
    """What a client holds that has a version: the snapshot's own metadata, or earlier ones, but
    for some restaurants."""

    version: str
    """One that the snapshot's history knows, or its own."""
    touched: frozenset[int] = NO_IDS
    """Ids of restaurants of which the client may know something else, or nothing."""
    lacking: frozenset[int] = NO_IDS
    """Those of them that it does not have."""


def represent(
    body: bytes | memoryview, *, etag: bytes, coding: bytes, common: Sequence[HeaderField]
) -> Representation:
    """`common` are the fields that 200 and 304 share, but the ETag."""
    unchanged = [(b"etag", etag), *common]
    encoding = [] if coding == IDENTITY else [(b"content-encoding", coding)]
    fields = [JSON_TYPE, length_of(body), *encoding, *unchanged]
    return Representation(body, etag, coding, fields, unchanged)


@dataclass(frozen=True, slots=True)
class MetadataContent:
    """What the parts of a snapshot say: `document` is the full form of `version`."""

    version: str
    document: memoryview
    index: MetadataIndex
    restaurants: Restaurants
    history: MetadataHistory | None

    def projection(self, ordinal: int) -> memoryview:
        """The restaurant's JSON object as it stands in the metadata."""
        start, stop = self.index.span(ordinal)
        if not 0 < start < stop < len(self.document):
            raise SnapshotDamaged("the metadata index points outside the metadata")
        return self.document[start:stop]

    def versions_after(self, version: str) -> Sequence[str]:
        """What was served after it, as far as the history tells."""
        known = [] if self.history is None else list(self.history.versions)
        return known[known.index(version) + 1 :] if version in known else ()

    def touched_since(self, version: str) -> frozenset[int] | None:
        """Ids of all restaurants that came, changed or went after that version, or may have.

        None where the history does not know it.
        """
        history = self.history
        if history is None or version not in history.versions:
            return None
        number = list(history.versions).index(version)
        ids = self.restaurants.ids
        changed = (ids[at] for at in places_after(history.changed_at, number))
        gone = (history.removed_ids[at] for at in places_after(history.removed_at, number))
        return frozenset(changed).union(gone)


class MetadataForms:
    """Of one snapshot; remembers the deltas that were asked for last.

    version: what is shown, which is the content's own where nothing is `gone` (ordinals).
    full_bytes: of the uncompressed full form. common: the fields that 200 and 304 of every form
    share. Raises SnapshotDamaged where the history is not that of these metadata.
    """

    def __init__(
        self,
        content: MetadataContent,
        *,
        version: str,
        full_bytes: int,
        common: Sequence[HeaderField],
        gone: Set[int] = NO_IDS,
    ) -> None:
        self._content = content
        self._version = version
        self._full_bytes = full_bytes
        self._common = common
        self._gone = gone
        ids = content.restaurants.ids
        self._gone_ids = frozenset(ids[ordinal] for ordinal in gone)
        self._numbers: dict[str, int] = {content.version: 0}
        if (history := content.history) is not None:
            self._numbers = {known: number for number, known in enumerate(history.versions)}
            is_its_own = history.versions[-1] == content.version
            count = memoryview(history.changed_at).nbytes
            if not is_its_own or count != content.restaurants.count:
                raise SnapshotDamaged("the metadata history speaks of other metadata")
        self.others: Mapping[str, Since] = {}
        """Versions that the history does not know; replaced, never changed."""
        self._negotiator = Negotiator((GZIP, IDENTITY))
        self._plain = Negotiator((IDENTITY,))
        self._deltas: OrderedDict[tuple[str, bytes], Representation] = OrderedDict()
        self._remembered_bytes = 0
        self._too_large: set[str] = set()
        self._uncoded_bytes: dict[str, int] = {}  # of deltas above MAX_CODED_BYTES

    def knows(self, version: str) -> bool:
        """Whether the snapshot's own history does."""
        return version in self._numbers

    def subset(self, ids: Sequence[int], accept_encoding: bytes | None) -> Representation:
        """The restaurants of these ids in their order, each once, without those unknown.

        Raises NotAcceptable.
        """
        coding = self._negotiator.choose(accept_encoding)
        items = b",".join(map(self._content.projection, self._shown(dict.fromkeys(ids))))
        return self._represent(_SUBSET % (self._version.encode(), items), coding)

    def delta(
        self, since: str, accept_encoding: bytes | None, *, full_bytes: int
    ) -> Representation | None:
        """What came after that version, or None where the full form is to be sent instead.

        full_bytes: of the full form as this client would get it.
        """
        held = self._since(since)
        if held is None or since in self._too_large:
            return None
        coding = self._coding(since, accept_encoding, full_bytes)
        if coding is None:
            return None
        remembered = self._deltas.get((since, coding))
        if remembered is not None:
            self._deltas.move_to_end((since, coding))
            return remembered
        body = self._delta_body(since, held)
        if since != self._version and 2 * len(body) > self._full_bytes:
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

    def _since(self, version: str) -> Since | None:
        if version == self._version:
            return Since(self._content.version, lacking=self._gone_ids)
        if version in self._numbers:
            return Since(version)
        return self.others.get(version)

    def _shown(self, ids: Iterable[int]) -> Iterable[int]:
        """Ordinals of those of the ids that the metadata show."""
        ordinals = map(self._content.restaurants.ordinal_of, ids)
        return (o for o in ordinals if o is not None and o not in self._gone)

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

    def _delta_body(self, since: str, held: Since) -> bytes:
        content, number = self._content, self._numbers[held.version]
        history = content.history
        ordinals: Iterable[int] = ()
        removed = self._gone_ids - held.lacking
        if history is not None:
            ordinals = places_after(history.changed_at, number)
            ids = history.removed_ids
            removed = removed.union(ids[at] for at in places_after(history.removed_at, number))
        if held.touched:
            shown = set(self._shown(held.touched))
            removed |= held.touched - held.lacking - {content.restaurants.ids[o] for o in shown}
            ordinals = sorted(shown.union(ordinals))
        changed: list[memoryview] = []
        left = self._full_bytes // 2
        for ordinal in ordinals:
            if ordinal in self._gone:
                continue
            changed.append(content.projection(ordinal))
            left -= len(changed[-1]) + 1
            if left < 0:
                break  # too large already
        texts = (since.encode(), self._version.encode())
        gone = b",".join([b"%d" % each for each in sorted(removed)])
        return _DELTA % (*texts, b",".join(changed), gone)

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
