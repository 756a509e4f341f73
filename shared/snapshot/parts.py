"""Part files in a folder: their sizes and checksums, as a manifest states them."""

import hashlib
from pathlib import Path

READ_BYTES = 1024 * 1024


def describe_parts(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """(bytes, sha256 in hex) of every file in the folder, by name."""
    sizes: dict[str, int] = {}
    checksums: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        sizes[path.name] = path.stat().st_size
        checksums[path.name] = checksum(path)
    return sizes, checksums


def checksum(path: Path) -> str:
    """The sha256 of a file in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
