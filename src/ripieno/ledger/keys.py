"""KeyStore: virtual keys and what they have spent, in the ledger's database. Secrets are kept as digests only."""

import hashlib
import secrets
from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, Engine, insert, select, text, update

from ripieno.domain import Clock, Key, KeyLimits, Spend
from ripieno.errors import InvalidTask, LedgerCorrupt, NotFound
from ripieno.ledger.database import translated_faults
from ripieno.ledger.holds import Holds
from ripieno.ledger.schema import keys, spend

KEY_PREFIX = "rp-"
ID_LENGTH = 10


class KeyBody(msgspec.Struct, frozen=True):
    """What the table keeps of a key as JSON."""

    name: str
    limits: KeyLimits


class KeyStore:
    """Keeps keys.

    Args:
        engine: the ledger's database.
        url: its name in errors.
        clock: the time.
    """

    def __init__(self, engine: Engine, *, url: str, clock: Clock) -> None:
        self._engine = engine
        self._reader = engine.execution_options(reads_only=True)
        self._url = url
        self._clock = clock
        self.holds = Holds(engine, url=url, clock=clock)

    def create(self, name: str, limits: KeyLimits) -> tuple[Key, str]:
        """Make a key; its secret is given here, and never again.

        Args:
            name: what the key is for; no other live key may have it. White space around it is removed.
            limits: what the key may do.

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
        row = {"id": key.id, "digest": digest, "at": key.created_at, "body": _dump(name, limits)}
        with translated_faults(self._url), self._engine.begin() as connection:
            _require_free(connection, name)
            connection.execute(insert(keys), [row])
        return key, secret

    def revoke(self, key: str) -> Key:
        """End a key, at once in this process and within seconds in others.

        Raises:
            NotFound: there is none of that id.
        """
        with translated_faults(self._url), self._engine.begin() as connection:
            query = update(keys).where(keys.c.id == key, keys.c.revoked_at.is_(None))
            connection.execute(query.values(revoked_at=self._clock.now()))
        found = {known.id: known for known in self.all().values()}
        if key not in found:
            raise NotFound(f"there is no key {key!r}", hint="`ripieno keys list` shows them")
        return found[key]

    def all(self) -> dict[str, Key]:
        """Every key, revoked ones too, by the digest of its secret."""
        with translated_faults(self._url), self._reader.connect() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.at)).all()
        return {row.digest: _load(row.id, row.at, row.revoked_at, row.body) for row in rows}

    def find(self, digests: Sequence[str]) -> dict[str, Key]:
        """The keys of these digests, revoked ones too."""
        with translated_faults(self._url), self._reader.connect() as connection:
            rows = connection.execute(select(keys).where(keys.c.digest.in_(digests))).all()
        return {row.digest: _load(row.id, row.at, row.revoked_at, row.body) for row in rows}

    def spent(self, periods: tuple[str, ...]) -> dict[str, dict[str, Spend]]:
        """What keys have spent in these periods: by key, then by period."""
        query = select(spend).where(spend.c.period.in_(periods))
        found: dict[str, dict[str, Spend]] = {}
        with translated_faults(self._url), self._reader.connect() as connection:
            for row in connection.execute(query):
                found.setdefault(row.key, {})[row.period] = Spend(
                    period=row.period,
                    cost_usd=row.cost_usd,
                    tokens=row.tokens,
                    requests=row.requests,
                    unknown=row.unknown,
                )
        return found


def _require_free(connection: Connection, name: str) -> None:
    """Refuse the name of a live key; until the transaction ends, no other process can take the name.

    Raises:
        InvalidTask: a live key has it.
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


def digest_secret(secret: str) -> str:
    """SHA-256 of a secret: 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _dump(name: str, limits: KeyLimits) -> str:
    return msgspec.json.encode(KeyBody(name=name, limits=limits)).decode()


def _load(key: str, at: float, revoked_at: float | None, body: str) -> Key:
    try:
        fields = msgspec.json.decode(body, type=KeyBody)
    except msgspec.MsgspecError as error:
        raise LedgerCorrupt(f"key {key!r} cannot be read: {error}", entry=key) from error
    return Key(id=key, name=fields.name, created_at=at, limits=fields.limits, revoked_at=revoked_at)
