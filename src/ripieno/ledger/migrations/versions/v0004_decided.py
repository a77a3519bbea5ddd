"""An index of decisions, newest first: pages show the latest of very many."""

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"

_DECIDED = text("kind = 'decided'")


def upgrade() -> None:
    """Add the index."""
    op.create_index("entries_decided", "entries", ["seq"], sqlite_where=_DECIDED, postgresql_where=_DECIDED)
