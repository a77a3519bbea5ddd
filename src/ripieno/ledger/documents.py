"""Documents: responses and conversations that clients ask the gateway to keep, in the ledger's database.

They are no entries: a client may delete its own, and they end by themselves after some time.
"""

from collections.abc import Mapping

import msgspec
from sqlalchemy import Engine, delete, insert, select, update

from ripieno.domain import Clock, JsonValue
from ripieno.ledger.database import translated_faults
from ripieno.ledger.schema import documents

KEPT_S = 30 * 86_400.0
"""Seconds that a document is kept after its last change, as OpenAI keeps responses."""
PRUNED_EVERY_S = 3_600.0


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
        is_one = (documents.c.owner == owner) & (documents.c.id == name)
        with translated_faults(self._url), self._engine.begin() as connection:
            if not connection.execute(update(documents).where(is_one).values(**row)).rowcount:
                connection.execute(insert(documents), [{"owner": owner, "id": name, **row}])
            if now - self._pruned_at > PRUNED_EVERY_S:
                self._pruned_at = now
                connection.execute(delete(documents).where(documents.c.at < now - KEPT_S))

    def find(self, owner: str, name: str) -> dict[str, JsonValue] | None:
        """Return a document of an owner; None if there is none."""
        query = select(documents.c.body).where(documents.c.owner == owner, documents.c.id == name)
        query = query.where(documents.c.at >= self._clock.now() - KEPT_S)
        with translated_faults(self._url), self._reader.connect() as connection:
            body = connection.execute(query).scalar()
        return None if body is None else msgspec.json.decode(body, type=dict[str, object])

    def delete(self, owner: str, name: str) -> bool:
        """Delete a document of an owner; return whether there was one."""
        query = delete(documents).where(documents.c.owner == owner, documents.c.id == name)
        with translated_faults(self._url), self._engine.begin() as connection:
            return bool(connection.execute(query).rowcount)
