"""The catalogue: keys that restaurants are sorted, filtered and searched by.

Revision: 0003, after 0002. Columns have defaults, so that the release before goes on writing rows.
`shared/db/migration.py` fills them once the schema stands.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
works_with = "0001"

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    for name, kind in (
        ("name_key", _KEY),
        ("search_text", sa.Text()),
        ("city_key", sa.Text()),
        ("cuisine_keys", sa.Text()),
    ):
        op.add_column("restaurants", sa.Column(name, kind, nullable=False, server_default=""))
    for order, key in (
        ("name", "name_key"),
        ("lowest", sa.text("coalesce(rating, 6)")),
        ("highest", sa.text("coalesce(-rating, 6)")),
        ("newest", "created_at"),
    ):
        op.create_index(
            f"ix_restaurants_{order}",
            "restaurants",
            [key, "id"],
            sqlite_where=sa.text("is_active IS 1"),
            postgresql_where=sa.text("is_active IS true"),
        )
    op.create_table(
        "restaurant_terms",
        sa.Column("term", _KEY, nullable=False),
        sa.Column("restaurant_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("term", "restaurant_id", name="pk_restaurant_terms"),
        sqlite_with_rowid=False,
    )
