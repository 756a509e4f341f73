"""Writes the rows of a data set folder into the database: idempotent, in bounded memory.

Rows are staged in blocks of `BLOCK_ROWS` and merged, one transaction each, once `MERGE_ROWS` wait.
A restaurant that opens or closes is noted as a change in the same transaction.
The first row of an id in a file wins, later ones are bad rows; ids seen are kept in a temporary
file, not in memory. Orders of users or restaurants that do not exist are bad rows; in a folder
without a users file, the users of its orders are added by id.
"""

import os
import sqlite3
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, select

from shared.db.changes import database_now, renew_changes
from shared.db.targets import ORDERS, RESTAURANTS, USERS, Target
from shared.db.upserts import Staging
from shared.errors import StrictDataError, TasteMatchError
from tastematch.dataset import BadRow, Dataset, Table

BLOCK_ROWS = 10_000
# A merge writes most pages of the index on users: the more rows share one, the fewer writes.
MERGE_ROWS = 50_000
BLOCKS_AHEAD = 4
SEEN_CACHE_KB = 4096
SQLITE_CACHE_KB = 8 * 1024

Block = tuple[list[Any], list[BadRow]]
OnBadRow = Callable[[BadRow], None]
# Called in the thread that reads the file.
OnProgress = Callable[[Table[Any]], None]


@dataclass(slots=True)
class FileOutcome:
    """What became of the rows of one file; `seconds` is its own time."""

    file: str
    imported: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    large_ids: int = 0
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        return self.imported + self.updated + self.unchanged + self.rejected


def import_dataset(
    engine: Engine,
    dataset: Dataset,
    *,
    is_strict: bool = False,
    is_dry_run: bool = False,
    on_bad_row: OnBadRow,
    on_progress: OnProgress,
) -> list[FileOutcome]:
    """Imports restaurants, users and orders, in that order.

    `is_strict`: the first bad row ends the import with nothing written. Raises StrictDataError
    then, and DatasetError where a file cannot be read on; the blocks before stay imported.
    """
    outcomes = []
    commits = not (is_strict or is_dry_run)
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(f"PRAGMA cache_size=-{SQLITE_CACHE_KB}")
        began = connection.execute(select(database_now(connection.dialect))).scalar_one()
        connection.rollback()
        for table, target in (
            (dataset.restaurants, RESTAURANTS),
            (dataset.users, USERS),
            (dataset.orders, ORDERS),
        ):
            if table is None:
                continue
            adds_users = target is ORDERS and dataset.users is None
            outcomes.append(
                _import_table(
                    connection,
                    table,
                    target,
                    adds_users=adds_users,
                    commits=commits,
                    is_strict=is_strict,
                    on_bad_row=on_bad_row,
                    on_progress=on_progress,
                )
            )
        if is_dry_run:
            connection.rollback()
        else:
            if not commits:
                # What its first file changed may be long ago by now.
                renewed = renew_changes("restaurant", since=began, dialect=connection.dialect)
                connection.execute(renewed)
            connection.commit()
    return outcomes


def _import_table(
    connection: Connection,
    table: Table[Any],
    target: Target,
    *,
    adds_users: bool,
    commits: bool,
    is_strict: bool,
    on_bad_row: OnBadRow,
    on_progress: OnProgress,
) -> FileOutcome:
    outcome = FileOutcome(table.file)
    started = time.perf_counter()
    staging = Staging(connection, target)

    def reject(row: BadRow) -> None:
        outcome.rejected += 1
        on_bad_row(row)
        if is_strict:
            raise StrictDataError(f"{row.file}, line {row.line}: {row.reason}")

    def merge() -> None:
        merged = staging.merge(adds_users=adds_users)
        for line, reason in merged.rejected:
            reject(BadRow(table.file, line, reason))
        outcome.imported += merged.imported
        outcome.updated += merged.updated
        outcome.unchanged += merged.unchanged
        if commits:
            connection.commit()

    with _seen_ids() as seen:
        for block, bad_rows in _read_ahead(_blocks(table, on_progress)):
            for bad in bad_rows:
                reject(bad)
            fresh, repeated = seen.split(block)
            for row in repeated:
                reject(BadRow(table.file, row.line, f"id {row.id} stands on an earlier line too"))
            staging.add(fresh)
            if staging.count >= MERGE_ROWS:
                merge()
        merge()
    outcome.large_ids = table.large_ids
    outcome.seconds = time.perf_counter() - started
    return outcome


def _blocks(table: Table[Any], on_progress: OnProgress) -> Iterator[Block]:
    rows: list[Any] = []
    bad_rows: list[BadRow] = []
    for row in table:
        if type(row) is BadRow:
            bad_rows.append(row)
        else:
            rows.append(row)
        if len(rows) + len(bad_rows) == BLOCK_ROWS:
            on_progress(table)
            yield rows, bad_rows
            rows, bad_rows = [], []
    on_progress(table)
    if rows or bad_rows:
        yield rows, bad_rows


def _read_ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same blocks, read by a thread of their own while the database merges earlier ones."""
    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="import-reader")
    try:
        waiting = deque(reader.submit(next, blocks, None) for _ in range(BLOCKS_AHEAD))
        while (block := waiting.popleft().result()) is not None:
            waiting.append(reader.submit(next, blocks, None))
            yield block
    finally:
        reader.shutdown(cancel_futures=True)


class _SeenIds:
    """The ids of a file so far, in a temporary file; memory stays at `SEEN_CACHE_KB`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{SEEN_CACHE_KB}"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("CREATE TABLE seen (id INTEGER PRIMARY KEY)")
        self._highest = -1

    def split(self, rows: list[Any]) -> tuple[list[Any], list[Any]]:
        """(rows whose id is new, rows whose id was there before or earlier in `rows`)."""
        fresh, repeated = [], []
        ids: set[int] = set()
        # An id above all before it is new without a look: most files are sorted by id.
        for row in rows:
            row_id = row.id
            if row_id > self._highest or (row_id not in ids and not self._has(row_id)):
                self._highest = max(self._highest, row_id)
                ids.add(row_id)
                fresh.append(row)
            else:
                repeated.append(row)
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO seen VALUES (?)", ((i,) for i in sorted(ids)))
        self._database.execute("COMMIT")
        return fresh, repeated

    def _has(self, row_id: int) -> bool:
        found = self._database.execute("SELECT 1 FROM seen WHERE id = ?", (row_id,))
        return found.fetchone() is not None


@contextmanager
def _seen_ids() -> Iterator[_SeenIds]:
    # The driver's errors of the database itself arrive as those of SQLAlchemy.
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tastematch-import-") as folder,
            closing(sqlite3.connect(os.path.join(folder, "ids"), isolation_level=None)) as database,
        ):
            yield _SeenIds(database)
    except sqlite3.Error as error:
        raise TasteMatchError(f"the folder for temporary files cannot be used ({error})") from None
