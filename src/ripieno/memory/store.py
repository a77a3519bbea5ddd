"""Store: items on disk. Items are added, superseded, retired and erased, and never changed."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from ripieno.domain import Clock
from ripieno.domain.memory import RETENTION_S, Erasure, Item, ItemKind, NewItem, Receipt, Scope
from ripieno.domain.task import Privacy
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
        known = self._find_places(connection, names)
        fresh: dict[str, NewItem] = {}
        for name, each in zip(names, new, strict=True):
            if name not in known:
                fresh.setdefault(name, each)
        self._require_origins(connection, fresh)
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
        found: dict[str, Item] = {}
        with self.reading() as connection:
            for start in range(0, len(ids), _CHUNK):
                query = select(items).where(items.c.id.in_(ids[start : start + _CHUNK]))
                found |= {row["id"]: to_item(row) for row in connection.execute(query).mappings()}
        missing = next((name for name in ids if name not in found), None)
        if missing is not None:
            raise NotFound(f"memory holds no item {missing!r}")
        return [found[name] for name in ids]

    def at(self, places: Sequence[int]) -> list[Item]:
        """Return items by their places, without those that do not exist."""
        with self.reading() as connection:
            found: list[Item] = []
            for start in range(0, len(places), _CHUNK):
                query = select(items).where(items.c.place.in_(places[start : start + _CHUNK]))
                found += map(to_item, connection.execute(query).mappings())
            return found

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

    def _find_places(self, connection: Connection, names: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(names), _CHUNK):
            rows = connection.execute(
                select(items.c.id, items.c.place).where(items.c.id.in_(names[start : start + _CHUNK]))
            )
            found |= {row.id: row.place for row in rows}
        return found

    def _require_origins(self, connection: Connection, fresh: dict[str, NewItem]) -> None:
        wanted = {each.supersedes for each in fresh.values() if each.supersedes is not None}
        wanted |= {origin for each in fresh.values() for origin in each.derived_from}
        known = self._find_places(connection, sorted(wanted - set(fresh)))
        for name in sorted(wanted - set(fresh) - set(known)):
            raise NotFound(f"memory holds no item {name!r}, which a new item supersedes or is derived from")


@dataclass(slots=True)
class _Thread:
    """The end of one thread while items are added to it."""

    last: list[tuple[int, str]] = field(default_factory=list)
    """Places and words of the thread's latest items, the newest last."""


def index(connection: Connection, new: Sequence[tuple[int, NewItem]]) -> None:
    """Index the words of new items, each with its neighbours."""
    if not new:
        return
    before: dict[int, str] = {}
    after: dict[int, str] = {}
    changed: dict[int, str] = {}
    threads: dict[tuple[str, str, str], _Thread] = {}
    for place, item in new:
        words = with_author(item.author, item.text)
        key = (item.scope.project, item.scope.user, item.thread)
        thread = _Thread()
        if item.thread:
            if key not in threads:
                threads[key] = _Thread(_read_end(connection, key, place))
            thread = threads[key]
        before[place] = "\n".join([*(each for _, each in thread.last), words])
        after[place] = words
        if thread.last:
            previous, text_ = thread.last[-1]
            (after if previous in after else changed)[previous] = f"{text_}\n{words}"
        thread.last = [*thread.last, (place, words)][-NEIGHBOURS:]
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
        index(connection, [(item.place, _renew(item)) for item in kept])
    return len(kept)


def with_author(author: str, words: str) -> str:
    """Return an item's words with their author."""
    return f"{author}: {words}" if author else words


def to_item(found: RowMapping) -> Item:
    """Convert a row into an item."""
    return Item(
        id=found["id"],
        place=found["place"],
        text=found["text"],
        kind=ItemKind(found["kind"]),
        scope=Scope(project=found["project"], user=found["user"]),
        author=found["author"],
        thread=found["thread"],
        source=found["source"],
        ref=found["ref"],
        privacy=Privacy(found["privacy"]),
        happened_at=found["happened_at"],
        valid_from=found["valid_from"],
        valid_to=found["valid_to"],
        recorded_at=found["recorded_at"],
        supersedes=found["supersedes"],
        derived_from=tuple(found["derived_from"].split()),
        confidence=found["confidence"],
        expires_at=found["expires_at"],
        erased_at=found["erased_at"],
    )


def _renew(item: Item) -> NewItem:
    """Return an item in the form that is indexed."""
    return NewItem(text=item.text, author=item.author, thread=item.thread, scope=item.scope)


def _name(item: NewItem) -> str:
    if not item.ref:
        return os.urandom(16).hex()
    packed = f"{item.source}\x1f{item.scope.project}\x1f{item.scope.user}\x1f{item.ref}"
    return hashlib.sha256(packed.encode()).hexdigest()[:32]


def _to_row(name: str, place: int, item: NewItem, now: float) -> dict[str, object]:
    happened = item.happened_at if item.happened_at is not None else now
    kept = RETENTION_S.get(item.kind)
    return {
        "place": place,
        "id": name,
        "kind": item.kind.value,
        "text": item.text,
        "author": item.author,
        "thread": item.thread,
        "project": item.scope.project,
        "user": item.scope.user,
        "privacy": item.privacy.value,
        "source": item.source,
        "ref": item.ref,
        "happened_at": happened,
        "valid_from": item.valid_from if item.valid_from is not None else happened,
        "valid_to": item.valid_to,
        "recorded_at": now,
        "supersedes": item.supersedes,
        "derived_from": " ".join(item.derived_from),
        "confidence": item.confidence,
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
