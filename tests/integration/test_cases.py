"""Inputs from public reports that routers and gateways handled wrongly: what workers send, and what clients send."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from tests.integration.conftest import Serve, open_gateway
from tests.integration.reading import DIALECTS, FINISH, FINISH_WITH_CALLS, PATHS, ask, post, read_stream, read_whole

from ripieno.app import Installation
from ripieno.domain import WorkerId
from ripieno.testing import ReceivedRequest, Reply, ScriptedServer

CASES = Path(__file__).parents[3] / "shared" / "cases"
CALLS = [("look", {"q": 1}), ("read", {"f": 2})]
ONE_CALL = CALLS[:1]
TEXTS = {"not-utf8": "caf\ufffd ok"}
"""Texts of the streams that do not say `forty-two`."""
WITH_CALLS = {
    "tools-without-index": CALLS,
    "tools-in-one-chunk-without-index": CALLS,
    "tools-interleaved": CALLS,
    "tool-arguments-object": ONE_CALL,
    "tool-finish-stop": ONE_CALL,
}
NEEDS_ANOTHER = ("error-after-role", "role-then-nothing")


def list_cases(folder: str, ending: str) -> list[str]:
    return sorted(path.name.removesuffix(ending) for path in (CASES / folder).glob(f"*{ending}"))


pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases beside the project: it reads them there")


def play(request: ReceivedRequest) -> Reply:
    """Answer as the model's name says: with a file of the streams or of the replies."""
    name = str(request.body["model"])
    stream = CASES / "streams" / f"{name}.sse"
    if request.body.get("stream") and stream.exists():
        return Reply(raw=stream.read_bytes(), content_type="text/event-stream")
    for path in sorted((CASES / "replies").glob(f"{name}.*")):
        parts = path.name.split(".")
        return Reply(raw=path.read_bytes(), status=int(parts[-2]) if parts[-2].isdigit() else 200)
    return Reply(text="forty-two")


@asynccontextmanager
async def open_cases(
    serve: Serve, *models: str, extra: str = ""
) -> AsyncIterator[tuple[Installation, str, ClientSession, ScriptedServer]]:
    """A gateway whose workers are named like files; each is dearer than the one before."""
    server = serve(play)
    lines = ["[ledger]", "url = 'sqlite:///ledger.db'", "[providers.up]", 'kind = "openai"']
    lines += [f'base_url = "{server.base_url}"']
    for nth, model in enumerate(models):
        lines += [f'[workers."{model}"]', 'provider = "up"', f'model = "{model}"', f"usd_per_call = {nth + 1}e-3"]
        lines += ['modalities = ["text", "image"]', 'privacy = "local"']
    Path("ripieno.toml").write_text("\n".join(lines) + f"\n{extra}\n")
    async with open_gateway() as (app, address, client):
        yield app, address, client, server


@pytest.mark.parametrize("name", [n for n in list_cases("streams", ".sse") if n not in NEEDS_ANOTHER])
async def test_a_strange_stream_is_read_whole(serve: Serve, name: str) -> None:
    async with open_cases(serve, name) as (app, address, client, _):
        for dialect in DIALECTS:
            body = ask(dialect, name, stream=True)
            if dialect == "chat":
                body["stream_options"] = {"include_usage": True}
            status, content, headers = await post(client, address + PATHS[dialect], body)
            assert status == 200, content
            said = read_stream(dialect, content)
            calls = WITH_CALLS.get(name)
            assert said.is_whole, content
            assert said.calls == (calls or []), content
            assert len(set(said.ids)) == len(said.calls)
            assert said.text == ("" if calls else TEXTS.get(name, "forty-two"))
            assert said.finish == (FINISH_WITH_CALLS if calls else FINISH)[dialect]
            assert said.usages == 1
            (run,) = app.ledger.runs.of_decision(headers["x-ripieno-decision"])
            assert run.calls[-1].failure is None
            assert run.answer is not None
            assert run.answer.text == said.text
            assert [(call.name, json.loads(call.arguments)) for call in run.answer.calls] == said.calls
            usage = run.calls[-1].usage
            assert said.usage == (usage.input_tokens, usage.output_tokens), "the client reads what is recorded"
            if b"prompt_tokens" in (CASES / "streams" / f"{name}.sse").read_bytes():
                assert said.usage == (11, 7)
        status, content, _ = await post(client, address + PATHS["chat"], ask("chat", name, stream=True))
        assert read_stream("chat", content).usages == 0, "who did not ask for counts gets none"


