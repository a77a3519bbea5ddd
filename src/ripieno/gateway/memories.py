"""Memory over HTTP: remember, recall, forget, status. A virtual key sees its own memory only."""

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
from ripieno.ledger.keys import find_owner
from ripieno.memory.harness import examine, recall

SOURCE = "http"
MOST = 200


class RememberRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of `POST /v1/memory`, and a line of a file for `ripieno memory sync`."""

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
        """Make the item.

        Raises:
            ValueError: a field is wrong.
        """
        names = [name for name in self.__struct_fields__ if name not in ("project", "user")]
        fields = {name: getattr(self, name) for name in names}
        return NewItem(**fields, scope=Scope(project=self.project, user=self.user), source=source)


class RecallRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of `POST /v1/memory/recall`."""

    question: str
    project: str = ""
    user: str = ""
    most: int = 10
    reach: Privacy = Privacy.PUBLIC


def restrict_scope(scope: Scope, grant: Grant) -> Scope:
    """Restrict a scope to the key's own memory, without items of the installation or of all users.

    Raises:
        InvalidTask: a request without a key names the scope of a key.
    """
    if grant.id is not None:
        return replace(scope, project=f"{grant.id}/{scope.project}", is_apart=True)
    if not grant.is_admin and find_owner(scope.project) is not None:
        raise InvalidTask("a project of this form belongs to a key", param="project", hint="send the key itself")
    return scope


def bound_reach(reach: Privacy, grant: Grant) -> Privacy:
    """Return how far recalled items travel: at least as far as the key's own tasks may."""
    most = grant.key.limits.privacy if grant.key is not None else reach
    return max(reach, most, key=lambda boundary: boundary.reach)


def make_own_item(given: RememberRequest, grant: Grant) -> NewItem:
    """Make the item that a key stores, in the key's own scope. It travels no further than the key's tasks may.

    Raises:
        InvalidTask: a field is wrong, or the scope is not the key's.
    """
    try:
        item = given.make(source=SOURCE)
    except ValueError as error:
        raise InvalidTask(str(error), param="text") from error
    most = grant.key.limits.privacy if grant.key is not None else item.privacy
    privacy = min(item.privacy, most, key=lambda boundary: boundary.reach)
    return replace(item, scope=restrict_scope(item.scope, grant), privacy=privacy)


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
        """Store one item. 201 means that it is on disk, 200 that it was there before."""
        given, grant = read_form(facts.request, RememberRequest), facts.grant
        item = make_own_item(given, grant)
        await self._check_owner([*given.derived_from, *([given.supersedes] if given.supersedes else [])], grant)
        receipt = (await self._app.memory.remember([item]))[0]
        body = {"id": receipt.id, "object": "memory.item", "is_new": receipt.is_new}
        body |= {"secrets_removed": receipt.removed} if receipt.removed else {}
        return respond(body, status=201 if receipt.is_new else 200)

    async def recall(self, facts: Facts) -> Response:
        """Find items for a question. The response is 200 also if `status` is `unavailable`."""
        given, grant = read_form(facts.request, RecallRequest), facts.grant
        if not 1 <= given.most <= MOST:
            raise InvalidTask(f"most must be 1 to {MOST}, got {given.most}", param="most")
        scope = restrict_scope(Scope(project=given.project, user=given.user), grant)
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
        """Erase one item and all items derived from it; its digest stays as proof."""
        name = facts.parameter
        await self._check_owner([name], facts.grant)
        proof = await self._app.memory.forget(name)
        body = {"id": proof.id, "digest": proof.digest, "erased_at": proof.erased_at, "derived": list(proof.derived)}
        return respond(body)

    async def status(self, facts: Facts) -> Response:
        """Report the state of memory."""
        health = await examine(lambda: self._app.memory)
        body: dict[str, object] = {
            "object": "memory.status",
            "status": health.pulse.value,
            "detail": hide_places(health.detail),
        }
        if facts.grant.id is None:
            body |= {
                "items": health.items,
                "waiting": len(self._app.runtime.harness.waiting),
                "unembedded": health.unembedded,
                "stalled": list(health.stalled),
                "quarantined": [each.source for each in health.quarantined],
            }
        return respond(body)

    async def _check_owner(self, names: list[str], grant: Grant) -> None:
        """Let a request use only its own items. An item of another key looks like a missing one.

        Raises:
            NotFound: an item is missing or another's; an id must be whole.
        """
        if grant.is_admin:
            return
        for name in names:
            try:
                (item,) = await self._app.memory.get([name])
            except NotFound as error:
                raise _unknown(name) from error
            if not _is_owned(item.scope, grant):
                raise _unknown(name)


def _is_owned(scope: Scope, grant: Grant) -> bool:
    if grant.id is not None:
        return scope.project.startswith(f"{grant.id}/")
    return find_owner(scope.project) is None


def _unknown(name: str) -> NotFound:
    return NotFound(f"memory holds no item {name[:100]!r} of this key", hint="give its whole id")


def describe_item(item: Item) -> dict[str, object]:
    """Describe an item as JSON, without its scope."""
    names = ("id", "text", "kind", "author", "thread", "source", "ref", "privacy", "confidence", "supersedes")
    times = ("happened_at", "valid_from", "valid_to", "recorded_at", "expires_at", "erased_at")
    return {name: getattr(item, name) for name in (*names, *times, "derived_from")}
