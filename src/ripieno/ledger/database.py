"""The ledger's database: opened, migrated, and its faults told apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from ripieno.errors import ConfigError, LedgerCorrupt, LedgerError, LedgerFull, LedgerTooNew
from ripieno.plugins import needs_extra
from ripieno.privacy.files import make_folder, make_private, narrow

HEAD = "0005"
KNOWN = ("0001", "0002", "0003", "0004", HEAD)
BUSY_MS = 30_000
_FORMS = "write sqlite:///path/to/ledger.db, or postgresql://user@host/database"


def open_engine(url: str) -> Engine:
    """Open the database, make what is missing, bring its schema to this version.

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
    where = hide_password(url)
    match parsed.get_backend_name():
        case "sqlite":
            try:
                engine = open_sqlite(parsed)
            except OSError as error:
                raise LedgerError(
                    f"the folder of ledger {where!r} cannot be made: {error.strerror}",
                    hint="check ledger.url and its permissions",
                ) from error
        case "postgresql":
            engine = open_postgres(parsed)
        case _:
            raise ConfigError(f"ledger.url {where!r} is not one that Ripieno can write", key="ledger.url", hint=_FORMS)
    try:
        with translated_faults(where), engine.begin() as connection:
            _migrate(connection, where)
    except BaseException:
        engine.dispose()
        raise
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
    return LedgerError(f"ledger {where!r}: {reason}", hint="check ledger.url and its permissions")


def open_sqlite(url: URL) -> Engine:
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
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediately)
    return engine


def open_postgres(url: URL, *, key: str = "ledger.url") -> Engine:
    """A server; `key` is the setting that names it.

    Raises:
        MissingExtra: the driver is not installed.
    """
    with needs_extra("postgres", f"a PostgreSQL database in {key}", key=key):
        return create_engine(url.set(drivername="postgresql+psycopg"), pool_size=4, max_overflow=16, pool_pre_ping=True)


def _prepare_sqlite(connection: object, record: object) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]  # the driver's own connection
    cursor = connection.cursor()  # type: ignore[attr-defined]  # the driver's own connection
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_MS}", "wal_autocheckpoint=2000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


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
