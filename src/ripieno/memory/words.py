"""Words: the full-text index of items, for each database that memory supports."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Computed,
    Connection,
    Engine,
    Index,
    MetaData,
    RowMapping,
    String,
    Table,
    TableClause,
    cast,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    table,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, REAL, TSVECTOR

from ripieno.memory.schema import items

BEFORE, AFTER = "lexical_before", "lexical_after"
"""Indexes of each item's words by its place: with the two items before it in its thread, and with the one after it."""
PROJECTIONS = (BEFORE, AFTER)
MOST_RANKED = 4_000
"""Most rows that PostgreSQL ranks for one question. Each is read from its table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """A search for words."""

    terms: Mapping[str, int]
    """Words, with the number of items that contain each."""
    size: int
    where: Sequence[ColumnElement[bool]]
    """Conditions of the items that may be found."""
    most: int


class Words(ABC):
    """Stores and finds words.

    Args:
        place: name of the column with an item's place.
    """

    def __init__(self, tables: Mapping[str, TableClause], *, place: str) -> None:
        self._tables = tables
        self._place = place

    def add(self, connection: Connection, name: str, rows: Mapping[int, str]) -> None:
        """Add words by place to a projection."""
        listed = [{self._place: place, "words": words} for place, words in rows.items()]
        connection.execute(insert(self._tables[name]), listed)

    def change(self, connection: Connection, name: str, place: int, words: str) -> None:
        """Replace the words of a place."""
        found = self._tables[name]
        connection.execute(update(found).where(found.c[self._place] == place).values(words=words))

    def remove(self, connection: Connection, place: int) -> None:
        """Remove an item from all projections."""
        for found in self._tables.values():
            connection.execute(delete(found).where(found.c[self._place] == place))

    def clear(self, connection: Connection) -> None:
        """Remove all items."""
        for found in self._tables.values():
            connection.execute(delete(found))

    @abstractmethod
    def prepare(self, connection: Connection) -> None:
        """Create what is missing."""

    def count(self, connection: Connection, word: str, most: int) -> int:
        """Count the items that contain a word, up to `most`."""
        words = self._tables[BEFORE]
        found = select(words.c[self._place]).where(self._contains(words, word)).limit(most).subquery()
        return int(connection.execute(select(func.count()).select_from(found)).scalar_one())

    @abstractmethod
    def _contains(self, words: TableClause, word: str) -> ColumnElement[bool]:
        """Make the condition that a row contains a word."""

    @abstractmethod
    def match(self, connection: Connection, name: str, sought: Sought) -> Sequence[RowMapping]:
        """Find items with any of the words: place, id, author, thread, derived_from and score, the highest first."""

    @abstractmethod
    def scrub(self, engine: Engine, connection: Connection | None) -> None:
        """Remove all traces of erased text. Called within the transaction, and once without it after the commit."""


class Fts5(Words):
    """SQLite's full-text search, with its own BM25 rank."""

    def __init__(self) -> None:
        super().__init__(
            {name: table(name, column("rowid"), column("words"), column("rank"), column(name)) for name in PROJECTIONS},
            place="rowid",
        )

    def prepare(self, connection: Connection) -> None:
        """See `Words`."""
        for name in PROJECTIONS:
            connection.execute(
                text(
                    f"CREATE VIRTUAL TABLE IF NOT EXISTS {name} "
                    "USING fts5(words, tokenize = 'porter unicode61 remove_diacritics 2')"
                )
            )

    def _contains(self, words: TableClause, word: str) -> ColumnElement[bool]:
        return words.c.words.op("MATCH")(f'"{word}"')

    def match(self, connection: Connection, name: str, sought: Sought) -> Sequence[RowMapping]:
        """See `Words`."""
        words = self._tables[name]
        query = (
            select(*_SHOWN, (-words.c.rank).label("score"))
            .select_from(words.join(items, items.c.place == words.c.rowid))
            .where(words.c.words.op("MATCH")(" OR ".join(f'"{term}"' for term in sought.terms)), *sought.where)
            .order_by(words.c.rank)
            .limit(sought.most)
        )
        return connection.execute(query).mappings().all()

    def scrub(self, engine: Engine, connection: Connection | None) -> None:
        """See `Words`."""
        if connection is not None:
            connection.execute(text("PRAGMA secure_delete = ON"))
            for name, found in self._tables.items():
                connection.execute(insert(found).values({name: "optimize"}))
            return
        with engine.connect() as after:
            after.execution_options(reads_only=True)
            after.exec_driver_sql("COMMIT")
            after.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            after.exec_driver_sql("BEGIN")


