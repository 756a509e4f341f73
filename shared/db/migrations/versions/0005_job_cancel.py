"""Jobs: when an operator asked a running one to end.

Revision: 0005, after 0004. A column that may be empty: the release before goes on without it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
works_with = "0001"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("cancel_requested_at", sa.DateTime(timezone=True)))
