"""Stored responses and conversations of OpenAI's format, each for the key that made it."""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qs

from ripieno.domain import Answer, JsonValue
from ripieno.errors import InvalidTask, NotFound
from ripieno.gateway.bodies import read_body, respond
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response
from ripieno.gateway.keyring import Grant
from ripieno.gateway.routes import Route
from ripieno.ledger.documents import Document, Documents
from ripieno.wires import ParsedRequest, ResponsesDialect, ResponseSource, count_tokens
from ripieno.wires.base import fields_of, items_of, text_of
from ripieno.wires.responses.compaction import list_input
from ripieno.wires.responses.writing import write_response

MOST_ITEMS = 10_000
"""Items of one conversation. A longer one is refused."""
MOST_LISTED = 100
_ITEM_PREFIXES = {"message": "msg", "function_call": "fc", "reasoning": "rs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """What a request of responses continues, and whether its response is kept."""

    owner: str
    items: tuple[JsonValue, ...]
    """All input items, the earlier ones included."""
    fresh: tuple[JsonValue, ...]
    """The input items of this request."""
    previous: str | None = None
    conversation: str | None = None
    is_stored: bool = True


class StoredResponses:
    """Keeps responses and conversations in the ledger's database for 30 days after their last use."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def routes(self) -> list[Route]:
        """List the routes."""
        dialect = ResponsesDialect()
        one, conversation = "/v1/responses/{response}", "/v1/conversations/{conversation}"
        return [
            Route("POST", "/v1/responses/input_tokens", self.count, dialect=dialect),
            Route("GET", one, self.show, dialect=dialect),
            Route("DELETE", one, self.delete, dialect=dialect),
            Route("POST", "/v1/conversations", self.create_conversation, dialect=dialect),
            Route("GET", conversation, self.show_conversation, dialect=dialect),
            Route("POST", conversation, self.change_conversation, dialect=dialect),
            Route("DELETE", conversation, self.delete_conversation, dialect=dialect),
        ]

    async def open(self, body: Mapping[str, JsonValue], grant: Grant) -> tuple[dict[str, JsonValue], Thread]:
        """Return the body with the earlier items before its own input, and what it continues.

        Raises:
            InvalidTask: the body names two things to continue, or a conversation that is full.
            NotFound: what it continues does not exist, or is another key's.
        """
        owner, previous = grant.id or "", text_of(body.get("previous_response_id"))
        named = body.get("conversation")
        conversation = text_of(fields_of(named).get("id")) or text_of(named)
        if previous and conversation:
            raise InvalidTask("a request continues a response or a conversation, not both", param="conversation")
        earlier: list[JsonValue] = []
        if previous:
            found = (await self._require(grant, previous, param="previous_response_id")).body
            earlier = [*items_of(found["input"]), *items_of(fields_of(found["response"]).get("output"))]
        elif conversation:
            begun = await self._require(grant, conversation, param="conversation")
            owner, earlier = begun.owner, list(items_of(begun.body["items"]))
        fresh = _list_input(body.get("input"))
        if conversation:
            _require_few([*earlier, *fresh])
        whole = {name: value for name, value in body.items() if name not in ("previous_response_id", "conversation")}
        if earlier:
            whole["input"] = [*map(_drop_id, earlier), *fresh]
        thread = Thread(
            owner=owner,
            items=(*earlier, *fresh),
            fresh=tuple(fresh),
            previous=previous or None,
            conversation=conversation or None,
            is_stored=body.get("store") is not False,
        )
        return whole, thread

    async def keep(self, thread: Thread, parsed: ParsedRequest, answer: Answer, source: ResponseSource) -> None:
        """Keep the response to a request, and add it to its conversation, unless that was deleted meanwhile."""
        if not thread.is_stored and thread.conversation is None:
            return
        response = write_response(parsed, answer, source)
        if thread.is_stored:
            body = {"input": list(thread.items), "response": response}
            await self._put(text_of(response["id"]), thread.owner, body)
        if thread.conversation is not None:
            added = [*thread.fresh, *items_of(response["output"])]
            with suppress(NotFound):
                await self._change(thread.owner, thread.conversation, lambda body: _extend(body, added))

    async def count(self, facts: Facts) -> Response:
        """Count the input tokens of a request."""
        body, _ = await self.open(read_body(facts.request.body), facts.grant)
        return respond({"object": "response.input_tokens", "input_tokens": count_tokens(ResponsesDialect().read(body))})

    async def show(self, facts: Facts) -> Response:
        """Show a stored response, or its input items."""
        name, _, part = facts.parameter.partition("/")
        found = (await self._require(facts.grant, name)).body
        if part == "input_items":
            return respond(_list_items(items_of(found["input"]), facts.request.query))
        if part:
            raise NotFound(f"a response has no {part[:40]!r}", hint="it has input_items")
        return respond(found["response"])

    async def delete(self, facts: Facts) -> Response:
        """Delete a stored response."""
        await self._delete(facts.grant, facts.parameter)
        return respond({"id": facts.parameter, "object": "response", "deleted": True})

    async def create_conversation(self, facts: Facts) -> Response:
        """Begin a conversation."""
        body = read_body(facts.request.body) if facts.request.body else {}
        name, items = f"conv_{secrets.token_hex(16)}", _list_input(body.get("items") or [])
        _require_few(items)
        made = {
            "conversation": {
                "id": name,
                "object": "conversation",
                "created_at": int(time.time()),
                "metadata": dict(fields_of(body.get("metadata"))),
            },
            "items": items,
        }
        await self._put(name, facts.grant.id or "", made)
        return respond(made["conversation"])

    async def show_conversation(self, facts: Facts) -> Response:
        """Show a conversation, its items, or one of them."""
        name, _, part = facts.parameter.partition("/")
        found = (await self._require(facts.grant, name)).body
        items = items_of(found["items"])
        if part == "items":
            return respond(_list_items(items, facts.request.query))
        if not part:
            return respond(found["conversation"])
        wanted = next((item for item in items if part == f"items/{item.get('id')}"), None)
        if wanted is None:
            raise _make_missing(part)
        return respond(wanted)

    async def change_conversation(self, facts: Facts) -> Response:
        """Change the metadata of a conversation, or add items."""
        name, _, part = facts.parameter.partition("/")
        body = read_body(facts.request.body)
        owner = _find_owner(facts.grant)
        if part == "items":
            added = _list_input(body.get("items"))
            await self._change(owner, name, lambda kept: _extend(kept, added, is_limited=True))
            return respond(_make_list(added, has_more=False))
        if part:
            raise _make_missing(part)
        stated = {"metadata": dict(fields_of(body.get("metadata")))}
        changed = await self._change(
            owner, name, lambda kept: {**kept, "conversation": {**fields_of(kept["conversation"]), **stated}}
        )
        return respond(changed["conversation"])

    async def delete_conversation(self, facts: Facts) -> Response:
        """Delete a conversation, or one of its items."""
        name, _, part = facts.parameter.partition("/")
        if not part:
            await self._delete(facts.grant, name)
            return respond({"id": name, "object": "conversation.deleted", "deleted": True})
        left = await self._change(_find_owner(facts.grant), name, lambda kept: _remove(kept, part))
        return respond(left["conversation"])

    async def _require(self, grant: Grant, name: str, *, param: str | None = None) -> Document:
        """Return a document that a request may read. Another key's looks like a missing one."""
        found = await asyncio.to_thread(self._documents.find, _find_owner(grant), name)
        if found is None:
            raise _make_unkept(name, param=param)
        return found

    async def _delete(self, grant: Grant, name: str) -> None:
        if not await asyncio.to_thread(self._documents.delete, _find_owner(grant), name):
            raise _make_unkept(name)

    async def _put(self, name: str, owner: str, body: Mapping[str, JsonValue]) -> None:
        await asyncio.to_thread(self._documents.put, owner, name, body)

    async def _change(
        self, owner: str | None, name: str, change: Callable[[dict[str, JsonValue]], dict[str, JsonValue]]
    ) -> dict[str, JsonValue]:
        """Change a document in one transaction, and return its new body.

        Raises:
            NotFound: there is none that the owner may read.
        """
        made: dict[str, JsonValue] = {}

        def apply(body: dict[str, JsonValue]) -> dict[str, JsonValue]:
            made.update(change(body))
            return made

        if not await asyncio.to_thread(self._documents.change, owner, name, apply):
            raise _make_unkept(name)
        return made


def _extend(
    body: dict[str, JsonValue], added: Sequence[JsonValue], *, is_limited: bool = False
) -> dict[str, JsonValue]:
    """Add items to a conversation. An answer that was paid for is added in any case."""
    items = [*items_of(body["items"]), *added]
    if is_limited:
        _require_few(items)
    return {**body, "items": items}


def _remove(body: dict[str, JsonValue], part: str) -> dict[str, JsonValue]:
    """Remove one item from a conversation.

    Raises:
        NotFound: it has no such item.
    """
    items = items_of(body["items"])
    kept = [item for item in items if part != f"items/{item.get('id')}"]
    if len(kept) == len(items):
        raise _make_missing(part)
    return {**body, "items": kept}


def _require_few(items: Sequence[JsonValue]) -> None:
    """Check that a conversation is not too long.

    Raises:
        InvalidTask: it is.
    """
    if len(items) > MOST_ITEMS:
        raise InvalidTask(f"a conversation holds at most {MOST_ITEMS} items", param="conversation")


def _make_missing(part: str) -> NotFound:
    return NotFound(f"the conversation has no {part[:80]!r}", hint="it has items")


def _make_unkept(name: str, *, param: str | None = None) -> NotFound:
    return NotFound(
        f"{param or 'the id'} {name[:100]!r} is not kept for this key",
        hint="responses are kept for 30 days, unless the request says store = false",
    )


def _find_owner(grant: Grant) -> str | None:
    """Return whose documents a request may read; None stands for everyone's."""
    return None if grant.is_admin else grant.id or ""


def describe_thread(thread: Thread) -> dict[str, JsonValue]:
    """Make the fields of a response that say what it continues, and whether it is kept."""
    named = None if thread.conversation is None else {"id": thread.conversation}
    fields: dict[str, JsonValue] = {"previous_response_id": thread.previous, "store": thread.is_stored}
    return fields if named is None else fields | {"conversation": named}


def _list_input(given: JsonValue) -> list[JsonValue]:
    """List the items of an input, each with an id."""
    return [_name_item(item) if isinstance(item, dict) else item for item in list_input(given)]


def _name_item(item: dict[str, JsonValue]) -> dict[str, JsonValue]:
    kind = text_of(item.get("type")) or "message"
    name = text_of(item.get("id")) or f"{_ITEM_PREFIXES.get(kind, 'item')}_{secrets.token_hex(12)}"
    return {**item, "type": kind, "id": name}


def _drop_id(item: JsonValue) -> JsonValue:
    """Return an item without its id, which only this gateway knows; sealed reasoning keeps the vendor's."""
    fields = fields_of(item)
    if fields.get("type") == "reasoning" and fields.get("encrypted_content"):
        return item
    return {name: value for name, value in fields.items() if name != "id"}


def _list_items(items: Sequence[dict[str, JsonValue]], query: str) -> dict[str, JsonValue]:
    """Make one page of items, the latest first unless the query says otherwise."""
    asked = parse_qs(query)
    ordered = list(items) if asked.get("order") == ["asc"] else list(reversed(items))
    after, limit = asked.get("after", [""])[0], asked.get("limit", ["20"])[0]
    places = [place for place, item in enumerate(ordered) if item.get("id") == after]
    rest = ordered[places[0] + 1 :] if places else ordered
    most = min(int(limit[:6]), MOST_LISTED) if limit.isascii() and limit.isdigit() and int(limit[:6]) else 20
    return _make_list(rest[:most], has_more=len(rest) > most)


def _make_list(items: Sequence[JsonValue], *, has_more: bool) -> dict[str, JsonValue]:
    names = [fields_of(item).get("id") for item in items]
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return {"object": "list", "data": list(items), "has_more": has_more, **ends}
