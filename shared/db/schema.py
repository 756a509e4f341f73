"""Which schema this release works with, told without Alembic.

Every process checks it at its start; loading the migration tools for that would cost each of them
several megabytes. A test keeps `REVISION` equal to the newest migration.
"""

from sqlalchemy import Connection, column, inspect, select, table

from shared.errors import SchemaError

REVISION = "0005"

_VERSION = table("alembic_version", column("version_num"))


def check_schema(connection: Connection) -> None:
    """Raises SchemaError unless the database has exactly the schema of this release."""
    if not inspect(connection).has_table(_VERSION.name):
        raise SchemaError("the database has no tables yet: run `tastematch migrate`")
    current = connection.scalar(select(_VERSION.c.version_num))
    if current is None or current < REVISION:
        raise SchemaError("the database schema is behind this release: run `tastematch migrate`")
    if current != REVISION:
        raise SchemaError("the database schema is newer than this release of TasteMatch")
