"""Restaurants -> the metadata projection: one JSON document, its index, its compressed forms.

The document is written as rows arrive and compressed once, here, so that the API never compresses.
`version` is a hash of the restaurants alone: equal content has an equal version, whenever it was
computed.
"""

import gzip
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from shared.snapshot.format import write_metadata_index
from shared.snapshot.metadata_document import (
    TAIL,
    VERSION_HEX_DIGITS,
    ContentHash,
    document_head,
)
from worker.extract import RestaurantRow

# Above this size the strongest brotli level costs more seconds than its bytes are worth.
STRONG_BROTLI_BYTES = 4 * 1024**2
READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Projection:
    """`version` is the content hash; `restaurants` how many are shown."""

    version: str
    restaurants: int


def write_metadata(rows: Iterable[RestaurantRow], folder: Path) -> Projection:
    """Writes the parts `metadata` and `metadata_index` of the active rows, ascending by id."""
    content = ContentHash()
    offsets = array("I")
    with (folder / "metadata").open("wb") as file:
        file.write(document_head("0" * VERSION_HEX_DIGITS))
        at = file.tell()
        separator = b""
        for row in rows:
            if not row.is_active:
                continue
            item = orjson.dumps(_shown(row))
            file.write(separator)
            at += len(separator)
            separator = b","
            offsets.append(at)
            file.write(item)
            content.add(item)
            at += len(item)
        offsets.append(at + 1)
        file.write(TAIL)
        file.seek(0)
        file.write(document_head(content.version))
    with (folder / "metadata_index").open("wb") as file:
        write_metadata_index(file, offsets=offsets)
    return Projection(content.version, len(offsets) - 1)


def compress_metadata(folder: Path) -> Iterator[str]:
    """Writes `metadata.gz`, `metadata.br`, `metadata.zst`; yields each name when it is done."""
    source = folder / "metadata"
    with (
        source.open("rb") as read,
        (folder / "metadata.gz").open("wb") as raw,
        # No time stamp and no name inside: equal metadata has equal bytes.
        gzip.GzipFile("", "wb", zlib.Z_BEST_COMPRESSION, raw, mtime=0) as packed,
    ):
        for piece in _pieces(read):
            packed.write(piece)
    yield "metadata.gz"
    _compress_brotli(source, folder / "metadata.br")
    yield "metadata.br"
    _compress_zstd(source, folder / "metadata.zst")
    yield "metadata.zst"


def _shown(row: RestaurantRow) -> dict[str, object]:
    return {
        "id": row.id,
        "name": row.name,
        "cuisine_type": row.cuisine_type,
        "rating": row.rating,
        "price_range": row.price_range,
        "city": row.city,
        "image_url": row.image_url,
    }


def _compress_brotli(source: Path, target: Path) -> None:
    import brotli

    is_small = source.stat().st_size <= STRONG_BROTLI_BYTES
    compressor = brotli.Compressor(
        mode=brotli.MODE_TEXT, quality=10 if is_small else 6, lgwin=17 if is_small else 18
    )
    with source.open("rb") as read, target.open("wb") as write:
        for piece in _pieces(read):
            write.write(compressor.process(piece))
        write.write(compressor.finish())


def _compress_zstd(source: Path, target: Path) -> None:
    import zstandard

    size = source.stat().st_size
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19 if size <= STRONG_BROTLI_BYTES else 12, window_log=18, write_checksum=True
    )
    with source.open("rb") as read, target.open("wb") as write:
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        compressor.copy_stream(read, write, size=size, read_size=READ_BYTES)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(READ_BYTES):
        yield piece
