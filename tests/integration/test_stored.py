"""Stored responses and conversations, as OpenAI's own client uses them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from tests.integration.conftest import Serve, open_gateway
from tests.integration.reading import post
from tests.integration.upstreams import KINDS, Said, follow

from ripieno.domain import KeyLimits
from ripieno.gateway import stored
from ripieno.testing import ReceivedRequest, ScriptedServer


def repeat(request: ReceivedRequest) -> Said:
    """Say how many messages came."""
    given: Any = request.body.get("messages") or request.body.get("input")
    return Said(text=f"message {len(given)}")


def write_worker(server: ScriptedServer, wire: str) -> None:
    Path("ripieno.toml").write_text(
        f'[ledger]\nurl = "sqlite:///ledger.db"\n[providers.up]\nkind = "{KINDS[wire]}"\n'
        f'base_url = "{server.base_url}"\n[workers.w]\nprovider = "up"\nmodel = "m"\nusd_per_call = 0.001\n'
    )


@pytest.mark.parametrize("wire", ["chat", "responses"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_response_is_continued_shown_and_deleted(serve: Serve, wire: str, is_stream: bool) -> None:
    server = serve(follow(repeat, wire))
    write_worker(server, wire)

    async def create(client: AsyncOpenAI, **fields: Any) -> Any:
        if not is_stream:
            return await client.responses.create(model="w", **fields)
        async with client.responses.stream(model="w", **fields) as stream:
            return await stream.get_final_response()

    async with open_gateway() as (_, address, _), AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:
        first = await create(client, input="one", instructions="Be brief.", store=True)
        assert first.output_text == ("message 2" if wire == "chat" else "message 1")
        second = await create(client, input="two", previous_response_id=first.id)
        assert second.output_text == "message 3", "the first question, its answer, and the second question"
        assert second.previous_response_id == first.id
        assert "Be brief." not in str(server.seen[-1].body), "instructions are those of one request"
        shown = await client.responses.retrieve(second.id)
        assert (shown.output_text, shown.previous_response_id, shown.model) == ("message 3", first.id, "w")
        items = (await client.responses.input_items.list(second.id, order="asc")).data
        assert [item.role for item in items] == ["user", "assistant", "user"]
        page = await client.responses.input_items.list(second.id, limit=1)
        assert page.data[0].content[0].text == "two"
        assert page.has_next_page()
        await client.responses.delete(second.id)
        for call in (client.responses.retrieve, client.responses.delete):
            with pytest.raises(NotFoundError):
                await call(second.id)
        unkept = await create(client, input="three", store=False)
        assert unkept.store is False
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(unkept.id)
        with pytest.raises(NotFoundError):
            await create(client, input="x", previous_response_id="resp_none")


async def test_a_conversation_holds_all_that_was_said(serve: Serve) -> None:
    server = serve(follow(repeat, "chat"))
    write_worker(server, "chat")
    async with open_gateway() as (_, address, _), AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:
        begun = await client.conversations.create(
            metadata={"topic": "keys"}, items=[{"type": "message", "role": "user", "content": "Where is it?"}]
        )
        said = await client.responses.create(model="w", input="And now?", conversation=begun.id)
        assert said.output_text == "message 2"
        assert said.conversation is not None
        assert said.conversation.id == begun.id
        again = await client.responses.create(model="w", input="Sure?", conversation={"id": begun.id})
        assert again.output_text == "message 4"
        items = (await client.conversations.items.list(begun.id, order="asc")).data
        assert len(items) == 5
        one = await client.conversations.items.retrieve(items[1].id or "", conversation_id=begun.id)
        assert one.id == items[1].id
        await client.conversations.items.delete(items[1].id or "", conversation_id=begun.id)
        with pytest.raises(NotFoundError):
            await client.conversations.items.retrieve(items[1].id or "", conversation_id=begun.id)
        added = await client.conversations.items.create(
            begun.id, items=[{"type": "message", "role": "user", "content": "One more."}]
        )
        assert len(added.data) == 1
        changed = await client.conversations.update(begun.id, metadata={"topic": "doors"})
        assert changed.metadata == {"topic": "doors"}
        assert (await client.conversations.retrieve(begun.id)).metadata == {"topic": "doors"}
        with pytest.raises(BadRequestError):
            await client.responses.create(model="w", input="x", conversation=begun.id, previous_response_id=said.id)
        counted = await client.responses.input_tokens.count(model="w", input="word " * 100)
        assert counted.input_tokens > 100
        assert (await client.conversations.delete(begun.id)).deleted
        with pytest.raises(NotFoundError):
            await client.conversations.retrieve(begun.id)


async def test_changes_of_one_conversation_at_once_are_all_kept(serve: Serve) -> None:
    write_worker(serve(follow(repeat, "chat")), "chat")
    async with open_gateway() as (_, address, _), AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:
        begun = await client.conversations.create(metadata={"topic": "keys"})
        item: Any = {"type": "message", "role": "user", "content": "One more."}
        await asyncio.gather(*(client.conversations.items.create(begun.id, items=[item]) for _ in range(30)))
        items = (await client.conversations.items.list(begun.id, limit=100)).data
        assert len(items) == 30
        removed = [client.conversations.items.delete(item.id or "", conversation_id=begun.id) for item in items]
        await asyncio.gather(*removed)
        assert (await client.conversations.items.list(begun.id)).data == []


async def test_a_full_conversation_is_refused_before_a_worker_is_paid(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "MOST_ITEMS", 2)
    server = serve(follow(repeat, "chat"))
    write_worker(server, "chat")
    item: Any = {"type": "message", "role": "user", "content": "One more."}
    async with open_gateway() as (_, address, _), AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:
        begun = await client.conversations.create(items=[item])
        said = await client.responses.create(model="w", input="And now?", conversation=begun.id)
        assert said.output_text == "message 2", "an answer that was paid for is given and kept"
        assert len((await client.conversations.items.list(begun.id)).data) == 3
        for attempt in (
            client.responses.create(model="w", input="x", conversation=begun.id),
            client.conversations.items.create(begun.id, items=[item]),
            client.conversations.create(items=[item] * 3),
        ):
            with pytest.raises(BadRequestError, match="at most 2 items"):
                await attempt
        assert len(server.seen) == 1


async def test_odd_requests_of_conversations_change_nothing(serve: Serve) -> None:
    write_worker(serve(follow(repeat, "chat")), "chat")
    async with open_gateway() as (_, address, client):
        url = f"{address}/v1/conversations"
        _, content, _ = await post(client, url, {"metadata": {"topic": "keys"}, "items": []})
        begun = json.loads(content)
        status, _, _ = await post(client, f"{url}/{begun['id']}/anything", {})
        assert status == 404
        async with client.get(f"{url}/{begun['id']}") as response:
            assert await response.json() == begun
        async with client.get(f"{url}/{begun['id']}/items?limit={'9' * 5000}") as response:
            assert response.status == 200


async def test_a_text_is_compacted_like_a_list_of_one_message(serve: Serve) -> None:
    write_worker(serve(follow(lambda _: Said(text="They look for a key."), "chat")), "chat")
    async with open_gateway() as (_, address, _), AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:
        compacted = await client.responses.compact(model="w", input="Where is the key?")
        items: Any = [item.model_dump(exclude_none=True, warnings=False) for item in compacted.output]
        assert [item["type"] for item in items] == ["message", "compaction"]
        assert items[0]["content"][0]["text"] == "Where is the key?"


async def test_a_compacted_conversation_is_continued_from_its_summary(serve: Serve) -> None:
    server = serve(follow(lambda _: Said(text="The key is in the drawer."), "chat"))
    write_worker(server, "chat")
    async with open_gateway() as (_, address, _), AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:
        talk: Any = [
            {"type": "message", "role": "user", "content": "Where is the key?"},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "a drawer, and a lot more"},
        ]
        compacted = await client.responses.compact(model="w", input=talk)
        asked: Any = server.seen[-1].body["messages"]
        assert "Summarize" in asked[-1]["content"]
        items: Any = [item.model_dump(exclude_none=True, warnings=False) for item in compacted.output]
        assert [item["type"] for item in items] == ["message", "compaction"]
        await client.responses.create(model="w", input=[*items, {"role": "user", "content": "And now?"}])
        sent: Any = server.seen[-1].body["messages"]
        assert [message["role"] for message in sent] == ["user", "user", "user"]
        assert "The key is in the drawer." in sent[1]["content"]
        assert "a lot more" not in str(sent)


async def test_a_key_reads_its_own_responses_only(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    write_worker(serve(follow(repeat, "chat")), "chat")
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", "master-key-of-the-tests")
    async with open_gateway() as (app, address, _):
        secrets = [app.ledger.keys.create(name, KeyLimits())[1] for name in ("one", "two")]
        clients = [AsyncOpenAI(base_url=f"{address}/v1", api_key=secret) for secret in secrets]
        own = await clients[0].responses.create(model="w", input="mine")
        talk = await clients[0].conversations.create()
        assert (await clients[0].responses.retrieve(own.id)).id == own.id
        for attempt in (
            clients[1].responses.retrieve(own.id),
            clients[1].responses.delete(own.id),
            clients[1].responses.create(model="w", input="x", previous_response_id=own.id),
            clients[1].responses.create(model="w", input="x", conversation=talk.id),
            clients[1].conversations.retrieve(talk.id),
            clients[1].conversations.items.list(talk.id),
            clients[1].conversations.delete(talk.id),
        ):
            with pytest.raises(NotFoundError):
                await attempt
        for client in clients:
            await client.close()
