"""Alembic's entry: runs the migrations on the connection that `shared/db/migration.py` opened."""

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script

from shared.db.models import Order
from shared.db.schema import note_compatibility


def note_step(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """In the transaction of each migration: who goes on working with what it made."""
    made = step.up_revision
    if step.is_upgrade and isinstance(made, Script) and ctx.connection is not None:
        note_compatibility(ctx.connection, made.module.works_with)


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Order.metadata,
    transaction_per_migration=True,
    render_as_batch=connection.dialect.name == "sqlite",
    on_version_apply=note_step,
)
with context.begin_transaction():
    context.run_migrations()
