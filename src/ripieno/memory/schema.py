"""The memory's tables: items, which are only appended to, and projections, which can be rebuilt."""

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql, sqlite

metadata = MetaData()

items = Table(
    "items",
    metadata,
    Column("place", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String, unique=True, nullable=False),
    Column("kind", String, nullable=False),
    Column("text", String, nullable=False),
    Column("author", String, nullable=False),
    Column("thread", String, nullable=False),
    Column("project", String, nullable=False),
    Column("user", String, nullable=False),
    Column("privacy", String, nullable=False),
    Column("source", String, nullable=False),
    Column("ref", String, nullable=False),
    Column("happened_at", Float, nullable=False),
    Column("valid_from", Float, nullable=False),
    Column("valid_to", Float),
    Column("recorded_at", Float, nullable=False),
    Column("supersedes", String),
    Column("derived_from", String, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("expires_at", Float),
    Column("erased_at", Float),
    Column("digest", String, nullable=False),
    Index("items_thread", "project", "user", "thread", "place"),
    Index("items_supersedes", "supersedes"),
    Index("items_recorded", "recorded_at"),
    sqlite_autoincrement=True,
)

links = Table(
    "links",
    metadata,
    Column("derived", String, primary_key=True),
    Column("origin", String, primary_key=True),
    Index("links_origin", "origin"),
)
"""Which items were derived from which."""

vectors = Table(
    "vectors",
    metadata,
    Column("place", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("encoder", String, nullable=False),
    Column("vector", LargeBinary, nullable=False),
)

sources = Table(
    "sources",
    metadata,
    Column("name", String, primary_key=True),
    Column("seen_at", Float),
    Column("committed_at", Float),
    Column("cursor", String, nullable=False, server_default=""),
)
"""Watermark of each source: when something was last seen there, and last committed."""

authors = Table(
    "authors",
    metadata,
    Column("project", String, primary_key=True),
    Column("user", String, primary_key=True),
    Column("author", String, primary_key=True),
)

retired = Table(
    "retired",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", Float, nullable=False),
)
"""Items that are no longer in the current version of their source."""

versions = Table(
    "versions",
    metadata,
    Column("source", String, nullable=False),
    Column("nth", Integer, nullable=False),
    Column("status", String, nullable=False),
    Column("items", Integer, nullable=False),
    Column("reason", String, nullable=False, server_default=""),
    Column("recorded_at", Float, nullable=False),
    Column("ids", String, nullable=False),
    UniqueConstraint("source", "nth"),
)
"""What each sync of a source held: current, superseded and quarantined versions."""


def upsert(connection: Connection, into: Table) -> sqlite.Insert | postgresql.Insert:
    """Make an insert that can handle existing rows."""
    return postgresql.insert(into) if connection.dialect.name == "postgresql" else sqlite.insert(into)
