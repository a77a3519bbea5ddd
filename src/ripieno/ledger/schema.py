"""Tables of the ledger. Every change needs a migration in `migrations/`."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, text

metadata = MetaData()

OF_POLICIES = "kind IN ('learned', 'promoted', 'staged')"

tasks = Table(
    "tasks",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("body", Text, nullable=False),
)

entries = Table(
    "entries",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("run", Text),
    Column("decision", Text),
    Column("task", String(64)),
    Column("dataset", Text),
    Column("body", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Index("entries_run", "run"),
    Index("entries_decision", "decision"),
    Index("entries_dataset", "dataset"),
    Index("entries_claimed", "seq", sqlite_where=text("kind = 'claimed'"), postgresql_where=text("kind = 'claimed'")),
    Index("entries_decided", "seq", sqlite_where=text("kind = 'decided'"), postgresql_where=text("kind = 'decided'")),
    Index("entries_policies", "seq", sqlite_where=text(OF_POLICIES), postgresql_where=text(OF_POLICIES)),
    Index("entries_judged", "seq", sqlite_where=text("kind = 'judged'"), postgresql_where=text("kind = 'judged'")),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("at", Float, nullable=False),
    Column("body", Text, nullable=False),
    Column("revoked_at", Float),
)

spend = Table(
    "spend",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("period", String(10), primary_key=True),
    Column("cost_usd", Float, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("unknown", BigInteger, nullable=False, server_default="0"),
)

holds = Table(
    "holds",
    metadata,
    Column("run", Text, primary_key=True),
    Column("key", String(32), nullable=False),
    Column("at", Float, nullable=False),
    Column("usd", Float, nullable=False),
    Index("holds_key", "key"),
)

documents = Table(
    "documents",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("at", Float, nullable=False),
    Column("body", Text, nullable=False),
    Index("documents_at", "at"),
)

catalog = Table(
    "catalog",
    metadata,
    Column("dataset", Text, primary_key=True),
    Column("worker", Text, primary_key=True),
    Column("body", Text, nullable=False),
)
