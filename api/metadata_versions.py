"""Versions of the metadata that a snapshot's own history does not know, and what they lack.

There are two kinds. While restaurants are inactive, this process shows metadata that no snapshot
holds; what they were made of is remembered here, over restarts too. And after a roll-back clients
hold what came later: the local copies of later snapshots tell how that differs.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import orjson

from api.local_snapshot import LocalSnapshot
from api.metadata_forms import Since
from shared.snapshot.metadata_document import VERSION_HEX_DIGITS

MAX_VERSIONS = 200
MAX_LACKING = 100_000  # restaurants that all of them lack, each counted as often as it is lacking
KEPT_SECONDS = 30 * 24 * 3600
MAX_FILE_BYTES = 16 * 1024**2
FILE = "metadata-versions"


class _Cut(NamedTuple):
    """Metadata of a snapshot without some restaurants: its version, and when it was last shown."""

    base: str
    lacking: frozenset[int]
    seconds: int


class MetadataVersions:
    """Used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._cuts = _read(self._path)

    def showing(self, snapshot: LocalSnapshot) -> None:
        """Notes what is shown of the snapshot from now on, and what was shown until now."""
        shown = snapshot.shown
        if shown.is_whole:
            return
        ids = snapshot.restaurants.ids
        lacking = frozenset(ids[ordinal] for ordinal in shown.gone)
        self._cuts.pop(shown.metadata_version, None)
        base = snapshot.manifest.metadata_version
        self._cuts[shown.metadata_version] = _Cut(base, lacking, int(time.time()))
        self._forget()
        with contextlib.suppress(OSError):
            _write(self._path, self._cuts)

    def _forget(self) -> None:
        """Keeps the newest, as many as the bounds allow."""
        oldest, left = time.time() - KEPT_SECONDS, MAX_LACKING
        kept: list[tuple[str, _Cut]] = []
        for version, cut in reversed(self._cuts.items()):
            left -= len(cut.lacking)
            if left < 0 or cut.seconds < oldest or len(kept) == MAX_VERSIONS:
                break
            kept.append((version, cut))
        self._cuts = dict(reversed(kept))

    def others(self, snapshot: LocalSnapshot, copies: Iterable[LocalSnapshot]) -> dict[str, Since]:
        """What deltas of the snapshot rest on, beside its own history. copies: other versions."""
        found: dict[str, Since] = {}
        own = snapshot.content.version
        for copy in copies:
            touched = copy.content.touched_since(own)
            if touched is not None:
                for version in copy.content.versions_after(own):
                    if not snapshot.shown.forms.knows(version):
                        found.setdefault(version, Since(own, touched))
        for version, cut in self._cuts.items():
            base = found.get(cut.base)
            if snapshot.shown.forms.knows(cut.base):
                base = Since(cut.base)
            if base is not None:
                touched = base.touched | cut.lacking
                found[version] = Since(base.version, touched, cut.lacking)
        return found


def _read(path: Path) -> dict[str, _Cut]:
    """Nothing where the file is missing or anything in it is not as it was written."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return {}
        found = {}
        for version, base, lacking, seconds in orjson.loads(path.read_bytes()):
            if not len(version) == len(base) == VERSION_HEX_DIGITS:
                raise ValueError
            found[version] = _Cut(base, frozenset(map(int, lacking)), int(seconds))
        return dict(list(found.items())[-MAX_VERSIONS:])
    except (OSError, ValueError, TypeError):
        return {}


def _write(path: Path, cuts: dict[str, _Cut]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{FILE}-{secrets.token_hex(4)}")
    rows = [[version, c.base, sorted(c.lacking), c.seconds] for version, c in cuts.items()]
    try:
        fresh.write_bytes(orjson.dumps(rows))
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
