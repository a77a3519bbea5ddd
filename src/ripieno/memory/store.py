"""Store: items on disk. Items are added, superseded, retired and erased, and never changed."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    Select,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from ripieno.domain import Clock
from ripieno.domain.memory import RETENTION_S, Erasure, Item, ItemKind, NewItem, Receipt, Scope
from ripieno.domain.objective import Privacy
from ripieno.errors import DataError, NotFound
from ripieno.memory.opening import explain, lock_writers
from ripieno.memory.redact import remove_secrets
from ripieno.memory.schema import authors, items, links, upsert, vectors
from ripieno.memory.words import AFTER, BEFORE, words_of

LONGEST_TEXT = 100_000
"""Most characters of an item."""
NEIGHBOURS = 2
"""Items before one, in its thread, whose words are indexed with it."""
CANARY_PROJECT = "\x01canary"
"""A project that no caller can name."""
_CHUNK = 500
_ITEM_FIELDS = tuple(field.name for field in fields(Item))


class Store:
    """Items, their order, and their word index."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock

    def write(self, new: Sequence[NewItem]) -> list[Receipt]:
        """Write all items or none. An item with a known `ref` of its source is not written again.

        Returns:
            A receipt for each, once all are durable.

        Raises:
            DataError: a text is too long.
            NotFound: an item supersedes, or is derived from, one that does not exist.
            MemoryUnavailable: nothing was written.
        """
        for each in new:
            if len(each.text) > LONGEST_TEXT:
                raise DataError(
                    f"an item of {len(each.text)} characters is too long; the limit is {LONGEST_TEXT}",
                    path=each.source or "memory",
                    place=each.ref or None,
                    hint="split it",
                )
        with self.writing() as connection:
            return self.add(connection, new)

    def add(self, connection: Connection, new: Sequence[NewItem]) -> list[Receipt]:
        """Write items within a transaction, as `write` does. Secrets are always removed from each text."""
        redacted = [remove_secrets(each.text) for each in new]
        new = [replace(each, text=clean.text) for each, clean in zip(new, redacted, strict=True)]
        names = [_name(each) for each in new]
        known = _find_places(connection, names)
        fresh: dict[str, NewItem] = {}
        for name, each in zip(names, new, strict=True):
            if name not in known:
                fresh.setdefault(name, each)
        _require_origins(connection, fresh)
        start = connection.execute(select(func.max(items.c.place))).scalar() or 0  # no row is ever deleted
        places = {name: start + nth for nth, name in enumerate(fresh, start=1)}
        now = self.clock.now()
        if fresh:
            connection.execute(insert(items), [_to_row(name, places[name], each, now) for name, each in fresh.items()])
            pairs = [
                {"derived": name, "origin": origin} for name, each in fresh.items() for origin in each.derived_from
            ]
            if pairs:
                connection.execute(insert(links), pairs)
            index(connection, [(places[name], each) for name, each in fresh.items()])
        return [
            Receipt(
                id=name,
                place=known.get(name) or places[name],
                is_new=name not in known and names.index(name) == nth,
                removed=sum(redacted[nth].counts.values()),
            )
            for nth, name in enumerate(names)
        ]

    def find(self, beginning: str) -> str:
        """Find the id of the only item whose id begins so.

        Raises:
            NotFound: no item or several items match.
        """
        query = select(items.c.id).where(items.c.id.startswith(beginning, autoescape=True)).limit(2)
        with self.reading() as connection:
            found = [row.id for row in connection.execute(query)]
        if len(found) != 1:
            raise NotFound(
                f"memory holds {'several items' if found else 'no item'} {beginning!r}", hint="give the whole id"
            )
        return str(found[0])

    def get(self, ids: Sequence[str]) -> list[Item]:
        """Return items by their ids, in the order of the ids, including erased ones.

        Raises:
            NotFound: an item does not exist.
        """
        with self.reading() as connection:
            found = {row["id"]: to_item(row) for row in _read_rows(connection, items.c.id, ids)}
        missing = next((name for name in ids if name not in found), None)
        if missing is not None:
            raise NotFound(f"memory holds no item {missing!r}")
        return [found[name] for name in ids]

    def at(self, places: Sequence[int]) -> list[Item]:
        """Return items by their places, without those that do not exist."""
        with self.reading() as connection:
            return [to_item(row) for row in _read_rows(connection, items.c.place, places)]

    def history(self, name: str) -> list[Item]:
        """Return an item, all that it superseded and all that superseded it, the oldest first.

        Raises:
            NotFound: the item does not exist.
        """
        chain = self.get([name])
        with self.reading() as connection:
            while chain[0].supersedes is not None:
                query = select(items).where(items.c.id == chain[0].supersedes)
                chain.insert(0, to_item(connection.execute(query).mappings().one()))
            while True:
                query = select(items).where(items.c.supersedes == chain[-1].id)
                later = connection.execute(query).mappings().first()
                if later is None:
                    return chain
                chain.append(to_item(later))

    def erase(self, name: str) -> Erasure:
        """Erase an item's text and all items derived from it. A tombstone with its digest stays.

        Raises:
            NotFound: the item does not exist.
        """
        item = self.get([name])[0]
        now = self.clock.now()
        with self.writing() as connection:
            derived = [row.derived for row in connection.execute(select(links.c.derived).where(links.c.origin == name))]
            for row in connection.execute(select(items).where(items.c.id.in_([name, *derived]))).mappings().all():
                unindex(connection, to_item(row))
            connection.execute(update(items).where(items.c.id.in_([name, *derived])).values(text="", erased_at=now))
            digest = connection.execute(select(items.c.digest).where(items.c.id == name)).scalar_one()
            heal_thread(connection, item)
            words_of(connection).scrub(self.engine, connection)
        words_of(self.engine).scrub(self.engine, None)
        return Erasure(id=name, digest=str(digest), erased_at=now, derived=tuple(derived))

    def count(self) -> int:
        """Count the items, without erased ones and canaries."""
        query = select(func.count()).where(items.c.erased_at.is_(None), items.c.project != CANARY_PROJECT)
        with self.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def newest(self) -> float | None:
        """Return the time at which the latest item was recorded."""
        query = select(items.c.recorded_at).where(items.c.project != CANARY_PROJECT)
        query = query.order_by(items.c.recorded_at.desc()).limit(1)
        with self.reading() as connection:
            return connection.execute(query).scalar()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction. Its commit is durable.

        Raises:
            MemoryUnavailable: the transaction cannot start or commit. Nothing of it stays.
        """
        try:
            with self.engine.begin() as connection:
                lock_writers(connection)
                yield connection
        except SQLAlchemyError as error:
            raise explain(error) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a read that blocks no writer.

        Raises:
            MemoryUnavailable: memory cannot be read.
        """
        try:
            with self.engine.connect().execution_options(reads_only=True) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise explain(error) from error


