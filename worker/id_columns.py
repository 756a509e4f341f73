"""Users and orders as columns of whole numbers, in the way that each database gives them fastest.

Nothing is left out or counted here: a value that is missing has a number that stands for it.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select, text

from shared.db.models import Order, User
from worker.bulk_columns import copied, fetched

NO_ID = -1
_POSTGRES_EPOCH = 946_684_800
NO_DATE = -(1 << 63) // 1_000_000 + _POSTGRES_EPOCH
"""The second of PostgreSQL's `-infinity`."""

_ROWS_A_PAGE = 50
"""Half of what is in a page where few columns are set, a quarter of what there could be."""
_PAGES = text(
    """
    SELECT pg_relation_size(oid) / current_setting('block_size')::bigint
    FROM pg_class WHERE oid = to_regclass('orders') AND relkind = 'r'
    AND current_setting('server_version_num')::integer >= 140000
    """
)
_ORDERS = """
    SELECT coalesce(user_id, -1)::bigint, coalesce(restaurant_id, -1)::bigint,
    coalesce(order_date, '-infinity')::timestamptz
"""
_SQLITE_ORDERS = f"""
    SELECT coalesce(user_id, {NO_ID}), coalesce(restaurant_id, {NO_ID}),
    coalesce(CAST(strftime('%s', order_date) AS INTEGER), {NO_DATE}) FROM orders
"""  # noqa: S608
_USERS = """
    SELECT block.id::bigint, coalesce(codes.code, 0)::bigint
    FROM (SELECT id, city FROM users WHERE id > %(last)s ORDER BY id LIMIT %(rows)s) block
    LEFT JOIN unnest(%(names)s::text[], %(codes)s::bigint[]) AS codes (city, code)
    ON codes.city = block.city ORDER BY block.id
"""


def user_columns(
    connection: Connection, codes: Mapping[str | None, int], *, block_rows: int
) -> Iterator[NDArray[np.int64]]:
    """Ids and codes of cities, shape (2, n): ids ascend from 0, a city without a code has 0."""
    if connection.dialect.name == "sqlite":
        statement = select(User.id, User.city).where(User.id >= 0).order_by(User.id)
        for rows in connection.execute(statement).partitions(block_rows):
            numbers = [(row[0], codes.get(row[1], 0)) for row in rows]
            yield np.ascontiguousarray(np.array(numbers, np.int64).T)
        return
    last = NO_ID
    while True:
        block = copied(
            connection,
            _USERS,
            columns=2,
            last=last,
            rows=block_rows,
            names=list(codes),
            codes=list(codes.values()),
        )
        if not block.shape[1]:
            return
        yield block
        last = int(block[0, -1])


def order_columns(connection: Connection, *, block_rows: int) -> Iterator[NDArray[np.int64]]:
    """Ids of user and restaurant and seconds since 1970, or NO_ID and NO_DATE, shape (3, n).

    Blocks of PostgreSQL hold more or fewer rows, as they lie in the table's pages.
    """
    if connection.dialect.name == "sqlite":
        yield from fetched(connection, _SQLITE_ORDERS, columns=3, block_rows=block_rows)
        return
    # Whoever has read from a table keeps it from being moved to other pages.
    connection.execute(select(Order.id).limit(1)).all()
    pages = connection.scalar(_PAGES)
    blocks = (
        _by_id(connection, block_rows)
        if pages is None
        else _by_page(connection, pages, max(1, block_rows // _ROWS_A_PAGE))
    )
    for block in blocks:
        block[2] //= 1_000_000
        block[2] += _POSTGRES_EPOCH
        yield block


def _by_page(connection: Connection, pages: int, step: int) -> Iterator[NDArray[np.int64]]:
    """Without an index and in the order of the disk; pages added since then hold nothing to see."""
    query = f"{_ORDERS} FROM orders WHERE ctid >= %(first)s::tid AND ctid < %(end)s::tid"
    for page in range(0, pages, step):
        yield copied(connection, query, columns=3, first=f"({page},0)", end=f"({page + step},0)")


def _by_id(connection: Connection, block_rows: int) -> Iterator[NDArray[np.int64]]:
    """For a view, a partitioned table, or a server that reads a whole table to find a page."""
    query = f"{_ORDERS}, id::bigint FROM orders WHERE id > %(last)s ORDER BY id LIMIT %(rows)s"
    last = -(1 << 63)
    while (block := copied(connection, query, columns=4, last=last, rows=block_rows)).shape[1]:
        yield block[:3]
        last = int(block[3, -1])
