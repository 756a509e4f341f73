"""The schema check that every process makes at its start."""

from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

import shared.db
from shared.db.engine import sync_engine
from shared.db.schema import REVISION, check_schema, note_compatibility
from shared.errors import SchemaError
from shared.settings import load_settings


@pytest.fixture
def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(shared.db.__path__[0]) / "migrations"))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def test_the_revision_is_the_newest_migration(scripts: ScriptDirectory) -> None:
    assert scripts.get_current_head() == REVISION


def test_every_migration_says_who_goes_on_working(scripts: ScriptDirectory) -> None:
    oldest = "9999"
    for script in scripts.walk_revisions():  # the newest first
        assert script.module.works_with <= min(oldest, script.revision), script.revision
        oldest = script.module.works_with


@pytest.mark.parametrize(
    ("revision", "hint"), [("0001", "tastematch migrate"), ("9999", "newer"), (None, "no tables")]
)
def test_another_schema_is_refused(
    database_url: str, tmp_path: Path, revision: str | None, hint: str
) -> None:
    settings = load_settings({"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path)})
    engine = sync_engine(settings)
    with engine.begin() as connection:
        check_schema(connection)
        note_compatibility(connection, "9999")
        if revision is None:
            connection.execute(text("DROP TABLE alembic_version"))
        else:
            connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
        with pytest.raises(SchemaError, match=hint):
            check_schema(connection)
    engine.dispose()


@pytest.mark.parametrize(
    ("oldest", "is_accepted"), [("0001", True), (REVISION, True), ("9998", False), (None, False)]
)
def test_a_newer_schema_names_who_works_with_it(
    database_url: str, tmp_path: Path, oldest: str | None, is_accepted: bool
) -> None:
    settings = load_settings({"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path)})
    engine = sync_engine(settings)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        if oldest is None:
            connection.execute(text("DELETE FROM schema_compatibility"))
        else:
            note_compatibility(connection, oldest)
        if is_accepted:
            check_schema(connection)
        else:
            with pytest.raises(SchemaError, match="newer"):
                check_schema(connection)
    engine.dispose()
