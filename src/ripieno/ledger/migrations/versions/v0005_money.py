"""Money reserved for current runs, and how many requests of a key had an unknown price."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table and the column of version 5."""
    op.create_table(
        "holds",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("usd", sa.Float, nullable=False),
    )
    op.create_index("holds_key", "holds", ["key"])
    op.add_column("spend", sa.Column("unknown", sa.BigInteger, nullable=False, server_default="0"))
