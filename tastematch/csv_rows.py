"""Splits the bytes of a CSV file (RFC 4180) into rows of text, one after another.

The reader never loses a line: each physical line belongs to a row that is yielded or to one that
is reported as `Malformed`. That is why the standard `csv` module is not used: there an unclosed
quote silently swallows what follows, up to the end of the file. What columns mean is decided in
`dataset`.

Memory is bounded by `BLOCK_BYTES`, `MAX_ROW_CHARS` and `MAX_LINE_BYTES`, whatever the file holds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK_BYTES = 256 * 1024
MAX_ROW_CHARS = 1024 * 1024
MAX_ROW_LINES = 100
# A line within MAX_ROW_CHARS fits, as UTF-8 needs at most 4 bytes for a character.
MAX_LINE_BYTES = 4 * MAX_ROW_CHARS

_BOM = "\ufeff"
# Possessive: no backtracking, so long fields cost neither memory nor time squared.
_QUOTED = re.compile(r'[^"]*+(?:""[^"]*+)*+')
_BARE = re.compile(r'[^,"\r]*+')
# How the decoder marks bytes that are not UTF-8.
_UNDECODABLE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that cannot be split into as many fields as the header has."""

    reason: str


def read_csv_rows(
    stream: BinaryIO, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, list[str] | Malformed]]:
    """Yields (line number, fields) of each row, the header first; empty lines are left out.

    Lines end with LF or CRLF and are counted from 1; a row has the number of the line where it
    starts. A row that differs from the header in its number of fields is `Malformed`. After a
    malformed row the reader goes on with the next physical line. A byte-order mark is dropped.
    Errors of the stream pass through. The result does not depend on `block_bytes`.
    """
    width = 0
    number = 0
    pending: list[str] = []
    is_pending_valid = True
    for text, is_valid, is_last in _texts(stream, block_bytes):
        plain = None if pending or not is_valid or not width else _plain(text)
        if plain is not None:
            for line in plain.split("\n"):
                number += 1
                fields = line.split(",")
                if len(fields) == width and line:
                    yield number, fields
                elif line:
                    yield number, _wrong_width(fields, width)
            continue
        lines = pending + text.split("\n")
        has_only_valid = is_valid and is_pending_valid
        pending = []
        at = 0
        while at < len(lines):
            line = lines[at]
            if not line or line == "\r":
                number += 1
                at += 1
                continue
            row, used = _split(lines, at, width=width, is_last=is_last)
            if not used:
                pending = lines[at:]
                break
            # A line that was cut may end in half a character.
            if not has_only_valid and len(line) <= MAX_ROW_CHARS:
                row = _refuse_undecodable(row, lines[at : at + used])
            yield number + 1, row
            if not width and not isinstance(row, Malformed):
                width = len(row)
            number += used
            at += used
        is_pending_valid = has_only_valid or not pending


def _texts(stream: BinaryIO, block_bytes: int) -> Iterator[tuple[str, bool, bool]]:
    """Yields (whole lines without the final LF, is it all UTF-8, is it the end of the file).

    A line over MAX_LINE_BYTES is cut there; it stays longer than a row may be.
    """
    carried = b""
    is_first = True
    while block := stream.read(block_bytes):
        end = block.rfind(b"\n")
        if end < 0:
            carried = (carried + block)[: MAX_LINE_BYTES + 1]
            continue
        text, is_valid = _decode(carried + block[:end])
        carried = block[end + 1 :]
        yield (text.removeprefix(_BOM) if is_first else text), is_valid, False
        is_first = False
    # The last text is also given when it is empty: rows may wait for it.
    text, is_valid = _decode(carried)
    yield (text.removeprefix(_BOM) if is_first else text), is_valid, True


def _decode(data: bytes) -> tuple[str, bool]:
    try:
        return data.decode(), True
    except UnicodeDecodeError:
        return data.decode(errors="surrogateescape"), False


def _plain(text: str) -> str | None:
    """The text with LF line ends if each of its lines can be split at commas, else None."""
    if '"' in text:
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n").removesuffix("\r")
        if "\r" in text:
            return None
    return text if len(text) <= MAX_ROW_CHARS else None


