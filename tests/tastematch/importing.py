"""`tastematch import` on a database of the test's own, and what is stored afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from shared.db.declaration import Base
from shared.db.engine import sync_engine
from shared.db.models import Order, Restaurant, User
from shared.settings import load_settings
from tastematch.cli import run

MODELS: dict[str, tuple[type[Base], str]] = {
    "restaurants": (
        Restaurant,
        "id name cuisine_type description rating price_range city latitude longitude image_url "
        "is_active",
    ),
    "users": (User, "id name email city"),
    "orders": (Order, "id user_id restaurant_id order_date total_amount rating"),
}
HEADERS = {table: columns.replace(" ", ",") for table, (_, columns) in MODELS.items()}


def with_header(table: str, rows: str) -> bytes:
    return f"{HEADERS[table]}\n{rows}".encode()


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict[str, tuple[int, ...]]:
        """File -> (imported, updated, unchanged, rejected)."""
        files = {}
        for line in self.stdout.splitlines():
            file, _, counts = line.partition(": ")
            words = counts.removesuffix(" (dry run)").replace(",", "").split()
            assert words[::2] == ["imported", "updated", "unchanged", "rejected"]
            files[file] = tuple(map(int, words[1::2]))
        return files


class Importing:
    """Runs the command in this process: the same path from arguments to exit code."""

    def __init__(self, url: str, engine: Engine, capture: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self.engine = engine
        self._capture = capture

    def __call__(self, folder: Path, *options: str | Path) -> Outcome:
        self._capture.readouterr()
        code = run(["import", str(folder), *map(str, options)])
        captured = self._capture.readouterr()
        return Outcome(code, captured.out, captured.err)

    def stored(self, table: str, columns: str = "") -> list[tuple[Any, ...]]:
        """The rows of a table in the order of ids: all columns of the data set, or those named."""
        model, every_column = MODELS[table]
        names = (columns or every_column).split()
        statement = select(*(getattr(model, name) for name in names)).order_by(model.id)  # type: ignore[attr-defined]
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(statement)]

    def ids(self, table: str) -> list[int]:
        return [row[0] for row in self.stored(table, "id")]

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        return {table: self.stored(table) for table in MODELS}


@pytest.fixture
def importing(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Importing]:
    environment = {"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "home")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    engine = sync_engine(load_settings(environment))
    yield Importing(database_url, engine, capsys)
    engine.dispose()


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., Path]:
    """Writes `orders="..."` under its full header as orders.csv, bytes as they are.

    Returns the folder; what an earlier call wrote there is gone.
    """

    def write(**files: str | bytes) -> Path:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for table, content in files.items():
            whole = content if isinstance(content, bytes) else with_header(table, content)
            (folder / f"{table}.csv").write_bytes(whole)
        return folder

    return write