class Tsvector(Words):
    """PostgreSQL's full-text search. Its ranks ignore the rarity of a word, so the query weighs it.

    The score of an item is the sum over its words of the log-odds of their rarity times their frequency, scaled by the
    item's length: the shape of BM25 (Robertson & Zaragoza, 2009), with `ts_rank` as the saturating count.
    """

    def __init__(self) -> None:
        self.metadata = MetaData()
        super().__init__({name: _plain(name, self.metadata) for name in PROJECTIONS}, place="place")

    def prepare(self, connection: Connection) -> None:
        """See `Words`."""
        self.metadata.create_all(connection)

    def _contains(self, words: TableClause, word: str) -> ColumnElement[bool]:
        return words.c.found.op("@@")(_seek(word))

    def match(self, connection: Connection, name: str, sought: Sought) -> Sequence[RowMapping]:
        """See `Words`."""
        words = self._tables[name]
        known = _take_rarest(sought.terms)
        if not known:
            return ()
        usual = self._find_usual_length(connection, words)
        even = cast([1.0, 1.0, 1.0, 1.0], ARRAY(REAL))
        length = 0.25 + 0.75 * func.sqrt(func.length(words.c.found) / usual)
        parts = [
            select(
                words.c.place,
                (_weigh(count, sought.size) * func.ts_rank(even, words.c.found, _seek(term)) / length).label("score"),
            ).where(self._contains(words, term))
            for term, count in known.items()
        ]
        each = union_all(*parts).subquery()
        total = select(each.c.place, func.sum(each.c.score).label("score")).group_by(each.c.place).subquery()
        query = (
            select(*_SHOWN, total.c.score)
            .select_from(total.join(items, items.c.place == total.c.place))
            .where(*sought.where)
            .order_by(total.c.score.desc())
            .limit(sought.most)
        )
        return connection.execute(query).mappings().all()

    def scrub(self, engine: Engine, connection: Connection | None) -> None:
        """Vacuum the tables after the commit. Pages and logs belong to the server. See `Words`."""
        if connection is None:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as after:
                after.exec_driver_sql(f"VACUUM items, vectors, {', '.join(PROJECTIONS)}")

    def _find_usual_length(self, connection: Connection, words: TableClause) -> float:
        latest = select(words.c.found).order_by(words.c.place.desc()).limit(200).subquery()
        found = connection.execute(select(func.avg(func.length(latest.c.found)))).scalar()
        return max(float(found or 1.0), 1.0)


_SHOWN = (items.c.place, items.c.id, items.c.author, items.c.thread, items.c.derived_from)


def _plain(name: str, metadata: MetaData) -> Table:
    return Table(
        name,
        metadata,
        Column("place", BigInteger, primary_key=True, autoincrement=False),
        Column("words", String, nullable=False),
        Column("found", TSVECTOR, Computed("to_tsvector('english', words)", persisted=True)),
        Index(f"{name}_found", "found", postgresql_using="gin"),
    )


def _seek(term: str) -> ColumnElement[object]:
    return func.plainto_tsquery(text("'english'"), literal(term))


def _take_rarest(terms: Mapping[str, int]) -> dict[str, int]:
    """Return the rarest words whose items together are few enough to be ranked; at least one word."""
    taken: dict[str, int] = {}
    for term, count in sorted(terms.items(), key=lambda item: item[1]):
        if taken and sum(taken.values()) + count > MOST_RANKED:
            break
        if count:
            taken[term] = count
    return taken


def _weigh(count: int, size: int) -> float:
    return math.log1p((max(size, count) - count + 0.5) / (count + 0.5))


_KNOWN: Mapping[str, Words] = {"sqlite": Fts5(), "postgresql": Tsvector()}


def words_of(bind: Connection | Engine) -> Words:
    """Return the word index of a database."""
    return _KNOWN[bind.dialect.name]
