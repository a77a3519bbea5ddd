"""Tools of MCP servers as workers, with real servers of the official SDK."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.conftest import HANG_S
from tests.integration.conftest import open_app

from ripieno.domain import Objective, Task
from ripieno.errors import BadAnswer, ConfigError, ProviderError, ProviderUnreachable
from ripieno.providers.mcp import make_arguments

SERVER = """
import os
import sys
from mcp.server import MCPServer

server = MCPServer("tools")
open("pid", "w").write(str(os.getpid()))

@server.tool()
def shout(text: str) -> str:
    return text.upper()

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

@server.tool()
def die(text: str) -> str:
    os._exit(3)

@server.tool()
def fail(text: str) -> str:
    raise ValueError("no such page")

server.run()
"""


def write_tools(command: str = sys.executable, args: str = '["server.py"]') -> None:
    Path("server.py").write_text(SERVER)
    lines = ["[ledger]", 'url = "sqlite:///ledger.db"', "[providers.tools]", 'kind = "mcp"']
    lines += [f'command = "{command}"', f"args = {args}"]
    for name in ("shout", "add", "die", "fail", "none"):
        lines += [f"[workers.{name}]", 'provider = "tools"', f'model = "{name}"', 'price = "free"', "is_tool = true"]
    Path("ripieno.toml").write_text("\n".join(lines))


def ask(worker: str, text: str) -> Task:
    return Task.from_text(text, objective=Objective(workers=(worker,)))


async def test_a_tool_of_a_server_answers_and_a_dead_server_is_started_again() -> None:
    write_tools()
    async with open_app() as app:
        run = app.runtime.orchestrator.run_detailed
        assert (await run(ask("shout", "hello"))).answer.text == "HELLO"
        assert (await run(ask("add", '{"a": 2, "b": 3}'))).answer.text == "5"
        with pytest.raises(BadAnswer, match="wants a JSON object with a, b"):
            await run(ask("add", "two and three"))
        with pytest.raises(BadAnswer, match="Error executing tool fail"):
            await run(ask("fail", "x"))
        app.health.note_success(app.runtime.pool["fail"].id)
        for text in ("first", "second"):
            with pytest.raises(ProviderError):
                await run(ask("die", text))
            app.health.note_success(app.runtime.pool["die"].id)
        assert (await run(ask("shout", "again"))).answer.text == "AGAIN", "the server was started again"
        os.kill(int(Path("pid").read_text()), signal.SIGKILL)
        assert (await run(ask("shout", "still"))).answer.text == "STILL"
        assert await app.runtime.caller.check(app.runtime.pool["shout"]) == "tool listed among 4"
        with pytest.raises(ConfigError, match=r"has no tool .none."):
            await app.runtime.caller.check(app.runtime.pool["none"])


async def test_a_server_that_does_not_start_is_named() -> None:
    write_tools(command="/nowhere/tools")
    async with open_app() as app:
        with pytest.raises(ProviderUnreachable, match="MCP server of 'shout' cannot be reached"):
            await app.runtime.caller.check(app.runtime.pool["shout"])


async def test_a_server_that_says_nothing_is_given_up() -> None:
    write_tools(command="sleep", args='["600"]\nstart_timeout_s = 0.2')
    async with asyncio.timeout(HANG_S), open_app() as app:
        for _ in range(2):
            with pytest.raises(ProviderUnreachable, match="did not start in time"):
                await app.runtime.caller.check(app.runtime.pool["shout"])


def test_arguments_are_the_text_or_a_json_object() -> None:
    one = {"properties": {"q": {"type": "string"}, "n": {"type": "integer"}}, "required": ["q"]}
    assert make_arguments("Where?", one, worker="w") == {"q": "Where?"}
    assert make_arguments('{"q": "x", "n": 2}', one, worker="w") == {"q": "x", "n": 2}
    assert make_arguments('{"other": 1}', one, worker="w") == {"q": '{"other": 1}'}
    assert make_arguments("anything", {}, worker="w") == {}


def test_options_name_a_command_or_an_address() -> None:
    Path("ripieno.toml").write_text('[providers.tools]\nkind = "mcp"\n[workers.shout]\nprovider = "tools"\n')
    from ripieno.app import Installation
    from ripieno.config import load_settings

    with pytest.raises(ConfigError, match="state either command or url"):
        Installation(load_settings())
