"""The ledger's database: opening, migration, and errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from ripieno.errors import ConfigError, LedgerCorrupt, LedgerError, LedgerFull, LedgerTooNew
from ripieno.plugins import needs_extra
from ripieno.privacy.files import make_folder, make_private, narrow

HEAD = "0006"
KNOWN = ("0001", "0002", "0003", "0004", "0005", HEAD)
OPENING_MS = 30_000
"""Wait for another process that opens, and perhaps migrates, the same database."""
PATIENT_S = 30.0
"""Patience of a command that works through many entries."""
CONNECT_S = 2
"""Seconds within which a server must accept a connection, the driver's minimum."""
_LOCKED = "is locked by another process"
_FORMS = "write sqlite:///path/to/ledger.db, or postgresql://user@host/database"


@dataclass(slots=True)
class Patience:
    """Wait of new connections for another process's lock."""

    busy_ms: int = OPENING_MS


def open_engine(url: str, *, patience_s: float = PATIENT_S) -> Engine:
    """Open the database, create it if it is missing, and migrate its schema to this version.

    Raises:
        ConfigError: the URL is invalid.
        LedgerCorrupt: the file is not a ledger, or is damaged.
        LedgerTooNew: a newer Ripieno wrote it.
        LedgerError: it cannot be opened.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"ledger.url {url!r} is not a database URL", key="ledger.url", hint=_FORMS) from error
    where, patience = hide_password(url), Patience()
    match parsed.get_backend_name():
        case "sqlite":
            try:
                engine = open_sqlite(parsed, patience=patience)
            except OSError as error:
                raise LedgerError(
                    f"the folder of ledger {where!r} cannot be created: {error.strerror}",
                    hint="check ledger.url and its permissions",
                ) from error
        case "postgresql":
            engine = open_postgres(parsed, patience=patience)
        case _:
            raise ConfigError(f"ledger.url {where!r} is not a supported database", key="ledger.url", hint=_FORMS)
    try:
        with translated_faults(where), engine.begin() as connection:
            _migrate(connection, where)
    except BaseException:
        engine.dispose()
        raise
    patience.busy_ms = round(1000 * patience_s)
    engine.dispose()
    return engine


def hide_password(url: str) -> str:
    """Return the URL for errors and logs."""
    try:
        return make_url(url).render_as_string()
    except ArgumentError:
        return url


@contextmanager
def translated_faults(where: str) -> Iterator[None]:
    """Turn errors of the driver into the ledger's errors."""
    try:
        yield
    except DBAPIError as error:
        raise explain_fault(str(error.orig), where) from error
    except SQLAlchemyError as error:
        raise LedgerError(f"ledger {where!r}: {error}") from error


def explain_fault(reason: str, where: str) -> LedgerError:
    """Return the ledger's error for a driver's message."""
    low = reason.lower()
    if "not a database" in low or "malformed" in low or "corrupt" in low:
        return LedgerCorrupt(
            f"ledger {where!r} is damaged: {reason}", hint="restore it from a copy, or move it away and start a new one"
        )
    if "full" in low or "disk i/o" in low or "no space" in low:
        return LedgerFull(
            f"ledger {where!r} cannot grow: {reason}", hint="free space on its disk; no recorded entry is lost"
        )
    if "locked" in low or "lock timeout" in low:
        return LedgerError(
            f"ledger {where!r} {_LOCKED}: {reason}",
            hint="end the process that holds it; the ledger retries by itself",
        )
    return LedgerError(f"ledger {where!r}: {reason}", hint="check ledger.url and its permissions")


def is_lock(fault: LedgerError) -> bool:
    """Return whether another process holds the database, which does answer."""
    return _LOCKED in fault.message


def open_sqlite(url: URL, *, patience: Patience | None = None) -> Engine:
    """Open a file in WAL mode: durable with each commit, one writer at a time, readable by its owner only."""
    if not url.database:
        raise ConfigError("ledger.url names no file", key="ledger.url", hint=_FORMS)
    path = Path(url.database)
    if url.database != ":memory:" and not url.database.startswith("file:"):
        make_folder(path.parent)
        make_private(path)  # SQLite gives its -wal and -shm the mode of the file
        for beside in ("-wal", "-shm"):
            narrow(path.with_name(path.name + beside))
    engine = create_engine(url, poolclass=QueuePool, pool_size=4, max_overflow=16)
    waits = patience or Patience()
    event.listen(engine, "connect", lambda connection, _: _prepare_sqlite(connection, waits.busy_ms))
    event.listen(engine, "begin", _begin_immediately)
    return engine


def open_postgres(url: URL, *, key: str = "ledger.url", patience: Patience | None = None) -> Engine:
    """Open a database on a server; `key` is its setting.

    Raises:
        MissingExtra: the driver is not installed.
    """
    timeouts = {"connect_timeout": CONNECT_S, "tcp_user_timeout": 1000 * CONNECT_S}
    given = {name: value for name, value in timeouts.items() if name not in url.query}
    with needs_extra("postgres", f"a PostgreSQL database in {key}", key=key):
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=4, max_overflow=16, pool_pre_ping=True, connect_args=given,
        )  # fmt: skip
    if patience is not None:
        event.listen(engine, "connect", lambda connection, _: _prepare_postgres(connection, patience.busy_ms))
    return engine


def _prepare_sqlite(connection: DBAPIConnection, busy_ms: int) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={busy_ms}", "journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=2000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_postgres(connection: DBAPIConnection, busy_ms: int) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = {busy_ms}")
    cursor.close()
    connection.commit()


def _begin_immediately(connection: Connection) -> None:
    is_reading = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")


def _migrate(connection: Connection, where: str) -> None:
    if connection.dialect.name == "postgresql":  # one replica migrates at a time
        connection.execute(text("SELECT pg_advisory_xact_lock(7269706965)"))
    version = _read_version(connection, where)
    if version == HEAD:
        return
    if version is not None and version not in KNOWN:
        raise LedgerTooNew(
            f"ledger {where!r} has schema {version!r}, this Ripieno knows {HEAD!r}",
            hint="upgrade ripieno, or point ledger.url at another file",
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _read_version(connection: Connection, where: str) -> str | None:
    names = set(connection.dialect.get_table_names(connection))
    if "alembic_version" in names:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return None if version is None else str(version)
    if names and connection.dialect.name == "sqlite":
        raise LedgerCorrupt(
            f"{where!r} is a database, but not a ledger: its tables are {', '.join(sorted(names)[:3])}",
            hint="point ledger.url at another file",
        )
    return None