@pytest.mark.parametrize("name", NEEDS_ANOTHER)
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_that_fails_before_its_content_is_another_workers(serve: Serve, name: str, dialect: str) -> None:
    async with open_cases(serve, name, "plain") as (app, address, client, server):
        body = ask(dialect, "auto", stream=True, ripieno={"preference": 0.0})
        status, content, headers = await post(client, address + PATHS[dialect], body)
        assert status == 200, content
        assert read_stream(dialect, content).text == "forty-two"
        assert [request.body["model"] for request in server.seen] == [name, "plain"]
        (run,) = app.ledger.runs.of_decision(headers["x-ripieno-decision"])
        assert [call.failure is None for call in run.calls] == [False, True]


REPLIES_WITH_CALLS = {"tool-arguments-object": ONE_CALL, "tools-without-id": [("look", {"q": 1}), ("look", {"q": 2})]}
GOOD_REPLIES = [
    name.removesuffix(".json")
    for name in list_cases("replies", "")
    if not re.search(r"\.\d{3}\.json$", name) and name != "choice-error.json"
]


@pytest.mark.parametrize("name", GOOD_REPLIES)
async def test_a_strange_reply_is_read_whole(serve: Serve, name: str) -> None:
    async with open_cases(serve, name) as (app, address, client, _):
        for dialect in DIALECTS:
            for is_stream in (False, True):
                body = ask(dialect, name, **({"stream": True} if is_stream else {}))
                if is_stream and dialect == "chat":
                    body["stream_options"] = {"include_usage": True}
                status, content, headers = await post(client, address + PATHS[dialect], body)
                assert status == 200, content
                said = read_stream(dialect, content) if is_stream else read_whole(dialect, json.loads(content))
                assert said.calls == REPLIES_WITH_CALLS.get(name, [])
                assert len(set(said.ids)) == len(said.calls)
                assert said.text == ("" if name in REPLIES_WITH_CALLS else "forty-two")
                (run,) = app.ledger.runs.of_decision(headers["x-ripieno-decision"])
                call = run.calls[-1]
                assert call.failure is None
                assert said.usage == (call.usage.input_tokens, call.usage.output_tokens)
                assert said.usage is not None
                assert all(said.usage), "what was not counted is estimated, and never zero"
                if name == "own-cost":
                    assert call.cost_usd == pytest.approx(0.0042)


