"""Reads a data set folder (docs/dataset-format.md) row by row into typed rows and bad rows.

Each row is checked by itself; what needs other rows or the database (the same id twice, orders of
unknown users and restaurants) is for the import. Nothing is kept in memory but the block being
read. Problems of a whole file raise `DatasetError`, those of one row become a `BadRow`.
"""

import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Generic, NamedTuple, cast

from shared.columns import Parser
from shared.errors import DatasetError
from shared.parsing import MAX_JAVASCRIPT_ID, ParseError, shown
from tastematch.csv_rows import Malformed, read_csv_rows
from tastematch.dataset_rows import (
    OrderRow,
    RestaurantRow,
    Row,
    TableForm,
    UserRow,
    orders_form,
    restaurants_form,
    users_form,
)

MAX_SHOWN_COLUMNS = 20
GZIP_MAGIC = b"\x1f\x8b"


class BadRow(NamedTuple):
    """A row that is left out; `line` (from 1) is where it starts, `reason` is one line."""

    file: str
    line: int
    reason: str


class Table(Generic[Row]):
    """One file of the folder. Iterating reads it from its start and counts anew.

    Iterating raises DatasetError where the file cannot be read on (damaged or cut-off gzip data);
    the rows before that place have been yielded by then.
    """

    def __init__(self, path: Path, form: TableForm[Row]) -> None:
        """Reads the header. Raises DatasetError for a file that cannot be imported as it is."""
        self.path = path
        self.file = path.name
        self.size_bytes = 0
        self.rows_read = 0
        # Rows whose own id is above 2^53 - 1, which clients in JavaScript cannot hold.
        self.large_ids = 0
        self._form = form
        self._raw: BinaryIO | None = None
        with self._rows() as rows:
            self._header = _header(self.file, next(rows, None), form.required)
        self.unknown_columns = tuple(
            name for name in self._header if name and name not in form.parsers
        )

    @property
    def bytes_read(self) -> int:
        """Bytes of the file read so far (compressed ones of a gzip file), up to `size_bytes`."""
        if self._raw is None:
            return self.size_bytes if self.rows_read else 0
        return self._raw.tell()

    def __iter__(self) -> Iterator[Row | BadRow]:
        self.rows_read = 0
        self.large_ids = 0
        columns = tuple(self._form.parsers)
        parsers = tuple(self._form.parsers.values())
        pick = _picker(self._header, columns)
        make = cast(Callable[[Iterable[object]], Row], self._form.row_type._make)
        with self._rows() as rows:
            next(rows, None)
            for line, fields in rows:
                self.rows_read += 1
                if isinstance(fields, Malformed):
                    yield BadRow(self.file, line, fields.reason)
                    continue
                texts = pick(fields)
                try:
                    values = [parse(text) for parse, text in zip(parsers, texts, strict=True)]
                except ParseError:
                    yield BadRow(self.file, line, _reason(columns, parsers, texts))
                    continue
                if cast(int, values[0]) > MAX_JAVASCRIPT_ID:
                    self.large_ids += 1
                values.append(line)
                yield make(values)

    @contextmanager
    def _rows(self) -> Iterator[Iterator[tuple[int, list[str] | Malformed]]]:
        is_gzip = self.path.suffix == ".gz"
        try:
            with self.path.open("rb") as raw:
                self.size_bytes = os.fstat(raw.fileno()).st_size
                self._raw = raw
                if not is_gzip and raw.peek(2).startswith(GZIP_MAGIC):
                    raise DatasetError(f"{self.file} holds gzip data; name it {self.file}.gz")
                with gzip.GzipFile(fileobj=raw) if is_gzip else raw as stream:
                    yield read_csv_rows(cast(BinaryIO, stream))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DatasetError(
                f"{self.file}: the gzip data is damaged or cut off "
                f"after {self.rows_read:,} rows ({error})"
            ) from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DatasetError(f"{self.file} cannot be read: {reason}") from error
        finally:
            self._raw = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The files of a folder that exist, in the order in which they refer to one another."""

    restaurants: Table[RestaurantRow] | None
    users: Table[UserRow] | None
    orders: Table[OrderRow] | None

    def notices(self) -> list[str]:
        """One line for each file with columns that the import leaves out."""
        tables = (self.restaurants, self.users, self.orders)
        return [
            f"{table.file}: unknown columns are left out: "
            + ", ".join(shown(name) for name in table.unknown_columns[:MAX_SHOWN_COLUMNS])
            for table in tables
            if table is not None and table.unknown_columns
        ]


def open_dataset(folder: Path, *, now: datetime) -> Dataset:
    """Opens the files of the folder and reads their headers.

    `now` (with its offset) is what "in the future" is measured from. Raises DatasetError when
    there is no such folder or no file in it, a file is there in both forms, or one cannot be read,
    lacks a required column or names one twice.
    """
    assert now.tzinfo is not None, "instants carry their offset"
    try:
        present = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        raise DatasetError(f"there is no folder {folder}") from None
    except NotADirectoryError:
        raise DatasetError(f"{folder} is not a folder") from None
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}") from error
    restaurants = _find(folder, present, "restaurants")
    users = _find(folder, present, "users")
    orders = _find(folder, present, "orders")
    if restaurants is None and users is None and orders is None:
        raise DatasetError(
            f"{folder} holds none of restaurants.csv, users.csv and orders.csv (or .csv.gz)"
        )
    return Dataset(
        restaurants=None if restaurants is None else Table(restaurants, restaurants_form()),
        users=None if users is None else Table(users, users_form()),
        orders=None if orders is None else Table(orders, orders_form(now=now)),
    )


def _find(folder: Path, present: set[str], table: str) -> Path | None:
    found = [name for name in (f"{table}.csv", f"{table}.csv.gz") if name in present]
    if len(found) > 1:
        raise DatasetError(f"{folder} holds both {found[0]} and {found[1]}; remove one of them")
    return folder / found[0] if found else None


def _header(
    file: str, first: tuple[int, list[str] | Malformed] | None, required: tuple[str, ...]
) -> list[str]:
    """The columns' names, trimmed and in lower case."""
    if first is None:
        raise DatasetError(f"{file} is empty; its first line must name the columns")
    line, fields = first
    if isinstance(fields, Malformed):
        raise DatasetError(f"{file}, line {line} (the header): {fields.reason}")
    names = [field.strip().lower() for field in fields]
    missing = [name for name in required if name not in names]
    if missing:
        hint = ""
        for separator, plural in ((";", "semicolons"), ("\t", "tabs")):
            if len(names) == 1 and separator in names[0]:
                hint = f"; its fields seem to be separated by {plural}, not by commas"
        raise DatasetError(
            f"{file}: the header {shown(','.join(fields))} lacks {', '.join(missing)}{hint}"
        )
    for name in names:
        if name and names.count(name) > 1:
            raise DatasetError(f"{file}: the header names {shown(name)} twice")
    return names


def _picker(header: list[str], columns: tuple[str, ...]) -> Callable[[list[str]], Sequence[str]]:
    """Returns what puts a row's fields into the order of `columns`, empty where there is none."""
    if header == list(columns):
        return lambda fields: fields
    pick = itemgetter(*(header.index(name) if name in header else -1 for name in columns))
    return lambda fields: pick([*fields, ""])


def _reason(columns: tuple[str, ...], parsers: tuple[Parser, ...], texts: Sequence[str]) -> str:
    for column, parse, text in zip(columns, parsers, texts, strict=True):
        try:
            parse(text)
        except ParseError as error:
            return f"{column} {error.reason}"
    raise AssertionError("a parser refuses a text once and accepts it later")
