"""KeyStore: virtual keys and their spending, in the ledger's database. Of secrets, only the digests are stored."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Select, insert, select, text, update

from ripieno.domain import Clock, Key, KeyLimits, Spend, find_periods
from ripieno.errors import InvalidTask, LedgerCorrupt, NotFound
from ripieno.ledger.database import translated_faults
from ripieno.ledger.holds import Holds, begin_period
from ripieno.ledger.schema import keys, spend

KEY_PREFIX = "rp-"
ID_LENGTH = 10
_OF_A_KEY = re.compile(rf"(k[0-9a-f]{{{ID_LENGTH}}})/")
"""Matches the beginning of virtual keys' projects."""


class KeyBody(msgspec.Struct, frozen=True):
    """The part of a key that the table stores as JSON."""

    name: str
    limits: KeyLimits


class KeyStore:
    """Stores keys."""

    def __init__(self, engine: Engine, *, url: str, clock: Clock) -> None:
        self._engine = engine
        self._reader = engine.execution_options(reads_only=True)
        self._url = url
        self._clock = clock
        self.holds = Holds(engine, url=url, clock=clock)

    def create(self, name: str, limits: KeyLimits) -> tuple[Key, str]:
        """Create a key and return it with its secret, which is not stored. White space around the name is removed.

        Raises:
            InvalidTask: the name is empty, or a live key has it.
        """
        given, name = name, name.strip()
        if not name:
            raise InvalidTask(
                f"the name of a key may not be empty, got {given!r}", param="name", hint="name its user, such as team-a"
            )
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        digest = digest_secret(secret)
        key = Key(id=f"k{digest[:ID_LENGTH]}", name=name, created_at=self._clock.now(), limits=limits)
        body = msgspec.json.encode(KeyBody(name=name, limits=limits)).decode()
        row = {"id": key.id, "digest": digest, "at": key.created_at, "body": body}
        with translated_faults(self._url), self._engine.begin() as connection:
            _require_free(connection, name)
            connection.execute(insert(keys), [row])
        return key, secret

    def revoke(self, key: str) -> Key:
        """Revoke a key. It ends at once in this process, and within seconds in others.

        Raises:
            NotFound: there is no key of that id.
        """
        with translated_faults(self._url), self._engine.begin() as connection:
            query = update(keys).where(keys.c.id == key, keys.c.revoked_at.is_(None))
            connection.execute(query.values(revoked_at=self._clock.now()))
        found = {known.id: known for known in self.all().values()}
        if key not in found:
            raise NotFound(f"there is no key {key!r}", hint="`ripieno keys list` shows all keys")
        return found[key]

    def all(self) -> dict[str, Key]:
        """Return every key, revoked ones too, by the digest of its secret."""
        return self._read(select(keys).order_by(keys.c.at))

    def find(self, digests: Sequence[str]) -> dict[str, Key]:
        """Return the keys of these digests, revoked ones too."""
        return self._read(select(keys).where(keys.c.digest.in_(digests)))

    def find_id(self, key: str) -> Key | None:
        """Return the key of an id; None if there is none, or if it was revoked."""
        found = self._read(select(keys).where(keys.c.id == key, keys.c.revoked_at.is_(None)))
        return next(iter(found.values()), None)

    def find_rest(self, key: Key) -> float | None:
        """Return the US dollars that a key has left, without what its runs reserve; None if it has no budget."""
        periods = find_periods(self._clock.now())
        spent, held = self.spent(periods).get(key.id, {}), self.holds.read().values()
        left = []
        for period, limit in zip(periods, (key.limits.usd_per_day, key.limits.usd_per_month), strict=True):
            if limit is not None:
                reserved = sum(usd for owner, at, usd in held if owner == key.id and at >= begin_period(period))
                known = spent[period].cost_usd if period in spent else 0.0
                left.append(max(limit - known - reserved, 0.0))
        return min(left, default=None)

    def spent(self, periods: tuple[str, ...]) -> dict[str, dict[str, Spend]]:
        """Return the spending in these periods: by key, then by period."""
        query = select(spend).where(spend.c.period.in_(periods))
        found: dict[str, dict[str, Spend]] = {}
        with translated_faults(self._url), self._reader.connect() as connection:
            for row in connection.execute(query):
                fields = row._asdict()
                key = fields.pop("key")
                found.setdefault(key, {})[row.period] = Spend(**fields)
        return found

    def _read(self, query: Select[Any]) -> dict[str, Key]:
        with translated_faults(self._url), self._reader.connect() as connection:
            rows = connection.execute(query).all()
        return {row.digest: _load(row.id, row.at, row.revoked_at, row.body) for row in rows}


def _require_free(connection: Connection, name: str) -> None:
    """Refuse the name of a live key. No other process can use the name until the transaction ends.

    Raises:
        InvalidTask: a live key has the name.
    """
    if connection.dialect.name == "postgresql":  # SQLite has one writer
        connection.execute(text("LOCK TABLE keys IN SHARE ROW EXCLUSIVE MODE"))
    for row in connection.execute(select(keys.c.id, keys.c.body).where(keys.c.revoked_at.is_(None))):
        if msgspec.json.decode(row.body)["name"] == name:
            raise InvalidTask(
                f"the live key {row.id} already has the name {name!r}",
                param="name",
                hint=f"choose another name, or end that key first: `ripieno keys revoke {row.id}`",
            )


def find_owner(project: str) -> str | None:
    """Return the id of the virtual key that a memory's project belongs to; None if it belongs to none."""
    found = _OF_A_KEY.match(project)
    return found.group(1) if found is not None else None


def digest_secret(secret: str) -> str:
    """Return the SHA-256 of a secret. Its 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _load(key: str, at: float, revoked_at: float | None, body: str) -> Key:
    try:
        fields = msgspec.json.decode(body, type=KeyBody)
    except msgspec.MsgspecError as error:
        raise LedgerCorrupt(f"key {key!r} cannot be read: {error}", entry=key) from error
    return Key(id=key, name=fields.name, created_at=at, limits=fields.limits, revoked_at=revoked_at)