def _read_rows(
    connection: Connection, key: Column[Any], values: Sequence[object], *, query: Select[Any] | None = None
) -> Iterator[RowMapping]:
    """Yield the rows with one of the values. There may be more values than one query can hold."""
    asked = select(items) if query is None else query
    for start in range(0, len(values), _CHUNK):
        yield from connection.execute(asked.where(key.in_(values[start : start + _CHUNK]))).mappings()


def _require_origins(connection: Connection, fresh: dict[str, NewItem]) -> None:
    wanted = {each.supersedes for each in fresh.values() if each.supersedes is not None}
    wanted |= {origin for each in fresh.values() for origin in each.derived_from}
    outside = sorted(wanted - set(fresh))
    known = _find_places(connection, outside)
    for name in outside:
        if name not in known:
            raise NotFound(f"memory holds no item {name!r}, which a new item supersedes or is derived from")


def _find_places(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    rows = _read_rows(connection, items.c.id, names, query=select(items.c.id, items.c.place))
    return {row["id"]: row["place"] for row in rows}


def index(connection: Connection, new: Sequence[tuple[int, NewItem | Item]]) -> None:
    """Index the words of new items, each with its neighbours."""
    if not new:
        return
    before: dict[int, str] = {}
    after: dict[int, str] = {}
    changed: dict[int, str] = {}
    ends: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
    for place, item in new:
        words = with_author(item.author, item.text)
        key = (item.scope.project, item.scope.user, item.thread)
        if item.thread and key not in ends:
            ends[key] = _read_end(connection, key, place)
        end = ends.get(key, [])
        before[place] = "\n".join([*(each for _, each in end), words])
        after[place] = words
        if end:
            previous, text_ = end[-1]
            (after if previous in after else changed)[previous] = f"{text_}\n{words}"
        if item.thread:
            ends[key] = [*end, (place, words)][-NEIGHBOURS:]
    kept = words_of(connection)
    kept.add(connection, BEFORE, before)
    kept.add(connection, AFTER, after)
    for place, words in changed.items():
        kept.change(connection, AFTER, place, words)
    known_authors = {(item.scope.project, item.scope.user, item.author) for _, item in new if item.author}
    if known_authors:
        connection.execute(
            upsert(connection, authors).on_conflict_do_nothing(),
            [{"project": project, "user": user, "author": author} for project, user, author in sorted(known_authors)],
        )


def unindex(connection: Connection, item: Item) -> None:
    """Remove an item from all projections."""
    words_of(connection).remove(connection, item.place)
    connection.execute(delete(vectors).where(vectors.c.place == item.place))


def heal_thread(connection: Connection, item: Item) -> None:
    """Reindex the neighbours of an erased item, so that its words remain nowhere."""
    if not item.thread:
        return
    key = (item.scope.project, item.scope.user, item.thread)
    earlier = _read_end(connection, key, item.place)
    query = select(items.c.place, items.c.author, items.c.text).where(
        *_of_thread(key), items.c.place > item.place, items.c.erased_at.is_(None)
    )
    rows = connection.execute(query.order_by(items.c.place).limit(NEIGHBOURS)).all()
    later = [(int(row.place), with_author(row.author, row.text)) for row in rows]
    around, kept = [*earlier, *later], words_of(connection)
    for nth, (place, words) in enumerate(later, start=len(earlier)):
        lent = [each for _, each in around[max(nth - NEIGHBOURS, 0) : nth]]
        kept.change(connection, BEFORE, place, "\n".join([*lent, words]))
    if earlier:
        place, words = earlier[-1]
        kept.change(connection, AFTER, place, "\n".join([words, *(each for _, each in later[:1])]))


def rebuild(store: Store) -> int:
    """Rebuild the word index from the items, and return their number."""
    with store.writing() as connection:
        words_of(connection).clear(connection)
        connection.execute(delete(authors))
        query = select(items).where(items.c.erased_at.is_(None)).order_by(items.c.place)
        kept = [to_item(row) for row in connection.execute(query).mappings()]
        index(connection, [(item.place, item) for item in kept])
    return len(kept)


def with_author(author: str, words: str) -> str:
    """Return an item's words with their author."""
    return f"{author}: {words}" if author else words


def to_item(found: RowMapping) -> Item:
    """Convert a row into an item."""
    converted: dict[str, Any] = {
        "kind": ItemKind(found["kind"]),
        "scope": Scope(project=found["project"], user=found["user"]),
        "privacy": Privacy(found["privacy"]),
        "derived_from": tuple(found["derived_from"].split()),
    }
    return Item(**{name: converted[name] if name in converted else found[name] for name in _ITEM_FIELDS})


def _name(item: NewItem) -> str:
    if not item.ref:
        return os.urandom(16).hex()
    packed = f"{item.source}\x1f{item.scope.project}\x1f{item.scope.user}\x1f{item.ref}"
    return hashlib.sha256(packed.encode()).hexdigest()[:32]


def _to_row(name: str, place: int, item: NewItem, now: float) -> dict[str, object]:
    happened = item.happened_at if item.happened_at is not None else now
    kept = RETENTION_S.get(item.kind)
    same = ("text", "author", "thread", "source", "ref", "valid_to", "supersedes", "confidence")
    return {column: getattr(item, column) for column in same} | {
        "place": place,
        "id": name,
        "kind": item.kind.value,
        "project": item.scope.project,
        "user": item.scope.user,
        "privacy": item.privacy.value,
        "happened_at": happened,
        "valid_from": item.valid_from if item.valid_from is not None else happened,
        "recorded_at": now,
        "derived_from": " ".join(item.derived_from),
        "expires_at": now + kept if kept is not None else None,
        "digest": hashlib.sha256(item.text.encode()).hexdigest(),
    }


def _of_thread(key: tuple[str, str, str]) -> tuple[ColumnElement[bool], ...]:
    project, user, thread = key
    return (items.c.project == project, items.c.user == user, items.c.thread == thread)


def _read_end(connection: Connection, key: tuple[str, str, str], before: int) -> list[tuple[int, str]]:
    rows = connection.execute(
        select(items.c.place, items.c.author, items.c.text)
        .where(*_of_thread(key), items.c.place < before, items.c.erased_at.is_(None))
        .order_by(items.c.place.desc())
        .limit(NEIGHBOURS)
    ).all()
    return [(row.place, with_author(row.author, row.text)) for row in reversed(rows)]
