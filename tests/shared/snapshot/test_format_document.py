"""The examples of docs/snapshot-format.md are what the code writes, and the code reads them."""

from __future__ import annotations

import hashlib
import re
from array import array
from io import BytesIO
from pathlib import Path

import pytest

from shared.snapshot import export_file, overlay
from shared.snapshot import format as parts
from shared.snapshot.disk_store import DiskStore
from shared.snapshot.format import SOURCE_NONE, SOURCE_PERSONAL, UserEntry
from shared.snapshot.layout import Keys, decode_pointer, encode_pointer
from shared.snapshot.manifest import Manifest, decode_manifest, encode_manifest
from shared.snapshot.redis_overlay import OverlayKeys
from shared.snapshot.store import CHUNK_BYTES, Pointer

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "snapshot-format.md").read_text()
VERSION = "20261125T105812345678Z-3fa2"
CITIES = [None, "Oaxaca", "Osaka"]


def from_hex(block: str) -> bytes:
    data = b""
    for line in block.splitlines():
        match = re.fullmatch(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} ){7}[0-9a-f]{2})   .+", line)
        assert match is not None, line
        assert int(match[1], 16) == len(data)
        data += bytes.fromhex(match[2])
    return data


def examples() -> dict[str, bytes]:
    """The parts that the document shows, from its hexadecimal blocks."""
    blocks = re.findall(r"^`(\w+)`:\n\n```hex\n(.*?)^```", DOCUMENT, re.M | re.S)
    return {name: from_hex(block) for name, block in blocks}


def example(language: str) -> bytes:
    (block,) = re.findall(rf"^```{language}\n(.*?)\n```", DOCUMENT, re.M | re.S)
    return block.encode()


@pytest.fixture(scope="module")
def shown() -> dict[str, bytes]:
    return examples()


def test_the_examples_say_what_the_text_says(shown: dict[str, bytes], tmp_path: Path) -> None:
    assert sorted(shown) == ["lists", "popular", "restaurants", "users"]
    restaurants = parts.Restaurants(memoryview(shown["restaurants"]))
    users = parts.Users(memoryview(shown["users"]))
    (tmp_path / "lists").write_bytes(shown["lists"])
    lists = parts.Lists(tmp_path / "lists")
    popular = parts.Ragged(memoryview(shown["popular"]), kind=parts.KIND_POPULAR)

    def ids(ordinals: object) -> list[int]:
        return [restaurants.ids[ordinal] for ordinal in ordinals]  # type: ignore[attr-defined]

    assert list(restaurants.ids) == [11, 25, 40]
    assert [CITIES[code] for code in restaurants.cities] == ["Oaxaca", None, "Osaka"]
    seven, nine = users.find(7), users.find(9)
    assert seven == UserEntry(0, 6, CITIES.index("Osaka"), SOURCE_PERSONAL)
    assert nine == UserEntry(6, 8, CITIES.index("Oaxaca"), SOURCE_NONE)
    assert [ids(row) for row in lists.read(seven)] == [[40, 11], [11], [40]]
    assert [ids(row) for row in lists.read(nine)] == [[], [], []]
    assert [ids(popular.row(row)) for row in range(3)] == [[11, 40, 25], [11], [40]]


def test_the_examples_are_what_is_written(shown: dict[str, bytes]) -> None:
    lists, restaurants, users, popular = BytesIO(), BytesIO(), BytesIO(), BytesIO()
    writer = parts.ListsWriter(lists, users=2, width=2)
    packed = [array("H", row).tobytes() for row in ([2, 0], [0], [2])]
    offsets = array("I", [0, writer.append(*packed), writer.append(b"", b"", b"")])
    parts.write_restaurants(restaurants, ids=array("q", [11, 25, 40]), cities=array("H", [1, 0, 2]))
    parts.write_users(
        users,
        ids=array("q", [7, 9]),
        offsets=offsets,
        cities=array("H", [2, 1]),
        sources=array("B", [SOURCE_PERSONAL, SOURCE_NONE]),
    )
    parts.write_ragged(
        popular,
        kind=parts.KIND_POPULAR,
        offsets=array("I", [0, 3, 4, 5]),
        ordinals=array("H", [0, 2, 1, 0, 2]),
        width=2,
    )
    written = {"lists": lists, "restaurants": restaurants, "users": users, "popular": popular}
    assert {name: file.getvalue() for name, file in written.items()} == shown


