"""The memory's tables: items, which are only added to, and projections, which can be made again."""

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TableClause,
    UniqueConstraint,
    column,
    table,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ripieno.errors import ConfigError, MemoryUnavailable
from ripieno.ledger.database import open_sqlite

FORMAT = 1
metadata = MetaData()

items = Table(
    "items",
    metadata,
    Column("place", Integer, primary_key=True, autoincrement=True),
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
"""Which items were made from which."""

vectors = Table(
    "vectors",
    metadata,
    Column("place", Integer, primary_key=True),
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
"""The watermark of each source: when something was last seen there, and when something was last committed."""

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
"""Items that the current version of their source does not hold any more."""

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
"""What each sync of a source held: the current one, those before it, and those that were put into quarantine."""


def _words(name: str) -> TableClause:
    return table(name, column("rowid"), column("words"), column("rank"), column(name))


BEFORE, AFTER = _words("lexical_before"), _words("lexical_after")
"""Words of each item by its place: with the two items before it in its thread, and with the one after it."""


def open_memory(url: str) -> Engine:
    """Open a memory, and make what is missing.

    Raises:
        ConfigError: the URL is not one that a memory can be at.
        MemoryUnavailable: it cannot be opened, is damaged, or is no memory.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"memory.url {url!r} is not a database URL", key="memory.url") from error
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise ConfigError(
            "memory.url must be a SQLite file", key="memory.url", hint="write sqlite:///path/to/memory.db"
        )
    try:
        engine = open_sqlite(parsed)
    except OSError as error:
        said = f"memory: the folder of {parsed.database!r} cannot be made ({error.strerror})"
        raise MemoryUnavailable(said, hint="check memory.url and its permissions") from error
    try:
        with engine.begin() as connection:
            _prepare(connection, parsed.database)
    except SQLAlchemyError as error:
        engine.dispose()
        raise explain(error) from error
    except MemoryUnavailable:
        engine.dispose()
        raise
    return engine


def explain(error: SQLAlchemyError) -> MemoryUnavailable:
    """The memory's error for what the database says."""
    reason = str(getattr(error, "orig", None) or error)
    return MemoryUnavailable(f"memory: {reason}", hint="check memory.url, its disk and its permissions")


def _prepare(connection: Connection, where: str) -> None:
    names = set(connection.dialect.get_table_names(connection))
    found = int(connection.execute(text("PRAGMA user_version")).scalar_one())
    if names and "items" not in names:
        raise MemoryUnavailable(f"{where!r} is a database, but not a memory", hint="point memory.url at another file")
    if found > FORMAT:
        raise MemoryUnavailable(
            f"memory {where!r} has format {found}, this Ripieno knows {FORMAT}", hint="upgrade ripieno"
        )
    if found == FORMAT:
        return
    metadata.create_all(connection)
    for words in (BEFORE, AFTER):
        connection.execute(
            text(
                f"CREATE VIRTUAL TABLE IF NOT EXISTS {words.name} "
                "USING fts5(words, tokenize = 'porter unicode61 remove_diacritics 2')"
            )
        )
    connection.execute(text(f"PRAGMA user_version = {FORMAT}"))
