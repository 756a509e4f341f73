"""Speed and peak memory of `tastematch import` on SQLite and PostgreSQL, at two sizes.

Run: `make bench-import`. Rows/s are those of the orders file by the importer's own clock, for the
first import (all rows new) and for the second (all rows known and equal). A size may be given in
thousands of orders: `python -m benchmarks.bench_import 100 20000`.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.services.databases import sqlite_address
from tests.services.postgres import PostgresServer
from tests.services.processes import run_tastematch

USERS = 20_000
RESTAURANTS = 5_000
SIZES = (100_000, 1_000_000)
MIN_ROWS_PER_SECOND = 40_000
MAX_PEAK_RATIO = 1.2
TIMEOUT_SECONDS = 3600.0
FIRST_DATE = datetime(2025, 1, 1, tzinfo=UTC)
# The tests' server gives up what a crash of the machine would lose; speed is measured without.
SERVER_SETTINGS = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB"}


@dataclass(frozen=True, slots=True)
class Figures:
    """One import: rows/s of the orders file, peak RSS of the process in MiB."""

    rows_per_second: float
    peak_mb: float


def main() -> None:
    sizes = tuple(int(text) * 1000 for text in sys.argv[1:]) or SIZES
    with tempfile.TemporaryDirectory(prefix="tastematch-bench-") as name:
        folder = Path(name)
        for size in sizes:
            _generate(folder / str(size), orders=size)
        print(
            f"{'database':<12}{'orders':>12}{'rows/s new':>12}{'rows/s again':>14}{'peak MiB':>10}"
        )
        for database in ("SQLite", "PostgreSQL"):
            peaks = []
            for size in sizes:
                with _database(database, folder) as url:
                    new = _import(url, folder / str(size), orders=size)
                    again = _import(url, folder / str(size), orders=size)
                peaks.append(max(new.peak_mb, again.peak_mb))
                mark = "" if new.rows_per_second >= MIN_ROWS_PER_SECOND else "  below the limit"
                print(
                    f"{database:<12}{size:>12,}{new.rows_per_second:>12,.0f}"
                    f"{again.rows_per_second:>14,.0f}{peaks[-1]:>10.1f}{mark}",
                    flush=True,
                )
            print(
                f"{database:<12}peak of {sizes[-1]:,} orders / of {sizes[0]:,}: "
                f"{peaks[-1] / peaks[0]:.3f} (limit {MAX_PEAK_RATIO})"
            )
    print(f"limit: {MIN_ROWS_PER_SECOND:,} rows/s new")


def _generate(folder: Path, *, orders: int) -> None:
    chance = random.Random(1)
    folder.mkdir()
    with (folder / "restaurants.csv").open("w") as file:
        file.write("id,name,cuisine_type,rating,price_range,city\n")
        file.writelines(
            f"{number},Restaurant {number},Ramen|Soup,{chance.randint(20, 50) / 10},"
            f"{chance.randint(1, 4)},City {number % 40}\n"
            for number in range(1, RESTAURANTS + 1)
        )
    with (folder / "users.csv").open("w") as file:
        file.write("id,name,city\n")
        file.writelines(f"{number},User {number},City {number % 40}\n" for number in _ids(USERS))
    with (folder / "orders.csv").open("w") as file:
        file.write("id,user_id,restaurant_id,order_date,total_amount,rating\n")
        for number in _ids(orders):
            date = FIRST_DATE + timedelta(seconds=number % 40_000_000)
            file.write(
                f"{number},{chance.randint(1, USERS)},{chance.randint(1, RESTAURANTS)},"
                f"{date:%Y-%m-%dT%H:%M:%S}Z,{chance.randint(500, 9000) / 100},"
                f"{chance.randint(1, 5) if number % 3 else ''}\n"
            )


def _ids(count: int) -> range:
    return range(1, count + 1)


@contextlib.contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        if kind == "SQLite":
            place = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
            url = sqlite_address(Path(place) / "bench.db")
        else:
            server = PostgresServer(settings=SERVER_SETTINGS)
            stack.callback(server.stop)
            server.start()
            url = server.create_database()
        _run("migrate", url=url)
        yield url


def _import(url: str, folder: Path, *, orders: int) -> Figures:
    report = json.loads(_run("import", str(folder), "--json", url=url))
    file = next(file for file in report["files"] if file["file"] == "orders.csv")
    assert file["rejected"] == 0, report["bad_rows"][:3]
    assert file["imported"] + file["unchanged"] == orders, file
    return Figures(orders / file["seconds"], report["peak_rss_mb"])


def _run(*arguments: str, url: str) -> str:
    done = run_tastematch(*arguments, env={"DATABASE_URL": url}, timeout_seconds=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


if __name__ == "__main__":
    main()
