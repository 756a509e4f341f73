"""A generated shop into a data set folder for `tastematch import`, or straight into PostgreSQL.

Run: `python -m benchmarks.shop_loading --help`. Either way the shop streams: what is held is its
restaurants and users in columns, and one block of orders.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg2

from benchmarks.shop_generator import Shop, Size

_COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_END = b"\xff\xff"
_POSTGRES_EPOCH = 946_684_800
_COPY_BYTES = 1 << 20
# Of a row in PostgreSQL's binary COPY form: a count of fields, then length and value of each. An
# amount has two digits to the base of 10,000: the whole, and the cents times a hundred.
_ROW = np.dtype(
    [
        ("fields", ">i2"),
        *(
            (f"{name}{part}", kind)
            for name in ("id", "user", "restaurant", "instant")
            for part, kind in (("_bytes", ">i4"), ("", ">i8"))
        ),
        ("amount_bytes", ">i4"),
        *((name, ">i2") for name in ("digits", "weight", "sign", "scale", "whole", "cents")),
        ("rating_bytes", ">i4"),
        ("rating", ">f8"),
    ]
)
_FIXED = {
    "fields": 6,
    **dict.fromkeys(("id_bytes", "user_bytes", "restaurant_bytes", "instant_bytes"), 8),
    "amount_bytes": 12,
    "rating_bytes": 8,
    "digits": 2,
    "scale": 4,
}


def write_folder(shop: Shop, folder: Path) -> None:
    """Writes a data set folder, as docs/dataset-format.md has it."""
    folder.mkdir(parents=True)
    with (folder / "restaurants.csv").open("w") as file:
        file.writelines(shop.restaurant_lines())
    with (folder / "users.csv").open("w") as file:
        file.writelines(shop.user_lines())
    with (folder / "orders.csv").open("w") as file:
        file.write("id,user_id,restaurant_id,order_date,total_amount,rating\n")
        for block in shop.orders():
            instants = block.seconds.astype("M8[s]").astype(str).tolist()
            rows = zip(
                block.ids.tolist(),
                block.users.tolist(),
                block.restaurants.tolist(),
                instants,
                block.cents.tolist(),
                block.ratings.tolist(),
                strict=True,
            )
            file.writelines(
                f"{number},{user},{restaurant},{instant}Z,{cents / 100:.2f},{rating}\n"
                for number, user, restaurant, instant, cents, rating in rows
            )


def load_postgres(shop: Shop, url: str) -> None:
    """Streams the shop into a migrated database whose tables are empty, as its superuser.

    References hold by construction and are not checked; the index of orders is made at the end.
    """
    with contextlib.closing(psycopg2.connect(url)) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")
            for table, lines in (
                ("restaurants", shop.restaurant_lines()),
                ("users", shop.user_lines()),
            ):
                columns = next(lines)
                cursor.copy_expert(
                    f"COPY {table} ({columns}) FROM STDIN (FORMAT csv)",
                    _Pieces(text.encode() for text in lines),
                    _COPY_BYTES,
                )
            cursor.execute(
                "SELECT indexname, indexdef FROM pg_indexes"
                " WHERE tablename = 'orders' AND indexname NOT LIKE 'pk%'"
            )
            indexes = cursor.fetchall()
            for name, _ in indexes:
                cursor.execute(f"DROP INDEX {name}")
            cursor.copy_expert(
                "COPY orders (id, user_id, restaurant_id, order_date, total_amount, rating)"
                " FROM STDIN (FORMAT binary)",
                _Pieces(_binary_rows(shop)),
                _COPY_BYTES,
            )
            for _, definition in indexes:
                cursor.execute(definition)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


class _Pieces:
    """A file-like view of blocks of bytes, made as it is read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return b""
            self._rest = memoryview(block)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)


def _binary_rows(shop: Shop) -> Iterator[bytes]:
    yield _COPY_HEAD
    for block in shop.orders():
        rows = np.zeros(len(block.ids), _ROW)
        for name, value in _FIXED.items():
            rows[name] = value
        rows["id"] = block.ids
        rows["user"] = block.users
        rows["restaurant"] = block.restaurants
        rows["instant"] = (block.seconds - _POSTGRES_EPOCH) * 1_000_000
        rows["whole"] = block.cents // 100
        rows["cents"] = block.cents % 100 * 100
        rows["rating"] = block.ratings
        yield rows.tobytes()
    yield _COPY_END


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--restaurants", type=int, default=2_000)
    parser.add_argument("--orders", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="a new data set folder")
    parser.add_argument("--postgres", help="a migrated database without rows: postgresql://...")
    chosen = parser.parse_args()
    if not chosen.folder and not chosen.postgres:
        parser.error("give --folder or --postgres")
    shop = Shop(Size(chosen.users, chosen.restaurants, chosen.orders, chosen.seed))
    if chosen.folder:
        write_folder(shop, chosen.folder)
    if chosen.postgres:
        load_postgres(shop, chosen.postgres)


if __name__ == "__main__":
    main()
