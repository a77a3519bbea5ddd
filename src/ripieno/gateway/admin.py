"""Admin: virtual keys over HTTP, for the master key, or for the admin key if no master key is set."""

import asyncio
from dataclasses import asdict

import msgspec

from ripieno.app import Installation
from ripieno.domain import JsonValue, Key, KeyLimits, Spend, find_periods
from ripieno.errors import Forbidden, Unauthorized
from ripieno.gateway.bodies import read_form, respond
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response
from ripieno.gateway.keyring import Grant, Keyring
from ripieno.gateway.routes import Access, Route
from ripieno.ledger import KeyStore


class NewKey(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of `POST /admin/keys`."""

    name: str
    limits: KeyLimits = KeyLimits()


class Admin:
    """The routes under `/admin`."""

    def __init__(self, app: Installation, keyring: Keyring) -> None:
        self._app = app
        self._keyring = keyring

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("GET", "/admin/keys", self.show, Access.ADMIN),
            Route("POST", "/admin/keys", self.create, Access.ADMIN),
            Route("DELETE", "/admin/keys/{key}", self.revoke, Access.ADMIN),
        ]

    async def show(self, facts: Facts) -> Response:
        """List every key with its limits and its spend of today and this month."""
        return respond({"keys": await asyncio.to_thread(self._describe_all)})

    async def create(self, facts: Facts) -> Response:
        """Create a key; only this answer holds its secret."""
        wanted = read_form(facts.request, NewKey)
        key, secret = await asyncio.to_thread(self._app.ledger.keys.create, wanted.name, wanted.limits)
        await self._keyring.refresh()
        return respond(describe_key(key, {}) | {"secret": secret}, status=201)

    async def revoke(self, facts: Facts) -> Response:
        """Revoke a key."""
        key = await asyncio.to_thread(self._app.ledger.keys.revoke, facts.parameter)
        await self._keyring.refresh()
        return respond(describe_key(key, {}))

    def _describe_all(self) -> list[dict[str, JsonValue]]:
        return describe_keys(self._app.ledger.keys, now=self._app.clock.now())


def describe_keys(store: KeyStore, *, now: float) -> list[dict[str, JsonValue]]:
    """Describe every key with its spend of this day and month; `now` is in seconds since 1970."""
    spent = store.spent(find_periods(now))
    return [describe_key(key, spent.get(key.id, {})) for key in store.all().values()]


def describe_key(key: Key, spent: dict[str, Spend]) -> dict[str, JsonValue]:
    """Describe a key without its secret."""
    return {
        "id": key.id,
        "name": key.name,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
        "limits": asdict(key.limits),
        "spent": [asdict(spend) for spend in spent.values()],
    }


def require_admin(grant: Grant) -> None:
    """Let only the master key or the admin key pass.

    Raises:
        Unauthorized: the request has no key.
        Forbidden: its key may not do this.
    """
    if grant.is_admin:
        return
    hint = "send RIPIENO_GATEWAY__API_KEY, or the key in admin.key of the home folder if no master key is set"
    if grant.key is None:
        raise Unauthorized("this needs the admin key", hint=hint)
    raise Forbidden("only the admin key may do this", hint=hint)
