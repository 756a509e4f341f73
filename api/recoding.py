"""The metadata coded anew in this process, where restaurants closed since the snapshot was made.

What a snapshot brings was coded by the worker with all the time in the world; here a fraction of a
second must do. The coders are loaded when they are first needed. One that is not installed is done
without: its clients get another coding.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

PIECE_BYTES = 256 * 1024

_ZSTD_LEVEL = 3
_BROTLI_QUALITY = 5
_GZIP_LEVEL = 6
_WINDOW_LOG = 18  # as the worker's: what a client needs of memory
_GZIP_WINDOW = 31


def recoded(document: memoryview, coding: bytes) -> bytes | None:
    """The document in `zstd`, `br` or `gzip`; None where this installation lacks the coder."""
    try:
        return _CODERS[coding](document)
    except ImportError:
        return None


def _zstd(document: memoryview) -> bytes:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(
        _ZSTD_LEVEL, window_log=_WINDOW_LOG, write_checksum=True
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    chunker = compressor.compressobj(size=document.nbytes)
    return b"".join([*map(chunker.compress, _pieces(document)), chunker.flush()])


def _brotli(document: memoryview) -> bytes:
    import brotli

    compressor = brotli.Compressor(
        mode=brotli.MODE_TEXT, quality=_BROTLI_QUALITY, lgwin=_WINDOW_LOG
    )
    return b"".join([*map(compressor.process, _pieces(document)), compressor.finish()])


def _gzip(document: memoryview) -> bytes:
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return b"".join([*map(compressor.compress, _pieces(document)), compressor.flush()])


_CODERS: dict[bytes, Callable[[memoryview], bytes]] = {
    b"zstd": _zstd,
    b"br": _brotli,
    b"gzip": _gzip,
}


def _pieces(document: memoryview) -> Iterator[bytes]:
    for start in range(0, document.nbytes, PIECE_BYTES):
        yield bytes(document[start : start + PIECE_BYTES])
