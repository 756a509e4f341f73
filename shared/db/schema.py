"""Which schema this release works with, told without Alembic.

Every process checks it at its start; loading the migration tools for that would cost each of them
several megabytes. A test keeps `REVISION` equal to the newest migration.

Releases change while processes of both run. So each migration says the oldest revision whose code
goes on working with what it makes (`works_with`), and writes that into the database in its own
transaction. A process that meets a newer schema than its own looks it up there.
"""

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

from shared.errors import SchemaError

REVISION = "0005"

# Beside Alembic's own table, and like that one no part of the models. One row each.
_MECHANISM = MetaData()
_VERSION = Table("alembic_version", _MECHANISM, Column("version_num", String(32)))
COMPATIBILITY = Table("schema_compatibility", _MECHANISM, Column("works_with", String(32)))


def check_schema(connection: Connection) -> None:
    """Raises SchemaError unless this release works with the schema of the database."""
    if not inspect(connection).has_table(_VERSION.name):
        raise SchemaError("the database has no tables yet: run `tastematch migrate`")
    current = connection.scalar(select(_VERSION.c.version_num))
    if current is None or current < REVISION:
        raise SchemaError("the database schema is behind this release: run `tastematch migrate`")
    if current != REVISION and not is_compatible(connection):
        raise SchemaError("the database schema is newer than this release of TasteMatch")


def is_compatible(connection: Connection) -> bool:
    """Whether code of this release goes on working with a newer schema."""
    if not inspect(connection).has_table(COMPATIBILITY.name):
        return False
    oldest = connection.scalar(select(COMPATIBILITY.c.works_with))
    return oldest is not None and oldest <= REVISION


def note_compatibility(connection: Connection, oldest: str) -> None:
    """Writes down the oldest revision whose code works with the schema as it is now."""
    COMPATIBILITY.create(connection, checkfirst=True)
    connection.execute(COMPATIBILITY.delete())
    connection.execute(COMPATIBILITY.insert().values(works_with=oldest))