@pytest.mark.parametrize("name", ["choice-error", "context-too-long", "no-credit", "unknown-field"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_refusal_of_one_worker_is_another_workers_answer(serve: Serve, name: str, is_stream: bool) -> None:
    fields = {"stream": True} if is_stream else {}
    async with open_cases(serve, name, "plain") as (app, address, client, _):
        for dialect in DIALECTS:
            app.health.note_success(WorkerId(name))
            body = ask(dialect, "auto", ripieno={"preference": 0.0}, **fields)
            status, content, headers = await post(client, address + PATHS[dialect], body)
            assert status == 200, content
            (run,) = app.ledger.runs.of_decision(headers["x-ripieno-decision"])
            assert [call.worker for call in run.calls] == [name, "plain"]
            said = read_stream(dialect, content) if is_stream else read_whole(dialect, json.loads(content))
            assert said.text == "forty-two"
            assert headers["x-ripieno-worker"] == "plain"
        status, content, _ = await post(client, address + PATHS["chat"], ask("chat", name))
        assert status in (400, 502), "a named worker's refusal is passed on"


@pytest.mark.parametrize("name", list_cases("requests", ".json"))
async def test_what_a_client_sends_reaches_the_worker(serve: Serve, name: str) -> None:
    case = json.loads((CASES / "requests" / f"{name}.json").read_text())
    async with open_cases(serve, "plain") as (app, address, client, server):
        status, content, headers = await post(client, address + case["path"], case["body"])
        if name == "messages-choice-of-a-served-tool":
            assert status == 400
            assert "web_search" in content
            assert not server.seen
            return
        assert status == 200, content
        sent: Any = server.seen[-1].body
        check_request(name, sent)
        decided = app.ledger.decisions.find(headers["x-ripieno-decision"])
        if name == "messages-reminder-after-tool-result":
            assert decided.task.text == "Prove that the sum of two odd numbers is even."


def check_request(name: str, sent: dict[str, Any]) -> None:
    talk = sent["messages"]
    shown = json.dumps(talk)
    for words in WORDS.get(name, ()):
        assert words in shown
    for words in SILENT.get(name, ()):
        assert words not in shown
    if name in ROLES:
        assert [message["role"] for message in talk] == ROLES[name]
    match name:
        case "chat-calls-without-content-key":
            assert talk[2] == {"role": "tool", "tool_call_id": "c1", "content": "in the drawer"}
        case "chat-empty-tools-with-choice":
            assert "tool_choice" not in sent
        case "messages-image-in-tool-result" | "responses-image-in-tool-output":
            assert talk[-1]["content"][-1]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="
        case "responses-grouped-tools":
            assert [tool["function"]["name"] for tool in sent["tools"]] == ["mcp__docs__search"]
        case "responses-words-between-call-and-output":
            assert (talk[1]["content"], talk[1]["tool_calls"][0]["id"]) == ("Looking.", "c1")


WORDS = {
    "chat-calls-without-content-key": ["look"],
    "messages-only-search-results": ["behind the clock"],
    "messages-search-results-and-text": ["330 m", "How tall"],
    "messages-tool-failed": ["failed", "no such file"],
    "responses-shell-history": ["key.txt", "ls"],
}
"""What of a request the worker must get."""
SILENT = {"messages-thinking-given-back": ["The drawer first."]}
"""What it must not get: nobody knows whose reasoning that is."""
ROLES = {
    "messages-image-in-tool-result": ["user", "assistant", "tool", "user"],
    "responses-image-in-tool-output": ["user", "assistant", "tool", "user"],
    "messages-tool-failed": ["user", "assistant", "tool"],
    "responses-words-between-call-and-output": ["user", "assistant", "tool"],
}


async def test_a_grouped_tool_is_called_by_its_group_and_its_name(serve: Serve) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "mcp__docs__search", "arguments": '{"q": "key"}'}}
    server = serve([Reply(text="", message={"tool_calls": [call]}, finish_reason="tool_calls")])
    Path("ripieno.toml").write_text(
        f'[ledger]\nurl = "sqlite:///ledger.db"\n[providers.up]\nkind = "openai"\nbase_url = "{server.base_url}"\n'
        '[workers.a]\nprovider = "up"\n'
    )
    case = json.loads((CASES / "requests" / "responses-grouped-tools.json").read_text())
    async with open_gateway() as (_, address, client):
        for is_stream in (False, True):
            body = case["body"] | {"stream": is_stream}
            _, content, _ = await post(client, address + case["path"], body)
            events = re.findall(r"^data: (\{.*)$", content, flags=re.MULTILINE)
            response = json.loads(events[-1])["response"] if is_stream else json.loads(content)
            (item,) = [item for item in response["output"] if item["type"] == "function_call"]
            assert (item["namespace"], item["name"], item["call_id"]) == ("mcp__docs__", "search", "c1")
