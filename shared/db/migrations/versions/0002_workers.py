"""Workers: which processes are alive.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

from shared.db.declaration import NAMING

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
works_with = "0001"

_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    metadata = sa.MetaData(naming_convention=NAMING)
    sa.Table(
        "workers",
        metadata,
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_at", _INSTANT, nullable=False),
        sa.Column("seen_at", _INSTANT, nullable=False, index=True),
    )
    metadata.create_all(op.get_bind())
