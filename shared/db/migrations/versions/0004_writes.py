"""Writes: what changed since a snapshot, hidden restaurants, keys of repeated requests.

Revision: 0004, after 0003. Only new tables: the release before goes on with what it knows.
"""

import sqlalchemy as sa
from alembic import op

from shared.db.declaration import NAMING

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
works_with = "0001"

_INSTANT = sa.DateTime(timezone=True)
_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    metadata = sa.MetaData(naming_convention=NAMING)
    # What the foreign keys point to; these tables exist.
    sa.Table("users", metadata, sa.Column("id", _ID, primary_key=True))
    sa.Table("restaurants", metadata, sa.Column("id", _ID, primary_key=True))
    sa.Table(
        "changes",
        metadata,
        sa.Column("subject", sa.String(16), primary_key=True),
        sa.Column("subject_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("changed_at", _INSTANT, nullable=False, index=True),
        sa.Column("told_revision", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("published_revision", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("published_version", sa.String(64)),
        sa.Column("claimed_until", _INSTANT),
        sa.CheckConstraint("subject IN ('user', 'restaurant')", name="subject"),
        sa.Index(
            "ix_changes_open",
            "changed_at",
            sqlite_where=sa.text("published_revision < revision"),
            postgresql_where=sa.text("published_revision < revision"),
        ),
    )
    sa.Table(
        "hidden_restaurants",
        metadata,
        sa.Column("user_id", _ID, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("restaurant_id", _ID, sa.ForeignKey("restaurants.id"), primary_key=True),
        sa.Column("hidden_at", _INSTANT, nullable=False),
    )
    sa.Table(
        "idempotency_keys",
        metadata,
        sa.Column("user_id", _ID, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("order_id", sa.BigInteger, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False, index=True),
    )
    metadata.create_all(op.get_bind())
