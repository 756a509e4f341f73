"""Bytes <-> the parts that filters read: what is known of each restaurant beside its city.

Specified in docs/snapshot-format.md. Younger than schema 1: a snapshot may lack both parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from shared.errors import SnapshotDamaged
from shared.snapshot.names import decode_names, encode_names
from shared.snapshot.sections import cut_sections, length_of, write_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

KIND_ATTRIBUTES = 9

NO_CUISINE = 0


def write_attributes(
    file: BinaryIO,
    *,
    cuisines: Buffer,
    price_ranges: Buffer,
    latitudes: Buffer,
    longitudes: Buffer,
    by_latitude: Buffer,
    width: int,
) -> None:
    """Columns by ordinal, shape (n,): cuisines uint32 codes, price_ranges uint8, degrees float32.

    What is unknown is 0, in degrees NaN. by_latitude: all n ordinals of `width` bytes, from south
    to north, those without a place last.
    """
    count = length_of(price_ranges, 1)
    assert length_of(cuisines, 4) == length_of(latitudes, 4) == length_of(longitudes, 4) == count
    assert length_of(by_latitude, width) == count
    write_part(
        file,
        KIND_ATTRIBUTES,
        count,
        width,
        cuisines,
        price_ranges,
        latitudes,
        longitudes,
        by_latitude,
    )


def encode_cuisines(names: Sequence[str | None]) -> bytes:
    """The part `cuisines`: what restaurants of each code have, `|`-separated; code 0 is none."""
    return encode_names(names)


def decode_cuisines(data: bytes) -> list[str | None]:
    """Raises SnapshotDamaged."""
    return decode_names(data, part="cuisines")


class Attributes:
    """The columns of `write_attributes`, mapped."""

    def __init__(self, part: memoryview, *, width: int) -> None:
        """width: bytes of an ordinal, as the part `restaurants` states them."""
        columns = ((4, 0), (1, 0), (4, 0), (4, 0), (width, 0))
        header, sections = cut_sections(part, KIND_ATTRIBUTES, *columns)
        if header.width != width:
            raise SnapshotDamaged("the parts disagree about the width of an ordinal")
        cuisines, price_ranges, latitudes, longitudes, by_latitude = sections
        self.count = header.count
        self.cuisines = cuisines.cast("I")
        self.price_ranges = price_ranges
        self.latitudes = latitudes.cast("f")
        self.longitudes = longitudes.cast("f")
        self.by_latitude = by_latitude.cast("H" if width == 2 else "I")
