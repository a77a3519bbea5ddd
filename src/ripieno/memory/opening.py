"""Opening: opens the database of a memory, creates what is missing, and explains its faults."""

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ripieno.errors import ConfigError, MemoryUnavailable
from ripieno.ledger.database import open_postgres, open_sqlite
from ripieno.memory.schema import metadata
from ripieno.memory.words import words_of

FORMAT = 2
SCHEMA = "ripieno_memory"
"""Schema in PostgreSQL. A ledger may be in the same database."""
_LOCK = 7269706966
_FORMS = "write sqlite:///path/to/memory.db, or postgresql://user@host/database"


def open_memory(url: str) -> Engine:
    """Open a memory, and create what is missing.

    Raises:
        ConfigError: the URL is not a valid memory URL.
        MemoryUnavailable: the database cannot be opened, is damaged, or is not a memory.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"memory.url {url!r} is not a database URL", key="memory.url", hint=_FORMS) from error
    engine = _open(parsed)
    try:
        with engine.begin() as connection:
            if parsed.get_backend_name() == "sqlite":
                _prepare_file(connection, str(parsed.database))
            else:
                _prepare_server(connection)
    except SQLAlchemyError as error:
        engine.dispose()
        raise explain(error) from error
    except MemoryUnavailable:
        engine.dispose()
        raise
    return engine


def lock_writers(connection: Connection) -> None:
    """Serialize the writers of a server, as a file does: the place of an item depends on the others."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def explain(error: SQLAlchemyError) -> MemoryUnavailable:
    """Convert a database error into memory's error."""
    reason = str(getattr(error, "orig", None) or error)
    return MemoryUnavailable(f"memory: {reason}", hint="check memory.url, its disk and its permissions")


def _open(parsed: URL) -> Engine:
    kind = parsed.get_backend_name()
    if kind == "postgresql":
        engine = open_postgres(parsed, key="memory.url")
        event.listen(engine, "connect", _choose_schema)
        return engine
    if kind != "sqlite" or not parsed.database:
        shown = parsed.render_as_string()
        raise ConfigError(f"memory.url {shown!r} is not a valid memory URL", key="memory.url", hint=_FORMS)
    try:
        return open_sqlite(parsed)
    except OSError as error:
        said = f"memory: the folder of {parsed.database!r} cannot be created ({error.strerror})"
        raise MemoryUnavailable(said, hint="check memory.url and its permissions") from error


def _choose_schema(connection: object, record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # the driver's own connection
    cursor.execute(f"SET search_path TO {SCHEMA}")
    cursor.close()
    connection.commit()  # type: ignore[attr-defined]  # the driver's own connection


def _prepare_file(connection: Connection, where: str) -> None:
    names = set(connection.dialect.get_table_names(connection))
    found = int(connection.execute(text("PRAGMA user_version")).scalar_one())
    if names and "items" not in names:
        raise MemoryUnavailable(f"{where!r} is a database, but not a memory", hint="point memory.url at another file")
    _require_known(found, where)
    if found == FORMAT:
        return
    metadata.create_all(connection)
    words_of(connection).prepare(connection)
    if found == 1:
        connection.execute(text("UPDATE items SET project = char(1) || 'canary' WHERE project = char(0) || 'canary'"))
    connection.execute(text(f"PRAGMA user_version = {FORMAT}"))


def _prepare_server(connection: Connection) -> None:
    lock_writers(connection)
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    connection.execute(text("CREATE TABLE IF NOT EXISTS format (version integer NOT NULL)"))
    found = connection.execute(text("SELECT version FROM format")).scalar()
    if found is None:
        metadata.create_all(connection)
        words_of(connection).prepare(connection)
        connection.execute(text("INSERT INTO format VALUES (:version)"), {"version": FORMAT})
    else:
        _require_known(int(found), SCHEMA)


def _require_known(found: int, where: str) -> None:
    if found > FORMAT:
        raise MemoryUnavailable(
            f"memory {where!r} has format {found}, and this version of Ripieno reads up to {FORMAT}",
            hint="upgrade ripieno",
        )
