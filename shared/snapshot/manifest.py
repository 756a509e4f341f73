"""The manifest: what a snapshot is, and the checksums that make its parts trustworthy.

On the wire a manifest is one line `tastematch-manifest <schema> <sha256 of the JSON>`, a line
break, and a JSON object (docs/snapshot-format.md). The state of a version (active, held, kept) is
not part of it: a manifest never changes after its publication.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from shared.errors import SnapshotDamaged, SnapshotUnsupported

SCHEMA = 1
SUPPORTED_SCHEMAS = frozenset({1})
MAX_MANIFEST_BYTES = 256 * 1024
MAX_PART_BYTES = 8 * 1024**3

_MAGIC = b"tastematch-manifest"
_VERSION = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{4}")
_PART_NAME = re.compile(r"[a-z][a-z0-9_.]{0,39}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """`bytes` and `checksums` (sha256, hex) have one entry a part, with the same names."""

    version: str
    created_at: datetime
    data_as_of: datetime | None
    algorithm: dict[str, Any]
    counts: dict[str, Any]
    bytes: dict[str, int]
    checksums: dict[str, str]
    metadata_version: str
    stages: list[dict[str, Any]]
    peak_rss_mb: float
    quality: dict[str, Any] = field(default_factory=dict)
    held_because: list[str] = field(default_factory=list)
    """Why it was published held, one line each; empty where no comparison spoke against it."""
    warnings: list[str] = field(default_factory=list)
    """What may go wrong with it where it was published, one line each."""
    changes_since: datetime | None = None
    """Writes noted before are contained (`shared/db/changes.py`); None: a release that had none."""
    job_id: str | None = None
    """Of the job that published it; a job publishes one version at most."""
    schema: int = SCHEMA

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; instants are RFC 3339 in UTC."""
        return {
            "version": self.version,
            "schema": self.schema,
            "created_at": _instant(self.created_at),
            "data_as_of": None if self.data_as_of is None else _instant(self.data_as_of),
            "changes_since": None if self.changes_since is None else _instant(self.changes_since),
            "job_id": self.job_id,
            "algorithm": self.algorithm,
            "counts": self.counts,
            "metadata_version": self.metadata_version,
            "bytes": self.bytes,
            "quality": self.quality,
            "held_because": self.held_because,
            "warnings": self.warnings,
            "stages": self.stages,
            "peak_rss_mb": self.peak_rss_mb,
            "checksums": self.checksums,
        }


def new_version(now: datetime, *, after: str | None) -> str:
    """A version that sorts after `after` even where the clock went back.

    Form: `20261125T105812345678Z-3fa2`, UTC to the microsecond and four random hex digits.
    """
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    if after is not None and stamp <= (last := after.partition("-")[0]):
        stamp = f"{last[:9]}{int(last[9:-1]) + 1:012d}Z"
    return f"{stamp}-{secrets.token_hex(2)}"


def is_version(text: str) -> bool:
    return _VERSION.fullmatch(text) is not None


def encode_manifest(manifest: Manifest) -> bytes:
    body = orjson.dumps(manifest.as_dict(), option=orjson.OPT_SORT_KEYS)
    digest = hashlib.sha256(body).hexdigest().encode()
    return b"%s %d %s\n%s" % (_MAGIC, manifest.schema, digest, body)


def decode_manifest(data: bytes, *, version: str) -> Manifest:
    """Raises SnapshotDamaged, or SnapshotUnsupported for a schema this release does not read."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise SnapshotDamaged(f"the manifest of {version} is larger than any manifest")
    head, _, body = data.partition(b"\n")
    words = head.split(b" ")
    if len(words) != 3 or words[0] != _MAGIC or not words[1].isdigit() or len(words[1]) > 6:
        raise SnapshotDamaged(f"the manifest of {version} has no valid head")
    if hashlib.sha256(body).hexdigest().encode() != words[2]:
        raise SnapshotDamaged(f"the manifest of {version} differs from its checksum")
    if int(words[1]) not in SUPPORTED_SCHEMAS:
        raise SnapshotUnsupported(f"snapshot {version} has schema {int(words[1])}")
    try:
        manifest = _from_dict(orjson.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SnapshotDamaged(f"the manifest of {version} lacks what a manifest holds") from None
    if manifest.version != version or manifest.schema != int(words[1]):
        raise SnapshotDamaged(f"the manifest of {version} belongs to another snapshot")
    return manifest


def _from_dict(raw: dict[str, Any]) -> Manifest:
    sizes: dict[str, int] = raw["bytes"]
    sums: dict[str, str] = raw["checksums"]
    if set(sizes) != set(sums) or not is_version(raw["version"]):
        raise ValueError
    for name, size in sizes.items():
        if not _PART_NAME.fullmatch(name) or not _SHA256.fullmatch(sums[name]):
            raise ValueError
        if type(size) is not int or not 0 <= size <= MAX_PART_BYTES:
            raise ValueError
    as_of, since, job_id = raw["data_as_of"], raw.get("changes_since"), raw.get("job_id")
    return Manifest(
        version=raw["version"],
        schema=raw["schema"],
        created_at=_parsed(raw["created_at"]),
        data_as_of=None if as_of is None else _parsed(as_of),
        changes_since=None if since is None else _parsed(since),
        job_id=None if job_id is None else str(job_id),
        algorithm=dict(raw["algorithm"]),
        counts=dict(raw["counts"]),
        metadata_version=str(raw["metadata_version"]),
        bytes=dict(sizes),
        quality=dict(raw["quality"]),
        held_because=[str(reason) for reason in raw.get("held_because", [])],
        warnings=[str(warning) for warning in raw.get("warnings", [])],
        stages=list(raw["stages"]),
        peak_rss_mb=float(raw["peak_rss_mb"]),
        checksums=dict(sums),
    )


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _parsed(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
