"""Memory over HTTP: remember, recall, forget, and how it is. A virtual key sees its own memory and no other."""

import re
from dataclasses import replace

import msgspec

from ripieno.app import Installation
from ripieno.domain import Privacy
from ripieno.domain.memory import Item, ItemKind, NewItem, Scope
from ripieno.errors import InvalidTask, NotFound
from ripieno.gateway.bodies import read_form, respond
from ripieno.gateway.errors import hide_places
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response
from ripieno.gateway.keyring import Grant
from ripieno.gateway.routes import Route
from ripieno.ledger.keys import ID_LENGTH
from ripieno.memory.harness import examine, recall

SOURCE = "http"
MOST = 200
_OF_A_KEY = re.compile(rf"k[0-9a-f]{{{ID_LENGTH}}}/")
"""What the projects of virtual keys begin with."""


class Remember(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of `POST /v1/memory`, and a line of what `ripieno memory sync` reads."""

    text: str
    kind: ItemKind = ItemKind.FACT
    author: str = ""
    thread: str = ""
    ref: str = ""
    project: str = ""
    user: str = ""
    privacy: Privacy = Privacy.PUBLIC
    happened_at: float | None = None
    valid_from: float | None = None
    valid_to: float | None = None
    supersedes: str | None = None
    derived_from: tuple[str, ...] = ()
    confidence: float = 1.0

    def make(self, *, source: str) -> NewItem:
        """The item.

        Raises:
            ValueError: it is none.
        """
        names = [name for name in self.__struct_fields__ if name not in ("project", "user")]
        fields = {name: getattr(self, name) for name in names}
        return NewItem(**fields, scope=Scope(project=self.project, user=self.user), source=source)


class Ask(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of `POST /v1/memory/recall`."""

    question: str
    project: str = ""
    user: str = ""
    most: int = 10
    reach: Privacy = Privacy.PUBLIC


def own(scope: Scope, grant: Grant) -> Scope:
    """The scope within what a key may see: its own, without the installation's or what holds for all.

    Raises:
        InvalidTask: a request without a key names the scope of one.
    """
    if grant.id is not None:
        return replace(scope, project=f"{grant.id}/{scope.project}", is_apart=True)
    if not grant.is_admin and _OF_A_KEY.match(scope.project):
        raise InvalidTask("a project of this form belongs to a key", param="project", hint="send the key itself")
    return scope


def bound_reach(reach: Privacy, grant: Grant) -> Privacy:
    """How far what a key recalls travels: at least as far as its own tasks may."""
    most = grant.key.limits.privacy if grant.key is not None else reach
    return max(reach, most, key=lambda boundary: boundary.reach)


def own_item(given: Remember, grant: Grant) -> NewItem:
    """What a key gives, in the scope that it may see; it travels no further than the tasks of the key may.

    Raises:
        InvalidTask: it is no item, or belongs into a scope of others.
    """
    try:
        item = given.make(source=SOURCE)
    except ValueError as error:
        raise InvalidTask(str(error), param="text") from error
    most = grant.key.limits.privacy if grant.key is not None else item.privacy
    privacy = min(item.privacy, most, key=lambda boundary: boundary.reach)
    return replace(item, scope=own(item.scope, grant), privacy=privacy)


class MemoryRoutes:
    """The routes under `/v1/memory`."""

    def __init__(self, app: Installation) -> None:
        self._app = app

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("POST", "/v1/memory", self.remember),
            Route("POST", "/v1/memory/recall", self.recall),
            Route("GET", "/v1/memory/status", self.status),
            Route("DELETE", "/v1/memory/{item}", self.forget),
        ]

    async def remember(self, facts: Facts) -> Response:
        """Keep one item; 201 means that it is on disk, 200 that it was there before."""
        given, grant = read_form(facts.request, Remember), facts.grant
        item = own_item(given, grant)
        await self._require_own([*given.derived_from, *([given.supersedes] if given.supersedes else [])], grant)
        receipt = (await self._app.memory.remember([item]))[0]
        body = {"id": receipt.id, "object": "memory.item", "is_new": receipt.is_new}
        body |= {"secrets_removed": receipt.removed} if receipt.removed else {}
        return respond(body, status=201 if receipt.is_new else 200)

    async def recall(self, facts: Facts) -> Response:
        """Find what fits a question: 200 with its status, `unavailable` too, so that no outage looks like an error."""
        given, grant = read_form(facts.request, Ask), facts.grant
        if not 1 <= given.most <= MOST:
            raise InvalidTask(f"most must be 1 to {MOST}, got {given.most}", param="most")
        scope = own(Scope(project=given.project, user=given.user), grant)
        reach = bound_reach(given.reach, grant)
        found = await recall(lambda: self._app.memory, given.question, scope=scope, most=given.most, reach=reach)
        items = [
            describe_item(each.item) | {"score": each.score, "because": list(each.because)} for each in found.items
        ]
        return respond(
            {
                "object": "memory.recall",
                "status": found.status.value,
                "support": found.support,
                "age_s": found.age_s,
                "synced_at": found.synced_at,
                "detail": hide_places(found.detail),
                "items": items,
            }
        )

    async def forget(self, facts: Facts) -> Response:
        """Erase one item and what was made from it; the digest stays as proof."""
        name = facts.parameter
        await self._require_own([name], facts.grant)
        proof = await self._app.memory.forget(name)
        body = {"id": proof.id, "digest": proof.digest, "erased_at": proof.erased_at, "derived": list(proof.derived)}
        return respond(body)

    async def status(self, facts: Facts) -> Response:
        """Tell how memory is."""
        health = await examine(lambda: self._app.memory)
        detail = hide_places(health.detail)
        if facts.grant.id is not None:
            return respond({"object": "memory.status", "status": health.pulse.value, "detail": detail})
        body = {
            "object": "memory.status",
            "status": health.pulse.value,
            "items": health.items,
            "waiting": len(self._app.runtime.harness.waiting),
            "unembedded": health.unembedded,
            "stalled": list(health.stalled),
            "quarantined": [each.source for each in health.quarantined],
            "detail": detail,
        }
        return respond(body)

    async def _require_own(self, names: list[str], grant: Grant) -> None:
        """Let a request touch only items of its own; another's is told as one that is not there.

        Raises:
            NotFound: one is not its own, or not there; only whole ids are taken.
        """
        if grant.is_admin:
            return
        for name in names:
            try:
                (item,) = await self._app.memory.get([name])
            except NotFound as error:
                raise _unknown(name) from error
            if not _is_own(item.scope, grant):
                raise _unknown(name)


def _is_own(scope: Scope, grant: Grant) -> bool:
    if grant.id is not None:
        return scope.project.startswith(f"{grant.id}/")
    return _OF_A_KEY.match(scope.project) is None


def _unknown(name: str) -> NotFound:
    return NotFound(f"memory holds no item {name[:100]!r} of this key", hint="give its whole id")


def describe_item(item: Item) -> dict[str, object]:
    """An item as JSON, without whose it is."""
    names = ("id", "text", "kind", "author", "thread", "source", "ref", "privacy", "confidence", "supersedes")
    times = ("happened_at", "valid_from", "valid_to", "recorded_at", "expires_at", "erased_at")
    told = {name: getattr(item, name) for name in (*names, *times)}
    return told | {"derived_from": list(item.derived_from)}
