"""Documents: responses and conversations that clients ask the gateway to keep, in the ledger's database.

They are no entries: a client may delete its own, and they end by themselves after some time.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Engine, Select, delete, insert, select, update

from ripieno.domain import Clock, JsonValue
from ripieno.ledger.database import translated_faults
from ripieno.ledger.schema import documents

KEPT_S = 30 * 86_400.0
"""Seconds that a document is kept after its last change, as OpenAI keeps responses."""
PRUNED_EVERY_S = 3_600.0


class Document(NamedTuple):
    """A document, and who may read it."""

    owner: str
    """Id of a virtual key; empty for requests without one."""
    body: dict[str, JsonValue]


class Documents:
    """Stores documents by their owner and id. All methods read or write the database: call them in a thread."""

    def __init__(self, engine: Engine, *, url: str, clock: Clock) -> None:
        self._engine = engine
        self._reader = engine.execution_options(reads_only=True)
        self._url = url
        self._clock = clock
        self._pruned_at = 0.0

    def put(self, owner: str, name: str, body: Mapping[str, JsonValue]) -> None:
        """Store a document, or replace it."""
        now = self._clock.now()
        row = {"body": msgspec.json.encode(body).decode(), "at": now}
        with translated_faults(self._url), self._engine.begin() as connection:
            if not connection.execute(update(documents).where(_is_of(owner, name)).values(**row)).rowcount:
                connection.execute(insert(documents), [{"owner": owner, "id": name, **row}])
            if now - self._pruned_at > PRUNED_EVERY_S:
                self._pruned_at = now
                connection.execute(delete(documents).where(documents.c.at < now - KEPT_S))

    def change(
        self, owner: str | None, name: str, change: Callable[[dict[str, JsonValue]], Mapping[str, JsonValue]]
    ) -> bool:
        """Replace the body of a document by what `change` makes of it, while no other can change it.

        Returns:
            False if there is no such document. If `change` raises an error, the document stays as it is.
        """
        query = self._select(owner, name).with_for_update()
        with translated_faults(self._url), self._engine.begin() as connection:
            row = connection.execute(query).first()
            if row is None:
                return False
            body = msgspec.json.encode(change(_decode(row.body))).decode()
            changed = update(documents).where(_is_of(row.owner, name)).values(body=body, at=self._clock.now())
            connection.execute(changed)
        return True

    def find(self, owner: str | None, name: str) -> "Document | None":
        """Return a document of an owner, or of any owner if that is None; None if there is none."""
        with translated_faults(self._url), self._reader.connect() as connection:
            row = connection.execute(self._select(owner, name)).first()
        return None if row is None else Document(row.owner, _decode(row.body))

    def delete(self, owner: str | None, name: str) -> bool:
        """Delete a document of an owner, or of any owner if that is None; return whether there was one."""
        query = delete(documents).where(_is_of(owner, name))
        with translated_faults(self._url), self._engine.begin() as connection:
            return bool(connection.execute(query).rowcount)

    def _select(self, owner: str | None, name: str) -> "Select[tuple[str, str]]":
        query = select(documents.c.owner, documents.c.body).where(_is_of(owner, name))
        return query.where(documents.c.at >= self._clock.now() - KEPT_S)


def _decode(body: str) -> dict[str, JsonValue]:
    return msgspec.json.decode(body, type=dict[str, object])


def _is_of(owner: str | None, name: str) -> ColumnElement[bool]:
    named = documents.c.id == name
    return named if owner is None else named & (documents.c.owner == owner)
