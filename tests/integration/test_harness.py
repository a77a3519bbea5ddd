"""Memory in the path of a task: recall before, remember after, report outages, and separate keys."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from tests.integration.conftest import ADMIN, ADMIN_KEY, Serve, open_app, write_pool

from ripieno.app import Installation
from ripieno.domain import Message, Privacy, Task
from ripieno.domain.conversation import Text, ToolCall, ToolResult
from ripieno.domain.memory import NewItem, ReadStatus, Scope
from ripieno.gateway import bind_socket, running
from ripieno.orchestrator import make_arrival
from ripieno.testing import Reply, ScriptedServer

WEB = Scope(project="web")


def arrive(app: Installation, thread: str = "monday") -> Any:  # an arrival, as `replace` gives it
    return replace(make_arrival(app.clock), memory=WEB, thread=thread)


def prompt(server: ScriptedServer) -> str:
    return json.dumps(server.seen[-1].body["messages"])


async def test_a_conversation_is_recalled_and_the_decision_says_so(serve: Serve) -> None:
    server = serve([Reply(text="Noted: Postgres.")])
    write_pool(server)
    async with open_app() as app:
        first = await app.runtime.orchestrator.run_detailed(
            Task.from_text("We take Postgres for the shop."), arrival=arrive(app)
        )
        assert first.decision.memory is not None
        assert first.decision.memory.status is ReadStatus.EMPTY
        assert "remembered" not in prompt(server)
        second = await app.runtime.orchestrator.run_detailed(
            Task.from_text("Which database does the shop take?"), arrival=arrive(app)
        )
        assert "We take Postgres for the shop." in prompt(server)
        assert "Noted: Postgres." in prompt(server)
        assert "not orders" in prompt(server)
        read = second.decision.memory
        assert read is not None
        assert (read.status, len(read.items)) == (ReadStatus.OK, 2)
        recorded = app.ledger.decisions.find(second.decision.id)
        assert recorded.decision.memory == read
        assert any("memory is ok: 2 items" in reason for reason in recorded.decision.reasons)
        assert "Postgres" in recorded.task.messages[0].text, "a replay sees what the worker saw"
        items = await app.memory.get(list(read.items))
        assert {(item.author, item.thread, item.source) for item in items} == {
            ("user", "monday", "chat"),
            ("assistant", "monday", "chat"),
        }
        plain = await app.runtime.orchestrator.run_detailed(Task.from_text("Which database?"))
        assert plain.decision.memory is None
        assert "Postgres for" not in prompt(server), "memory is asked for, or left out"


async def test_a_streamed_answer_is_remembered_at_its_end(serve: Serve) -> None:
    write_pool(serve([Reply(text="It is the green one.")]))
    async with open_app() as app:
        started = await app.runtime.orchestrator.start(Task.from_text("Which door?"), arrival=arrive(app))
        pieces = await app.runtime.orchestrator.stream(started)
        async for _ in pieces:
            pass
        found = await app.memory.recall("Which door is the green one?", scope=WEB)
        assert {each.item.text for each in found.items} == {"Which door?", "It is the green one."}


async def test_an_outage_of_memory_leaves_the_answer_and_the_prompt_says_so(serve: Serve) -> None:
    server = serve([Reply(text="I do not know.")])
    write_pool(server)
    Path(".ripieno/memory.db").mkdir(parents=True)
    async with open_app() as app:
        for _ in range(3):
            answered = await app.runtime.orchestrator.run_detailed(Task.from_text("Which door?"), arrival=arrive(app))
            assert answered.run.answer is not None
            assert answered.decision.memory is not None
            assert answered.decision.memory.status is ReadStatus.UNAVAILABLE
            assert "do not claim to remember" in prompt(server)
        Path(".ripieno/memory.db").rmdir()
        back = await app.runtime.orchestrator.run_detailed(Task.from_text("Which door?"), arrival=arrive(app))
        assert back.decision.memory is not None
        assert back.decision.memory.status is ReadStatus.OK, "it comes back by itself, with what was said meanwhile"
        assert len(back.decision.memory.items) == 6


async def test_a_private_item_never_reaches_a_public_worker(serve: Serve) -> None:
    server = serve([Reply(text="fine")])
    write_pool(server)
    async with open_app() as app:
        await app.memory.remember(
            [
                NewItem(text="the key is under the mat", scope=WEB, privacy=Privacy.LOCAL),
                NewItem(text="the key is brass", scope=WEB),
            ]
        )
        task = Task.from_text("Where is the key?")
        await app.runtime.orchestrator.run_detailed(task, arrival=arrive(app))
        assert "brass" in prompt(server)
        assert "under the mat" not in prompt(server)
        near = replace(task, objective=replace(task.objective, privacy=Privacy.LOCAL))
        await app.runtime.orchestrator.run_detailed(near, arrival=arrive(app))
        assert "under the mat" in prompt(server)


async def test_recalled_text_is_bounded_and_secrets_are_not_stored(serve: Serve) -> None:
    server = serve([Reply(text="fine")])
    write_pool(server, extra="[memory]\nmost_tokens = 100")
    async with open_app() as app:
        await app.memory.remember([NewItem(text=f"door {nth} " + "is green " * 12, scope=WEB) for nth in range(9)])
        answered = await app.runtime.orchestrator.run_detailed(
            Task.from_text("Which door has the password: hunter2222?"), arrival=arrive(app)
        )
        assert answered.decision.memory is not None
        assert 0 < len(answered.decision.memory.items) < 4
        kept = await app.memory.recall("Which door has the password?", scope=WEB, most=20)
        texts = [each.item.text for each in kept.items]
        assert not any("hunter2222" in text for text in texts)
        assert any("[secret removed]" in text for text in texts)


async def test_a_request_uses_only_the_memory_of_its_key(serve: Serve) -> None:
    server = serve([Reply(text="Noted.")])
    write_pool(server)
    async with open_app() as app:
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener, admin_key=ADMIN_KEY) as address, ClientSession() as client:

            async def ask(text: str, secret: str | None, **more: object) -> None:
                headers = {"authorization": f"Bearer {secret}"} if secret else {}
                messages = [{"role": "user", "content": text}]
                body = {"model": "auto", "messages": messages, "ripieno": {"memory": {"project": "web"}} | more}
                async with client.post(f"{address}/v1/chat/completions", json=body, headers=headers) as response:
                    assert response.status == 200, await response.text()

            keys = []
            for name in ("one", "two"):
                async with client.post(
                    f"{address}/admin/keys", json={"name": name, "limits": {}}, headers=ADMIN
                ) as response:
                    keys.append(str((await response.json())["secret"]))
            await ask("The code of the gate is 4711.", keys[0], session="s1")
            await ask("What is the code of the gate?", keys[1])
            assert "4711" not in prompt(server)
            await ask("What is the code of the gate?", keys[0])
            assert "4711" in prompt(server)


CHAT = "Let me look at that now, it should not take very long at all. " * 12


async def test_a_long_conversation_is_compacted_except_its_last_turns(serve: Serve) -> None:
    server = serve([Reply(text="fine")])
    write_pool(server, extra="[memory]\ncompact_words = 300")
    talk = [
        Message(role="system", content="Be short."),
        Message(role="user", content=f"{CHAT} Decision: the shop will use Postgres."),
        Message(role="assistant", content=f"{CHAT} To do T-7: move the orders of SHOP-4431."),
        Message(role="user", content=CHAT),
        Message(role="assistant", content=CHAT),
        Message(role="user", content="Look at the door, please."),
        Message(role="assistant", content=(ToolCall(id="c1", name="look"),)),
        Message(role="tool", content=(ToolResult(call="c1", content=(Text(text="It is green."),)),)),
        Message(role="assistant", content="The door is green."),
        Message(role="user", content="And the lamp?"),
    ]
    async with open_app() as app:
        answered = await app.runtime.orchestrator.run_detailed(Task(messages=tuple(talk)))
        seen: Any = server.seen[-1].body["messages"]
        assert [message["role"] for message in seen] == [
            *("system", "system", "user", "assistant", "user", "assistant", "tool", "assistant", "user")
        ]
        assert seen[0]["content"] == "Be short."
        for kept in ("Decision: the shop will use Postgres.", "To do T-7", "SHOP-4431", "not orders"):
            assert kept in seen[1]["content"]
        assert "Let me look" not in seen[1]["content"]
        assert seen[2]["content"] == CHAT, "what is kept begins with the user's word, and a result follows its call"
        assert any("older turns were compacted" in reason for reason in answered.decision.reasons)
        recorded = app.ledger.decisions.find(answered.decision.id)
        assert len(recorded.task.messages) == 9, "the record holds what the worker saw"
        await app.runtime.orchestrator.run_detailed(Task(messages=tuple(talk[4:])))
        assert len(server.seen[-1].body["messages"]) == 6  # type: ignore[arg-type]  # a list
        empty = [Message(role="user", content=CHAT * 3), *talk[3:]]
        whole = await app.runtime.orchestrator.run_detailed(Task(messages=tuple(empty)))
        assert len(server.seen[-1].body["messages"]) == len(empty)  # type: ignore[arg-type]  # a list
        assert any("older turns were not compacted" in reason for reason in whole.decision.reasons)


async def test_memory_over_http_is_separate_per_key_and_reports_its_status(serve: Serve) -> None:
    write_pool(serve())
    async with open_app() as app:
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener, admin_key=ADMIN_KEY) as address, ClientSession() as client:

            async def call(
                method: str, path: str, body: object = None, *, secret: str = "", status: int = 200
            ) -> dict[str, Any]:
                headers = {"authorization": f"Bearer {secret}"} if secret else {}
                url = f"{address}/v1/memory{path}"
                async with client.request(method, url, json=body, headers=headers) as response:
                    assert response.status == status, await response.text()
                    return dict(await response.json())

            keys = []
            for name in ("one", "two"):
                async with client.post(
                    f"{address}/admin/keys", json={"name": name, "limits": {}}, headers=ADMIN
                ) as response:
                    keys.append(str((await response.json())["secret"]))
            said = {"text": "The code of the gate is 4711.", "project": "web", "ref": "n1"}
            item = await call("POST", "", said, secret=keys[0], status=201)
            again = await call("POST", "", said, secret=keys[0])
            assert (again["id"], again["is_new"]) == (item["id"], False)
            ask = {"question": "What is the code of the gate?", "project": "web"}
            mine = await call("POST", "/recall", ask, secret=keys[0])
            assert (mine["status"], mine["items"][0]["id"]) == ("ok", item["id"])
            assert (await call("POST", "/recall", ask, secret=keys[1]))["status"] == "empty"
            assert (await call("POST", "/recall", ask))["status"] == "empty", "nor is it everybody's"
            await call("DELETE", f"/{item['id']}", secret=keys[1], status=404)
            stolen = {"text": "mine now", "supersedes": item["id"]}
            await call("POST", "", stolen, secret=keys[1], status=404)
            assert set(await call("GET", "/status", secret=keys[0])) == {"object", "status", "detail"}
            assert (await call("GET", "/status"))["items"] == 1
            for bad in ({"text": " "}, {"text": "x", "colour": "red"}, {"text": "x", "kind": "rumour"}, {}):
                await call("POST", "", bad, status=400)
            await call("POST", "/recall", {"question": "x", "most": 0}, status=400)
            proof = await call("DELETE", f"/{item['id']}", secret=keys[0])
            assert len(proof["digest"]) == 64
            assert (await call("POST", "/recall", ask, secret=keys[0]))["status"] == "empty"
            app.memory.close()
            for file in Path(".ripieno").glob("memory.db*"):
                file.unlink()
            Path(".ripieno/memory.db").mkdir()
            away = await call("POST", "/recall", ask, secret=keys[0])
            assert (away["status"], away["items"]) == ("unavailable", [])
            assert (await call("GET", "/status"))["status"] == "unavailable"
            await call("POST", "", said, secret=keys[0], status=503)