def _split(
    lines: list[str], at: int, *, width: int, is_last: bool
) -> tuple[list[str] | Malformed, int]:
    """Splits the row that starts at `lines[at]`.

    Returns it and the number of lines it takes: 1 for a malformed one, so that nothing after it
    is lost, and 0 if its end lies behind `lines`. `width` 0 allows any number of fields.
    """
    line = lines[at]
    used = 1
    if len(line) > MAX_ROW_CHARS:
        return Malformed(f"the line is longer than {MAX_ROW_CHARS:,} characters"), 1
    if '"' not in line:
        line = line.removesuffix("\r")
        if "\r" in line:
            return Malformed(
                "a carriage return stands outside quotes (lines end with LF or CRLF)"
            ), 1
        fields = line.split(",")
    else:
        simple = _split_simply_quoted(line)
        if simple is None:
            split, used = _split_quoted(lines, at, is_last=is_last)
            if isinstance(split, Malformed):
                return split, used
            fields = split
        else:
            fields = simple
    if used and width and len(fields) != width:
        return _wrong_width(fields, width), 1
    return fields, used


def _split_simply_quoted(line: str) -> list[str] | None:
    """Splits a row of one line whose quoted fields hold no quote; None for any other."""
    parts = line.split('"')
    if len(parts) % 2 == 0:
        return None
    # Every second part stands between quotes: with a lone quote in its place, no comma misleads.
    outside = '"'.join(parts[::2]).removesuffix("\r")
    fields = outside.split(",")
    if "\r" in outside or outside.count('"') != fields.count('"'):
        return None
    quoted = iter(parts[1::2])
    return [next(quoted) if field == '"' else field for field in fields]


def _split_quoted(lines: list[str], at: int, *, is_last: bool) -> tuple[list[str] | Malformed, int]:
    """As `_split`, for a row with quotes, field after field."""
    fields = []
    here = at
    line = lines[here]
    room = MAX_ROW_CHARS - len(line)
    position = 0
    while True:
        if line.startswith('"', position):
            opened = here
            start = position + 1
            pieces = []
            while True:
                matched = _QUOTED.match(line, start)
                assert matched is not None, "the pattern matches the empty text"
                position = matched.end()
                if position < len(line):
                    break
                pieces.append(line[start:] + "\n")
                here += 1
                if here == len(lines) and not is_last:
                    return [], 0
                if here == len(lines) or here - at == MAX_ROW_LINES or len(lines[here]) >= room:
                    return Malformed(_unclosed(at, opened)), 1
                line = lines[here]
                room -= len(line) + 1
                start = 0
            pieces.append(line[start:position])
            fields.append("".join(pieces).replace('""', '"'))
            position += 1
        else:
            matched = _BARE.match(line, position)
            assert matched is not None, "the pattern matches the empty text"
            fields.append(matched[0])
            position = matched.end()
        if position == len(line) or (position == len(line) - 1 and line[position] == "\r"):
            return fields, here - at + 1
        if line[position] != ",":
            return Malformed(_stray(line, position, lines_down=here - at)), 1
        position += 1


def _unclosed(at: int, opened: int) -> str:
    where = "in this line" if opened == at else f"{opened - at} lines further down"
    return (
        f"the quote opened {where} is not closed within {MAX_ROW_LINES} lines "
        f"and {MAX_ROW_CHARS:,} characters"
    )


def _stray(line: str, position: int, *, lines_down: int) -> str:
    if lines_down:
        return (
            f"a quote opened in this line ends, {lines_down} lines further down, "
            "where no field ends; is its closing quote missing?"
        )
    if line[position] == "\r":
        return "a carriage return stands outside quotes (lines end with LF or CRLF)"
    if line[position] == '"':
        return "a quote stands inside a field without quotes (quote the field, double the quote)"
    return "text follows the closing quote of a field (quotes inside a field are doubled)"


def _wrong_width(fields: list[str], width: int) -> Malformed:
    plural = "" if len(fields) == 1 else "s"
    return Malformed(f"has {len(fields)} field{plural}, the header has {width}")


def _refuse_undecodable(row: list[str] | Malformed, lines: list[str]) -> list[str] | Malformed:
    for line in lines:
        found = _UNDECODABLE.search(line)
        if found is not None:
            byte = ord(found[0]) - 0xDC00
            likely = "UTF-16" if byte >= 0xFE else "Latin-1 or Windows-1252"
            return Malformed(
                f"is not UTF-8 (byte 0x{byte:02X}); if the file is in {likely}, save it as UTF-8"
            )
    return row
