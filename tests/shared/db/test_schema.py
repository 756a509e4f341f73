"""The schema check that every process makes at its start."""

from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

import shared.db
from shared.db.engine import sync_engine
from shared.db.schema import REVISION, check_schema
from shared.errors import SchemaError
from shared.settings import load_settings


def test_the_revision_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(shared.db.__path__[0]) / "migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


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
        if revision is None:
            connection.execute(text("DROP TABLE alembic_version"))
        else:
            connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
        with pytest.raises(SchemaError, match=hint):
            check_schema(connection)
    engine.dispose()
