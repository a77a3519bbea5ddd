"""The ledger's database: opened, migrated, and its faults told apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from ripieno.errors import ConfigError, LedgerCorrupt, LedgerError, LedgerFull, LedgerTooNew
from ripieno.plugins import needs_extra
from ripieno.privacy.files import make_folder, make_private, narrow

HEAD = "0005"
KNOWN = ("0001", "0002", "0003", "0004", HEAD)
OPENING_MS = 30_000
"""How long another process is waited for that opens, and perhaps migrates, the same database."""
PATIENT_S = 30.0
"""How long a command that works through many entries waits for a database that another process holds."""
CONNECT_S = 2
"""Seconds in which a server must take a connection; no less can be asked of the driver."""
_LOCKED = "is locked by another process"
_FORMS = "write sqlite:///path/to/ledger.db, or postgresql://user@host/database"


class Patience:
    """How long new connections wait for what another process holds, in milliseconds; more while a database is opened.

    Args:
        busy_ms: once it is open.
    """

    def __init__(self, busy_ms: int) -> None:
        self.busy_ms = OPENING_MS
        self._later_ms = busy_ms

    def end_opening(self, engine: Engine) -> None:
        """From here on connections wait no longer than they should."""
        self.busy_ms = self._later_ms
        engine.dispose()


def open_engine(url: str, *, patience_s: float = PATIENT_S) -> Engine:
    """Open the database, make what is missing, bring its schema to this version.

    Args:
        url: of the database.
        patience_s: how long connections wait for what another process holds, in seconds.

    Raises:
        ConfigError: the URL is not one.
        LedgerCorrupt: the file is not a ledger, or is damaged.
        LedgerTooNew: a newer Ripieno wrote it.
        LedgerError: it cannot be opened.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"ledger.url {url!r} is not a database URL", key="ledger.url", hint=_FORMS) from error
    where, patience = hide_password(url), Patience(round(1000 * patience_s))
    match parsed.get_backend_name():
        case "sqlite":
            try:
                engine = open_sqlite(parsed, patience=patience)
            except OSError as error:
                raise LedgerError(
                    f"the folder of ledger {where!r} cannot be made: {error.strerror}",
                    hint="check ledger.url and its permissions",
                ) from error
        case "postgresql":
            engine = open_postgres(parsed, patience=patience)
        case _:
            raise ConfigError(f"ledger.url {where!r} is not one that Ripieno can write", key="ledger.url", hint=_FORMS)
    try:
        with translated_faults(where), engine.begin() as connection:
            _migrate(connection, where)
    except BaseException:
        engine.dispose()
        raise
    patience.end_opening(engine)
    return engine


def hide_password(url: str) -> str:
    """The URL as errors and logs may show it."""
    try:
        return make_url(url).render_as_string()
    except ArgumentError:
        return url


@contextmanager
def translated_faults(where: str) -> Iterator[None]:
    """Turn the driver's faults into the ledger's errors."""
    try:
        yield
    except DBAPIError as error:
        raise explain_fault(str(error.orig), where) from error
    except SQLAlchemyError as error:
        raise LedgerError(f"ledger {where!r}: {error}") from error


def explain_fault(reason: str, where: str) -> LedgerError:
    """The ledger's error for what a driver says."""
    low = reason.lower()
    if "not a database" in low or "malformed" in low or "corrupt" in low:
        return LedgerCorrupt(
            f"ledger {where!r} is damaged: {reason}", hint="restore it from a copy, or move it away and start anew"
        )
    if "full" in low or "disk i/o" in low or "no space" in low:
        return LedgerFull(
            f"ledger {where!r} cannot grow: {reason}", hint="free space on its disk; what was receipted is safe"
        )
    if "locked" in low or "lock timeout" in low:
        return LedgerError(
            f"ledger {where!r} {_LOCKED}: {reason}",
            hint="end the process that holds it; the ledger is tried again by itself",
        )
    return LedgerError(f"ledger {where!r}: {reason}", hint="check ledger.url and its permissions")


def is_lock(fault: LedgerError) -> bool:
    """Whether the database answers, and another process holds it."""
    return _LOCKED in fault.message


def open_sqlite(url: URL, *, patience: Patience | None = None) -> Engine:
    """A file in WAL mode, durable with each commit, one writer at a time; only its owner may read it."""
    if not url.database:
        raise ConfigError("ledger.url names no file", key="ledger.url", hint=_FORMS)
    path = Path(url.database)
    if url.database != ":memory:" and not url.database.startswith("file:"):
        make_folder(path.parent)
        make_private(path)  # SQLite gives its -wal and -shm the mode of the file
        for beside in ("-wal", "-shm"):
            narrow(path.with_name(path.name + beside))
    engine = create_engine(url, poolclass=QueuePool, pool_size=4, max_overflow=16)
    waits = patience or Patience(OPENING_MS)
    event.listen(engine, "connect", lambda connection, _: _prepare_sqlite(connection, waits.busy_ms))
    event.listen(engine, "begin", _begin_immediately)
    return engine


def open_postgres(url: URL, *, key: str = "ledger.url", patience: Patience | None = None) -> Engine:
    """A server; `key` is the setting that names it.

    Raises:
        MissingExtra: the driver is not installed.
    """
    told = {"connect_timeout": CONNECT_S, "tcp_user_timeout": 1000 * CONNECT_S}
    given = {name: value for name, value in told.items() if name not in url.query}
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
    if connection.dialect.name == "postgresql":  # replicas that start together take turns
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
            f"{where!r} is a database, but not a ledger: it holds {', '.join(sorted(names)[:3])}",
            hint="point ledger.url at another file",
        )
    return None
