"""Restaurants that an import opens or closes: noted as changes, for those who show them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from shared.db.engine import sync_engine
from shared.db.models import Change
from shared.errors import StrictDataError
from shared.settings import load_settings
from tastematch.dataset import Table
from tastematch.importer import import_dataset
from tests.tastematch.dataset_folders import folder, opened

HEADER = "id,name,is_active,rating\n"
FIRST = HEADER + "1,a,true,\n2,b,true,\n3,c,false,\n4,d,false,\n"
# 1 closes, 3 opens, 2 and 4 stay as they are, 5 is new and closed.
SECOND = HEADER + "1,a,false,\n2,b,true,4\n3,c,true,\n4,d,false,2\n5,e,false,\n"


@pytest.fixture
def engine(database_url: str, tmp_path: Path) -> Iterator[Engine]:
    settings = load_settings({"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path)})
    engine = sync_engine(settings)
    yield engine
    engine.dispose()


def _import(engine: Engine, path: Path, *, on_progress: Any = None, **options: bool) -> None:
    import_dataset(
        engine,
        opened(path),
        on_bad_row=lambda _row: None,
        on_progress=on_progress or (lambda _table: None),
        **options,
    )


def _changes(engine: Engine) -> dict[int, tuple[int, datetime]]:
    columns = (Change.subject_id, Change.revision, Change.changed_at, Change.subject)
    with engine.connect() as connection:
        rows = connection.execute(select(*columns)).all()
    assert {row.subject for row in rows} <= {"restaurant"}
    return {row.subject_id: (row.revision, row.changed_at) for row in rows}


def test_only_those_that_open_or_close_are_noted(engine: Engine, tmp_path: Path) -> None:
    _import(engine, folder(tmp_path, restaurants=FIRST))
    assert _changes(engine) == {}
    folder(tmp_path, restaurants=SECOND)
    _import(engine, tmp_path, is_dry_run=True)
    assert _changes(engine) == {}
    for _ in range(2):
        _import(engine, tmp_path)
    assert {i: revision for i, (revision, _) in _changes(engine).items()} == {1: 1, 3: 1}
    _import(engine, folder(tmp_path, restaurants=FIRST))
    assert {i: revision for i, (revision, _) in _changes(engine).items()} == {1: 2, 3: 2}


def test_a_strict_import_notes_them_as_of_its_end(engine: Engine, tmp_path: Path) -> None:
    """Its one transaction may be long, and a snapshot may be made meanwhile."""
    _import(engine, folder(tmp_path, restaurants=FIRST))
    folder(tmp_path, restaurants=SECOND + "x,bad,,\n")
    with pytest.raises(StrictDataError):
        _import(engine, tmp_path, is_strict=True)
    assert _changes(engine) == {}
    folder(tmp_path, restaurants=SECOND, users="id\n7\n")
    seen: list[datetime] = []

    def on_progress(table: Table[Any]) -> None:
        if table.file == "users.csv":
            seen.append(datetime.now(UTC))

    _import(engine, tmp_path, is_strict=True, on_progress=on_progress)
    noted = _changes(engine)
    assert set(noted) == {1, 3}
    last = seen[-1].replace(microsecond=seen[-1].microsecond // 1000 * 1000)  # as SQLite's clock
    assert all(changed_at >= last for _, changed_at in noted.values())
