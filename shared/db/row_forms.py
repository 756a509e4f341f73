"""Rows in the forms that drivers take in bulk: tuples for sqlite3, COPY text for psycopg2.

What a row holds is not known here: ids, texts, numbers, booleans, instants in UTC, or None.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

LINES_A_READ = 1000

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def sqlite_rows(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Instants become the text that the models read back, amounts floats."""
    return [
        tuple(
            [
                value.isoformat(" ", "microseconds")[:26]
                if (kind := type(value)) is datetime
                else float(value)
                if kind is Decimal
                else value
                for value in row
            ]
        )
        for row in rows
    ]


class CopyText:
    """A file-like view of rows in PostgreSQL's COPY text form, made as it is read."""

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._rows = iter(rows)

    def read(self, _size: int = -1) -> str:
        """Returns the next whole lines whatever the size, and an empty text at the end."""
        lines = []
        for row in self._rows:
            lines.append(_copy_line(row))
            if len(lines) == LINES_A_READ:
                break
        return "".join(lines)


def _copy_line(row: tuple[Any, ...]) -> str:
    fields = [
        "\\N" if value is None else value.translate(_ESCAPES) if type(value) is str else str(value)
        for value in row
    ]
    return "\t".join(fields) + "\n"