def test_the_manifest_is_that_of_the_examples(shown: dict[str, bytes]) -> None:
    text = example("manifest")
    manifest = decode_manifest(text, version=VERSION)
    assert encode_manifest(manifest) == text
    assert manifest.bytes == {name: len(data) for name, data in shown.items()}
    assert manifest.checksums == {
        name: hashlib.sha256(data).hexdigest() for name, data in shown.items()
    }


def test_the_file_of_an_export_is_as_the_text_says(shown: dict[str, bytes], tmp_path: Path) -> None:
    manifest = decode_manifest(example("manifest"), version=VERSION)
    for name, data in shown.items():
        (tmp_path / name).write_bytes(data)
    store = DiskStore(tmp_path / "store", namespace="NS")
    store.publish(
        manifest,
        {name: tmp_path / name for name in shown},
        expected_generation=0,
        activate=True,
    )
    file = BytesIO()
    export_file.write_export(file, store, manifest, on_progress=lambda done: None)
    store.close()

    line, written = example("export") + b"\n", file.getvalue()
    assert written == line + example("manifest") + b"".join(shown[name] for name in sorted(shown))
    assert f"its file has {len(written):,} bytes" in DOCUMENT
    file.seek(0)
    assert export_file.read_manifest(file) == manifest
    assert dict(export_file.read_parts(file, manifest)) == shown


def test_every_field_of_a_manifest_is_described() -> None:
    manifest: Manifest = decode_manifest(example("manifest"), version=VERSION)
    section = DOCUMENT.split("\n## Manifest\n")[1].split("\n## ")[0]
    for field in manifest.as_dict():
        assert f"`{field}`" in section


def test_the_pointer_reads_and_is_written_so() -> None:
    pointer = Pointer(VERSION, 7, is_pinned=False)
    assert decode_pointer(example("pointer")) == pointer
    assert encode_pointer(pointer) == example("pointer")


def test_the_keys_are_those_in_use() -> None:
    keys = Keys("NS")
    named = {
        keys.pointer,
        keys.versions,
        keys.manifest("VERSION"),
        keys.candidate("VERSION"),
        keys.chunk("VERSION", "PART", 0).replace(":0", ":N"),
    }
    of_overlay = OverlayKeys("NS")
    named |= {of_overlay.logs, of_overlay.places("LOG"), of_overlay.records("LOG")}
    assert set(re.findall(r"^\| `(NS:[^`]+)`", DOCUMENT, re.M)) == named
    assert keys.record("VERSION").removeprefix("NS:snapshot:") == "versions:VERSION"
    assert CHUNK_BYTES == 512 * 1024
    assert "512 KiB" in DOCUMENT


def test_the_record_of_the_overlay_reads_and_is_written_so() -> None:
    shown = from_hex(example("sealed").decode())
    user = overlay.decode_refreshed(overlay.unseal("u7", shown))
    assert (user.revision, user.source, CITIES[user.city]) == (5, SOURCE_PERSONAL, "Osaka")
    assert [list(row) for row in user.lists] == [[0, 2], [], [0, 2]]
    assert overlay.seal("u7", overlay.encode_refreshed(user, width=2)) == shown


def test_the_exclusions_are_written_as_the_document_says() -> None:
    section = DOCUMENT.split("\n## Overlay\n")[1].split("\n## ")[0]
    hidden = overlay.UserExclusion(
        7, is_erased=False, hidden=frozenset([40, 11]), erased_at=1764097200
    )
    closed = overlay.RestaurantExclusion(7)
    forms = {
        overlay.encode_exclusion(hidden): "[11,40]",
        overlay.encode_exclusion(closed): "",
    }
    for record, ids in forms.items():
        text = record.decode().replace(":7", ":R").replace(ids or "?", "[ids, ascending]")
        text = text.replace('"erased_at":1764097200', '"erased_at":S')
        assert f"`{text}`" in section
    assert overlay.decode_user_exclusion(overlay.encode_exclusion(hidden)) == hidden
    assert overlay.decode_restaurant_exclusion(overlay.encode_exclusion(closed)) == closed
    nothing = overlay.UserExclusion(7, is_erased=False, hidden=frozenset())
    assert overlay.decode_user_exclusion(overlay.encode_exclusion(nothing)) == nothing
    older = b'{"form":1,"revision":7,"erased":false,"hidden":[]}'
    assert overlay.decode_user_exclusion(older) == nothing
    assert overlay.EXCLUSIONS == "exclusions"
