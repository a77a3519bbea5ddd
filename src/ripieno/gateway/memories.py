"""Memory over HTTP: remember, recall, forget, and how it is. A virtual key has a memory of its own."""

from dataclasses import replace

import msgspec

from ripieno.app import App
from ripieno.domain import Privacy
from ripieno.domain.memory import Item, ItemKind, NewItem, Scope
from ripieno.errors import InvalidTask, NotFound
from ripieno.gateway.bodies import read_form
from ripieno.gateway.dialects.base import encode
from ripieno.gateway.http import Request, Response
from ripieno.gateway.keyring import Grant
from ripieno.memory.harness import examine, recall

MEMORY = "/v1/memory"
SOURCE = "http"
MOST = 200


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
    """The scope within what a key may see: what one key is told, no other key can ask for."""
    return scope if grant.id is None else replace(scope, project=f"{grant.id}/{scope.project}")


def own_item(given: Remember, grant: Grant) -> NewItem:
    """What a key gives, in the scope that it may see.

    Raises:
        InvalidTask: it is no item.
    """
    try:
        item = given.make(source=SOURCE)
    except ValueError as error:
        raise InvalidTask(str(error), param="text") from error
    return replace(item, scope=own(item.scope, grant))


class MemoryRoutes:
    """The routes under `/v1/memory`."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def remember(self, request: Request, grant: Grant) -> Response:
        """Keep one item; 201 means that it is on disk, 200 that it was there before."""
        given = read_form(request, Remember)
        item = own_item(given, grant)
        await self._require_own([*given.derived_from, *([given.supersedes] if given.supersedes else [])], grant)
        receipt = (await self._app.memory.remember([item]))[0]
        body = {"id": receipt.id, "object": "memory.item", "is_new": receipt.is_new}
        body |= {"secrets_removed": receipt.removed} if receipt.removed else {}
        return Response(encode(body), status=201 if receipt.is_new else 200)

    async def recall(self, request: Request, grant: Grant) -> Response:
        """What fits a question: 200 with its status, `unavailable` too, so that nobody takes an outage for an error."""
        given = read_form(request, Ask)
        if not 1 <= given.most <= MOST:
            raise InvalidTask(f"most must be 1 to {MOST}, got {given.most}", param="most")
        scope = own(Scope(project=given.project, user=given.user), grant)
        found = await recall(lambda: self._app.memory, given.question, scope=scope, most=given.most, reach=given.reach)
        items = [
            describe_item(each.item) | {"score": each.score, "because": list(each.because)} for each in found.items
        ]
        return Response(
            encode(
                {
                    "object": "memory.recall",
                    "status": found.status.value,
                    "support": found.support,
                    "age_s": found.age_s,
                    "synced_at": found.synced_at,
                    "detail": found.detail,
                    "items": items,
                }
            )
        )

    async def forget(self, request: Request, grant: Grant) -> Response:
        """Erase one item and what was made from it; the digest stays as proof."""
        name = request.path.removeprefix(f"{MEMORY}/")
        await self._require_own([name], grant)
        proof = await self._app.memory.forget(name)
        body = {"id": proof.id, "digest": proof.digest, "erased_at": proof.erased_at, "derived": list(proof.derived)}
        return Response(encode(body))

    async def status(self, request: Request, grant: Grant) -> Response:
        """How memory is."""
        health = await examine(lambda: self._app.memory)
        if grant.id is not None:
            return Response(encode({"object": "memory.status", "status": health.pulse.value, "detail": health.detail}))
        body = {
            "object": "memory.status",
            "status": health.pulse.value,
            "items": health.items,
            "waiting": len(self._app.harness.waiting),
            "unembedded": health.unembedded,
            "stalled": list(health.stalled),
            "quarantined": [each.source for each in health.quarantined],
            "detail": health.detail,
        }
        return Response(encode(body))

    async def _require_own(self, names: list[str], grant: Grant) -> None:
        if grant.id is None or not names:
            return
        for item in await self._app.memory.get(names):
            if not item.scope.project.startswith(f"{grant.id}/"):
                raise NotFound(f"memory holds no item {item.id!r} of this key")


def describe_item(item: Item) -> dict[str, object]:
    """An item as JSON, without whose it is."""
    names = ("id", "text", "kind", "author", "thread", "source", "ref", "privacy", "confidence", "supersedes")
    times = ("happened_at", "valid_from", "valid_to", "recorded_at", "expires_at", "erased_at")
    told = {name: getattr(item, name) for name in (*names, *times)}
    return told | {"derived_from": list(item.derived_from)}
