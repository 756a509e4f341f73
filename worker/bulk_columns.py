"""Whole numbers out of a database as NumPy columns: no row becomes an object of SQLAlchemy.

PostgreSQL sends them by binary COPY, SQLite as tuples of its driver. Both read within the
connection's transaction, a block at a time, so the connection is free between two blocks.
"""

import io
import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

_SIGNATURE = b"PGCOPY\n\xff\r\n\x00"
_HEAD_BYTES = len(_SIGNATURE) + 8
_TRAILER = b"\xff\xff"
_VALUE_BYTES = 8


def copied(
    connection: Connection, query: str, *, columns: int, **values: object
) -> NDArray[np.int64]:
    """What `query` selects from PostgreSQL, shape (columns, n), with `values` for its %(names)s.

    Every column is 64 bits wide and never NULL: `bigint`, or `timestamptz`, which is microseconds
    since 2000. Holds some 70 bytes a row meanwhile. Raises DBAPIError.
    """
    data = io.BytesIO()
    with _driver_errors(connection, query), _raw(connection).cursor() as cursor:
        whole = f"COPY ({query}) TO STDOUT (FORMAT binary)"
        cursor.copy_expert(cursor.mogrify(whole, values) if values else whole, data)
    row = np.dtype([("fields", ">i2"), ("cells", [("bytes", ">i4"), ("value", ">i8")], (columns,))])
    body = data.getbuffer()[_HEAD_BYTES : -len(_TRAILER)]
    assert len(body) % row.itemsize == 0, "every row has all columns, of 64 bits each"
    rows = np.frombuffer(body, row)
    assert (rows["cells"]["bytes"] == _VALUE_BYTES).all(), "no value is missing"
    found = np.empty((columns, len(rows)), np.int64)
    found[:] = rows["cells"]["value"].T
    return found


def fetched(
    connection: Connection, query: str, *, columns: int, block_rows: int
) -> Iterator[NDArray[np.int64]]:
    """Blocks of shape (columns, n) of what `query` selects from SQLite: integers, none NULL.

    Raises DBAPIError.
    """
    with closing(_raw(connection).cursor()) as cursor:
        with _driver_errors(connection, query):
            cursor.execute(query)
        while True:
            with _driver_errors(connection, query):
                rows = cursor.fetchmany(block_rows)
            if not rows:
                return
            flat = itertools.chain.from_iterable(rows)
            block = np.fromiter(flat, np.int64, columns * len(rows)).reshape(-1, columns)
            yield np.ascontiguousarray(block.T)


@contextmanager
def _driver_errors(connection: Connection, statement: str) -> Iterator[None]:
    """What SQLAlchemy does at an error, for cursors that are the driver's own."""
    dialect = connection.dialect
    driver: Any = dialect.loaded_dbapi
    try:
        yield
    except driver.Error as error:
        is_disconnect = dialect.is_disconnect(error, _raw(connection), None)
        if is_disconnect:
            connection.invalidate(error)
        raise DBAPIError.instance(
            statement,
            None,
            error,
            driver.Error,
            dialect=dialect,
            connection_invalidated=is_disconnect,
        ) from error


def _raw(connection: Connection) -> Any:
    return connection.connection.dbapi_connection
