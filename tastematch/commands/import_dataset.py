"""`tastematch import PATH`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from shared.errors import TasteMatchError
from shared.settings import load_settings

if TYPE_CHECKING:
    from tastematch.dataset import BadRow, Dataset, Table
    from tastematch.importer import FileOutcome

MAX_SHOWN_ON_TERMINAL = 20
MAX_BAD_ROWS_IN_JSON = 1000


@click.command("import", epilog="Example: tastematch import data/nyc-visits")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Stop at the first bad row and write nothing.")
@click.option("--dry-run", is_flag=True, help="Read and count everything, write nothing.")
@click.option(
    "--errors",
    "errors_path",
    type=click.Path(path_type=Path),
    help="Keep every bad row as JSON lines.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(
    path: Path, strict: bool, dry_run: bool, errors_path: Path | None, as_json: bool
) -> None:
    """Imports the data set folder PATH: restaurants, users and orders as CSV.

    Running it again changes nothing. Bad rows are left out and reported with file, line and
    reason.
    """
    from shared.db.engine import database_errors, sync_engine
    from shared.db.schema import check_schema
    from shared.peak_memory import peak_rss_mb
    from tastematch.dataset import open_dataset
    from tastematch.importer import import_dataset

    settings = load_settings()
    started = time.perf_counter()
    dataset = open_dataset(path, now=datetime.now(UTC))
    notices = dataset.notices()
    with database_errors(), _bad_rows(errors_path) as bad_rows, _progress(dataset) as on_progress:
        engine = sync_engine(settings)
        with engine.connect() as connection:
            check_schema(connection)
        outcomes = import_dataset(
            engine,
            dataset,
            is_strict=strict,
            is_dry_run=dry_run,
            on_bad_row=bad_rows.keep if strict else bad_rows.add,
            on_progress=on_progress,
        )
        engine.dispose()
    seconds = time.perf_counter() - started
    for outcome in outcomes:
        bad_rows.tell_hidden(outcome)
        if outcome.large_ids:
            notices.append(
                f"warning: {outcome.file}: {outcome.large_ids} ids are above 2^53-1 "
                "(9007199254740991), which JavaScript cannot hold"
            )
    for notice in notices:
        click.echo(notice, err=True)
    if as_json:
        _print_json(
            outcomes,
            bad_rows,
            notices=notices,
            seconds=seconds,
            peak_mb=peak_rss_mb(),
            is_dry_run=dry_run,
        )
        return
    for outcome in outcomes:
        click.echo(
            f"{outcome.file}: imported {outcome.imported}, updated {outcome.updated}, "
            f"unchanged {outcome.unchanged}, rejected {outcome.rejected}"
            f"{' (dry run)' if dry_run else ''}"
        )


class _BadRows:
    """Counts bad rows by file, shows them on stderr, keeps all of them in a file when asked."""

    def __init__(self, file: BinaryIO | None, path: Path | None) -> None:
        self._file = file
        self._path = path
        self._is_terminal = sys.stderr.isatty()
        self._seen: dict[str, int] = {}
        self.first: list[BadRow] = []

    def add(self, row: BadRow) -> None:
        self._seen[row.file] = self._seen.get(row.file, 0) + 1
        if len(self.first) < MAX_BAD_ROWS_IN_JSON:
            self.first.append(row)
        if not self._is_terminal or self._seen[row.file] <= MAX_SHOWN_ON_TERMINAL:
            print(f"{row.file}, line {row.line}: {row.reason}", file=sys.stderr)
        self.keep(row)

    def keep(self, row: BadRow) -> None:
        """Into the file alone: the row that ends a strict import is told by its error."""
        if self._file is not None:
            import orjson

            with _write_errors(self._path):
                self._file.write(orjson.dumps(row._asdict()) + b"\n")

    def tell_hidden(self, outcome: FileOutcome) -> None:
        hidden = outcome.rejected - MAX_SHOWN_ON_TERMINAL
        if self._is_terminal and hidden > 0:
            click.echo(f"{outcome.file}: {hidden} more bad rows; keep all with --errors", err=True)


@contextmanager
def _bad_rows(path: Path | None) -> Iterator[_BadRows]:
    if path is None:
        yield _BadRows(None, None)
        return
    with _write_errors(path):
        file = path.open("wb")
    try:
        yield _BadRows(file, path)
    finally:
        with _write_errors(path):
            file.close()


@contextmanager
def _write_errors(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TasteMatchError(f"{path} cannot be written: {error.strerror}") from None


@contextmanager
def _progress(dataset: Dataset) -> Iterator[Callable[[Table[Any]], None]]:
    if not sys.stderr.isatty():
        yield lambda table: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tables = [t for t in (dataset.restaurants, dataset.users, dataset.orders) if t is not None]
        tasks = {
            t.file: progress.add_task(t.file, total=t.path.stat().st_size, rows=0) for t in tables
        }
        yield lambda table: progress.update(
            tasks[table.file], completed=table.bytes_read, rows=table.rows_read
        )


def _print_json(
    outcomes: list[FileOutcome],
    bad_rows: _BadRows,
    *,
    notices: list[str],
    seconds: float,
    peak_mb: float,
    is_dry_run: bool,
) -> None:
    import orjson

    document = {
        "files": [
            {
                "file": o.file,
                "imported": o.imported,
                "updated": o.updated,
                "unchanged": o.unchanged,
                "rejected": o.rejected,
                "seconds": round(o.seconds, 3),
                "rows_per_second": round(o.rows / o.seconds) if o.seconds else None,
            }
            for o in outcomes
        ],
        "bad_rows": [row._asdict() for row in bad_rows.first],
        "notices": notices,
        "dry_run": is_dry_run,
        "seconds": round(seconds, 3),
        "peak_rss_mb": round(peak_mb, 1),
    }
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
