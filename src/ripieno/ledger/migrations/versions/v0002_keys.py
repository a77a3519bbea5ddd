"""Virtual keys, what each has spent in each period, and findings found without reading everything else."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables of version 2."""
    op.create_table(
        "keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("revoked_at", sa.Float),
    )
    op.create_table(
        "spend",
        sa.Column("key", sa.String(32), primary_key=True),
        sa.Column("period", sa.String(10), primary_key=True),
        sa.Column("cost_usd", sa.Float, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
    )
    judged = sa.text("kind = 'judged'")
    op.create_index("entries_judged", "entries", ["seq"], sqlite_where=judged, postgresql_where=judged)
