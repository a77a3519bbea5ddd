"""Tasks, entries with their chain of digests, and the catalogue of imported workers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables of version 1."""
    op.create_table(
        "tasks",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "entries",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("decision", sa.Text),
        sa.Column("task", sa.String(64)),
        sa.Column("dataset", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    for column in ("run", "decision", "dataset"):
        op.create_index(f"entries_{column}", "entries", [column])
    op.create_table(
        "catalog",
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("worker", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
