"""Restaurants, users, orders, preferences, jobs, audit.

Revision: 0001, the first. Column types stand here as they were at this revision, so that later
changes of the models leave it alone.
"""

import sqlalchemy as sa
from alembic import op

from shared.db.declaration import NAMING

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
works_with = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_AMOUNT = sa.Numeric(14, 4).with_variant(sa.Float, "sqlite")
_INSTANT = sa.DateTime(timezone=True)
_NOW = sa.text("CURRENT_TIMESTAMP")
_ACTIVE = sa.text("state IN ('queued', 'running')")


def upgrade() -> None:
    metadata = sa.MetaData(naming_convention=NAMING)
    sa.Table(
        "restaurants",
        metadata,
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("cuisine_type", sa.Text),
        sa.Column("description", sa.Text),
        sa.Column("rating", sa.Float),
        sa.Column("price_range", sa.SmallInteger),
        sa.Column("city", sa.Text),
        sa.Column("latitude", sa.Float),
        sa.Column("longitude", sa.Float),
        sa.Column("image_url", sa.Text),
        sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
        sa.CheckConstraint("rating >= 0 AND rating <= 5", name="rating"),
        sa.CheckConstraint("price_range >= 1 AND price_range <= 4", name="price_range"),
    )
    sa.Table(
        "users",
        metadata,
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("email", sa.Text),
        sa.Column("city", sa.Text),
        sa.Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
    )
    sa.Table(
        "orders",
        metadata,
        sa.Column("id", _ID, primary_key=True),
        sa.Column("user_id", _ID, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("restaurant_id", _ID, sa.ForeignKey("restaurants.id"), nullable=False),
        sa.Column("order_date", _INSTANT, nullable=False),
        sa.Column("total_amount", _AMOUNT),
        sa.Column("rating", sa.Float),
        sa.CheckConstraint("rating >= 1 AND rating <= 5", name="rating"),
        sa.CheckConstraint("total_amount >= 0", name="total_amount"),
        sa.Index(None, "user_id", "order_date"),
    )
    sa.Table(
        "preferences",
        metadata,
        sa.Column(
            "user_id",
            _ID,
            sa.ForeignKey("users.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("cuisines", sa.JSON, nullable=False),
        sa.Column("price_ranges", sa.JSON, nullable=False),
        sa.Column("city", sa.Text),
        sa.Column("updated_at", _INSTANT, nullable=False, server_default=_NOW),
    )
    sa.Table(
        "jobs",
        metadata,
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("origin", sa.String(32), nullable=False),
        sa.Column("progress", sa.Float, nullable=False, server_default=sa.text("0")),
        sa.Column("stage", sa.String(32)),
        sa.Column("stages", sa.JSON, nullable=False),
        sa.Column("peak_rss_mb", sa.Float),
        sa.Column("error", sa.Text),
        sa.Column("snapshot_version", sa.String(64)),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("started_at", _INSTANT),
        sa.Column("finished_at", _INSTANT),
        sa.Column("tries", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("lease_owner", sa.String(64)),
        sa.Column("lease_expires_at", _INSTANT),
        sa.Column("rerun_origin", sa.String(32)),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"
        ),
        sa.Index(
            "uq_jobs_active_kind",
            "kind",
            unique=True,
            sqlite_where=_ACTIVE,
            postgresql_where=_ACTIVE,
        ),
        sa.Index(None, "created_at", "id"),
    )
    sa.Table(
        "audit",
        metadata,
        sa.Column("id", _ID, primary_key=True),
        sa.Column("at", _INSTANT, nullable=False, index=True),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    metadata.create_all(op.get_bind())
