"""Memory over the Model Context Protocol: the official client, and the command as an agent starts it."""

import sys
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters

from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.domain import Privacy
from ripieno.domain.memory import NewItem, Scope
from ripieno.gateway.mcp import make_server

RIPIENO = str(Path(sys.executable).parent / "ripieno")


def serve(*arguments: str) -> StdioServerParameters:
    return StdioServerParameters(command=RIPIENO, args=["mcp", *arguments], cwd=Path.cwd())


async def call(client: Client, name: str, **arguments: object) -> dict[str, Any]:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result
    assert result.structured_content is not None
    return dict(result.structured_content)


async def test_an_agent_remembers_recalls_and_reads_the_state_of_memory() -> None:
    async with Client(serve("--project", "web")) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert tools == {"remember", "recall", "memory_status"}
        assert "claim to remember" in (client.instructions or "")
        first = await call(client, "remember", text="The shop is deployed on Tuesdays.", kind="decision")
        assert first["status"] == "durable"
        await call(client, "remember", text="The shop is deployed on Fridays.", supersedes=first["id"])
        found = await call(client, "recall", question="When is the shop deployed?")
        assert found["status"] == "ok"
        assert [item["text"] for item in found["items"]] == ["The shop is deployed on Fridays."]
        refused = await client.call_tool("remember", {"text": "x", "kind": "rumour"})
        assert refused.is_error
    async with Client(serve("--project", "web")) as client:
        assert (await call(client, "memory_status"))["items"] == 2, "it outlives the server"
    async with Client(serve("--project", "elsewhere")) as client:
        assert (await call(client, "recall", question="When is the shop deployed?"))["status"] == "empty"


async def test_an_agent_replaces_nothing_of_another_project() -> None:
    async with Installation(load_settings()) as app:
        theirs = NewItem(text="The shop is deployed on Tuesdays.", scope=Scope(project="web"))
        (first,) = await app.memory.remember([theirs])
        server = make_server(lambda: app.memory, Scope(project="elsewhere"), reach=Privacy.PUBLIC)
        async with Client(server) as client:
            for name in (first.id, "0" * 32):
                refused = await client.call_tool("remember", {"text": "Never.", "supersedes": name})
                assert refused.is_error
                assert f"memory holds no item '{name}' in this scope" in str(refused.content)
            mine = await call(client, "remember", text="The lamp is red.")
            assert (await call(client, "remember", text="The lamp is green.", supersedes=mine["id"]))[
                "status"
            ] == "durable"
        found = await app.memory.recall("When is the shop deployed?", scope=Scope(project="web"))
        assert [each.item.id for each in found.items] == [first.id]


async def test_an_outage_is_reported_to_the_agent_and_ends_by_itself() -> None:
    path = Path(".ripieno/memory.db")
    path.mkdir(parents=True)
    async with Client(serve()) as client:
        away = await call(client, "recall", question="Which door is green?")
        assert (away["status"], away["items"]) == ("unavailable", [])
        assert "do not claim to remember" in away["detail"]
        assert (await call(client, "memory_status"))["status"] == "unavailable"
        assert (await client.call_tool("remember", {"text": "The door is green."})).is_error
        path.rmdir()
        assert (await call(client, "remember", text="The door is green."))["status"] == "durable"
        assert (await call(client, "recall", question="Which door is green?"))["status"] == "ok"
