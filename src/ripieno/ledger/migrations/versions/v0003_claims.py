"""Runs that were claimed, found without reading everything else."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the index of version 3."""
    claimed = sa.text("kind = 'claimed'")
    op.create_index("entries_claimed", "entries", ["seq"], sqlite_where=claimed, postgresql_where=claimed)
