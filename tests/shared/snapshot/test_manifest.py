"""Manifests and versions: what is encoded decodes, and nothing else does."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SnapshotDamaged, SnapshotUnsupported
from shared.snapshot.manifest import (
    MAX_MANIFEST_BYTES,
    MAX_PART_BYTES,
    Manifest,
    decode_manifest,
    encode_manifest,
    is_version,
    new_version,
)

VERSION = "20261125T105812345678Z-3fa2"
NOW = datetime(2026, 11, 25, 10, 58, 12, 345678, UTC)
MANIFEST = Manifest(
    version=VERSION,
    created_at=NOW,
    data_as_of=None,
    algorithm={"name": "item-graph", "k": 50},
    counts={"restaurants": 3, "users": 2, "skipped": {"no-date": 1}},
    bytes={"users": 10, "metadata.zst": 0},
    checksums={"users": "ab" * 32, "metadata.zst": hashlib.sha256(b"").hexdigest()},
    metadata_version="0123456789abcdef",
    stages=[{"name": "extract", "seconds": 0.25}],
    peak_rss_mb=81.5,
    quality={"ndcg_at_20": 0.31},
)


def sealed(body: dict[str, Any], *, schema: object = 1) -> bytes:
    """A manifest whose checksum is right, whatever it says."""
    text = orjson.dumps(body)
    digest = hashlib.sha256(text).hexdigest()
    return f"tastematch-manifest {schema} {digest}\n".encode() + text


def test_a_manifest_reads_back() -> None:
    data = encode_manifest(MANIFEST)
    assert decode_manifest(data, version=VERSION) == MANIFEST
    head, _, body = data.partition(b"\n")
    assert head == b"tastematch-manifest 1 " + hashlib.sha256(body).hexdigest().encode()
    assert orjson.loads(body)["created_at"] == "2026-11-25T10:58:12.345678Z"


def test_instants_are_utc_whatever_zone_they_came_in() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    made = replace(MANIFEST, created_at=elsewhere, data_as_of=elsewhere)
    found = decode_manifest(encode_manifest(made), version=VERSION)
    assert found.created_at == found.data_as_of == NOW
    assert found.created_at.tzinfo is UTC


def test_a_manifest_of_another_version_is_refused() -> None:
    with pytest.raises(SnapshotDamaged, match="belongs to another"):
        decode_manifest(encode_manifest(MANIFEST), version=VERSION[:-1] + "0")


def test_every_flipped_bit_and_truncation_is_refused() -> None:
    whole = encode_manifest(MANIFEST)
    for place in range(len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            with pytest.raises((SnapshotDamaged, SnapshotUnsupported)):
                decode_manifest(bytes(data), version=VERSION)
        with pytest.raises(SnapshotDamaged):
            decode_manifest(whole[:place], version=VERSION)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SnapshotDamaged):
        decode_manifest(data, version=VERSION)


@pytest.mark.parametrize("schema", [0, 2, 999_999])
def test_another_schema_is_unsupported_not_damaged(schema: int) -> None:
    body = MANIFEST.as_dict() | {"schema": schema, "a field of the future": {}}
    with pytest.raises(SnapshotUnsupported, match=f"schema {schema}"):
        decode_manifest(sealed(body, schema=schema), version=VERSION)


def test_an_unknown_field_is_ignored() -> None:
    body = MANIFEST.as_dict() | {"field of a later release": [1]}
    assert decode_manifest(sealed(body), version=VERSION) == MANIFEST


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = sorted(MANIFEST.as_dict())
NEWER_FIELDS = {"held_because": [], "warnings": [], "changes_since": None, "job_id": None}
"""Fields that older releases do not write, and what their absence means."""


@given(field=st.sampled_from(FIELDS), value=JUNK)
def test_a_right_checksum_does_not_make_a_field_right(field: str, value: object) -> None:
    """Decoded into a manifest, or refused; nothing else."""
    body = MANIFEST.as_dict() | {field: value}
    try:
        found = decode_manifest(sealed(body), version=VERSION)
    except SnapshotDamaged:
        return
    assert found.version == VERSION
    assert found.bytes.keys() == found.checksums.keys()


@pytest.mark.parametrize("field", NEWER_FIELDS)
def test_a_manifest_of_an_older_release_is_read(field: str) -> None:
    body = MANIFEST.as_dict()
    del body[field]
    found = decode_manifest(sealed(body), version=VERSION)
    assert found.as_dict() == body | {field: NEWER_FIELDS[field]}


def test_reasons_and_warnings_read_back() -> None:
    held = replace(MANIFEST, held_because=["users fell", "restaurants fell"], warnings=["evicts"])
    assert decode_manifest(encode_manifest(held), version=VERSION) == held


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in NEWER_FIELDS])
def test_a_field_that_is_missing(field: str) -> None:
    body = MANIFEST.as_dict()
    del body[field]
    with pytest.raises(SnapshotDamaged):
        decode_manifest(sealed(body), version=VERSION)


@pytest.mark.parametrize(
    "changes",
    [
        {"bytes": {"users": 10}},
        {"bytes": {"users": -1, "metadata.zst": 0}},
        {"bytes": {"users": MAX_PART_BYTES + 1, "metadata.zst": 0}},
        {"bytes": {"users": True, "metadata.zst": 0}},
        {"bytes": {"users": 1.0, "metadata.zst": 0}},
        {"checksums": {"users": "AB" * 32, "metadata.zst": "ab" * 32}},
        {"checksums": {"users": "ab" * 31, "metadata.zst": "ab" * 32}},
        {"bytes": {"../users": 1}, "checksums": {"../users": "ab" * 32}},
        {"bytes": {"": 1}, "checksums": {"": "ab" * 32}},
        {"bytes": {".": 1}, "checksums": {".": "ab" * 32}},
        {"bytes": {"a/b": 1}, "checksums": {"a/b": "ab" * 32}},
        {"bytes": {"x" * 41: 1}, "checksums": {"x" * 41: "ab" * 32}},
        {"bytes": {"users\n": 1}, "checksums": {"users\n": "ab" * 32}},
        {"version": VERSION + "\n"},
        {"schema": 2},
        {"created_at": "2026-11-25"},
        {"bytes": None},
        {"stages": None},
        {"peak_rss_mb": "much"},
    ],
)
def test_what_no_manifest_says_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SnapshotDamaged):
        decode_manifest(sealed(MANIFEST.as_dict() | changes), version=VERSION)


def test_what_is_larger_than_any_manifest_is_not_looked_at() -> None:
    with pytest.raises(SnapshotDamaged, match="larger"):
        decode_manifest(encode_manifest(MANIFEST) + bytes(MAX_MANIFEST_BYTES), version=VERSION)


# --- versions ---------------------------------------------------------------------------------


def test_versions_sort_by_time() -> None:
    first = new_version(NOW, after=None)
    assert first.startswith("20261125T105812345678Z-")
    assert is_version(first)
    assert new_version(NOW + timedelta(microseconds=1), after=first) > first


SECONDS = st.integers(0, 4_000_000_000)


@given(SECONDS, SECONDS)
def test_a_version_sorts_after_its_predecessor_whatever_the_clock_says(
    before: int, now: int
) -> None:
    last = new_version(datetime.fromtimestamp(before, UTC), after=None)
    new = new_version(datetime.fromtimestamp(now, UTC), after=last)
    assert new > last
    assert is_version(new)


@pytest.mark.parametrize("last", ["20261125T235959999999Z-ffff", "20261125T999999999998Z-ffff"])
def test_the_last_moment_of_a_day_has_a_successor(last: str) -> None:
    new = new_version(NOW - timedelta(days=1), after=last)
    assert new > last
    assert is_version(new)


def test_versions_of_one_moment_differ() -> None:
    assert len({new_version(NOW, after=None) for _ in range(50)}) > 40


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        VERSION[:-1],
        VERSION + "0",
        VERSION.upper(),
        VERSION + "\n",
        " " + VERSION,
        VERSION.replace("2", "٢", 1),
        "../" + VERSION,
    ],
)
def test_what_is_no_version(text: str) -> None:
    assert not is_version(text)
