"""Decisions, and what befell policies, newest first: pages show the latest of very many entries."""

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"

_DECIDED = text("kind = 'decided'")
_OF_POLICIES = text("kind IN ('learned', 'promoted', 'staged')")


def upgrade() -> None:
    """Make the indexes of version 4."""
    for name, where in (("entries_decided", _DECIDED), ("entries_policies", _OF_POLICIES)):
        op.create_index(name, "entries", ["seq"], sqlite_where=where, postgresql_where=where)
