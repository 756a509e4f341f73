"""Writes small data set folders and reads them through the public door."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from tastematch.dataset import BadRow, Dataset, open_dataset

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DATA = Path(__file__).parents[2] / "data"
RESTAURANT_COLUMNS = (
    "id,name,cuisine_type,description,rating,price_range,city,"
    "latitude,longitude,image_url,is_active"
)
USER_COLUMNS = "id,name,email,city"
ORDER_COLUMNS = "id,user_id,restaurant_id,order_date,total_amount,rating"


def folder(path: Path, **files: str | bytes) -> Path:
    """Writes `restaurants="..."` as restaurants.csv, bytes as they are."""
    for table, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (path / f"{table}.csv").write_bytes(data)
    return path


def opened(path: Path) -> Dataset:
    return open_dataset(path, now=NOW)


def rows_of(table: Iterable[object] | None) -> list[object]:
    assert table is not None
    return list(table)


def restaurants(path: Path, *lines: str, columns: str = RESTAURANT_COLUMNS) -> list[object]:
    return rows_of(opened(folder(path, restaurants="\n".join([columns, *lines]))).restaurants)


def users(path: Path, *lines: str, columns: str = USER_COLUMNS) -> list[object]:
    return rows_of(opened(folder(path, users="\n".join([columns, *lines]))).users)


def orders(path: Path, *lines: str, columns: str = ORDER_COLUMNS) -> list[object]:
    return rows_of(opened(folder(path, orders="\n".join([columns, *lines]))).orders)


def bad(rows: list[object]) -> dict[int, str]:
    """Line -> reason of the bad rows."""
    return {row.line: row.reason for row in rows if isinstance(row, BadRow)}
