"""Faults of workers while another one is well: the user sees none of them before content was sent."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.faults.conftest import misbehaving
from tests.integration.conftest import JSON, Serve, open_gateway
from tests.integration.reading import DIALECTS, PATHS, ask, read_stream, read_whole

from ripieno.domain import WorkerId
from ripieno.testing import Reply

HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
ROLE = {**HEAD, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}


def events(*chunks: object, end: str = "data: [DONE]\n\n") -> Reply:
    lines = "".join(f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks)
    return Reply(raw=(lines + end).encode(), content_type="text/event-stream")


def refuse(status: int, message: str, code: str | None = None) -> Reply:
    return Reply(status=status, raw=json.dumps({"error": {"message": message, "code": code}}).encode())


def whole(**choice: object) -> Reply:
    return Reply(raw=json.dumps({"choices": [{"index": 0, "finish_reason": "stop", **choice}]}).encode())


EITHER = {
    "bad request": refuse(400, "the request is bad"),
    "context too long": refuse(400, "maximum context length is 4096 tokens", "context_length_exceeded"),
    "parameter": refuse(400, "Unsupported parameter: 'metadata'", "unsupported_parameter"),
    "filter": refuse(400, "blocked by the content filter", "content_filter"),
    "key": refuse(401, "no such key"),
    "credit": refuse(402, "insufficient credits"),
    "forbidden": refuse(403, "not your model"),
    "model": refuse(404, "no such model"),
    "request timeout": refuse(408, "too slow"),
    "conflict": refuse(409, "conflict"),
    "too large": refuse(413, "request too large"),
    "not processable": refuse(422, "cannot process"),
    "rate": refuse(429, "slow down"),
    "quota": refuse(429, "exceeded your current quota", "insufficient_quota"),
    "crash": refuse(500, "oops"),
    "proxy": Reply(status=502, raw=b"<html>bad gateway</html>"),
    "down": refuse(503, "down"),
    "late proxy": refuse(504, "late"),
    "overloaded": refuse(529, "overloaded"),
    "redirect": Reply(status=302, raw=b"", headers={"location": "http://127.0.0.1:9/"}),
    "page": Reply(raw=b"<html>log in</html>", content_type="text/html"),
    "dropped": Reply(drops=True),
    "hangs": Reply(hangs=True),
    "empty": Reply(raw=b""),
    "error with 200": Reply(raw=b'{"error": {"message": "overloaded"}}'),
}
WHOLE = {
    "no choices": Reply(raw=b'{"choices": []}'),
    "no message": Reply(raw=b'{"choices": [{"index": 0}]}'),
    "no content": whole(message={"role": "assistant", "content": None}),
    "only spaces": whole(message={"role": "assistant", "content": "  "}),
    "choice error": whole(message={"role": "assistant", "content": "ha"}, finish_reason="error"),
    "half a body": Reply(raw=b'{"choices": [{"message": {"content": "ha'),
}
STREAMED = {
    "cut before content": Reply(text="one two", cuts_after=0),
    "ends after role": events(ROLE, end=""),
    "error after role": events(ROLE, {"error": {"message": "overloaded"}}, end=""),
    "nothing after role": events(ROLE),
    "not a chunk": events("[1]"),
    "not json": events("hello"),
    "choice error": events({**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}),
    "nothing": events(),
}
FAULTS = [(name, reply, False) for name, reply in (EITHER | WHOLE).items()]
FAULTS += [(name, reply, True) for name, reply in (EITHER | STREAMED).items()]
EXTRA = "connect_timeout_s = 1.0\nfirst_token_timeout_s = 0.3\ntotal_timeout_s = 0.6"


def name_fault(value: object) -> str:
    return value if isinstance(value, str) else ("streamed" if value is True else "whole" if value is False else "")


def write_two(bad: str, good: str, extra: str = "") -> None:
    lines = ["[ledger]", 'url = "sqlite:///ledger.db"']
    for name, address, price in (("bad", bad, 1), ("good", good, 2)):
        lines += [f"[providers.{name}]", 'kind = "openai"', f'base_url = "{address}"', EXTRA]
        lines += [f"[workers.{name}]", f'provider = "{name}"', f"usd_per_call = {price}e-3"]
    Path("ripieno.toml").write_text("\n".join(lines) + f"\n{extra}")


@pytest.mark.parametrize(("name", "reply", "is_stream"), FAULTS, ids=name_fault)
async def test_a_faulty_worker_is_replaced_before_the_user_sees_it(
    serve: Serve, name: str, reply: Reply, is_stream: bool
) -> None:
    bad, good = serve([reply]), serve([Reply(text="forty two")])
    write_two(bad.base_url, good.base_url)
    async with open_gateway() as (app, address, client):
        for dialect in DIALECTS:
            app.health.note_success(WorkerId("bad"))
            body = ask(dialect, "auto", stream=is_stream, ripieno={"preference": 0.0})
            async with client.post(address + PATHS[dialect], data=json.dumps(body), headers=JSON) as response:
                content = (await response.read()).decode()
                assert response.status == 200, (name, content)
                assert response.headers["x-ripieno-worker"] == "good"
            heard = read_stream(dialect, content) if is_stream else read_whole(dialect, json.loads(content))
            assert heard.text == "forty two", name
            assert heard.is_whole


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_worker_that_dies_after_content_ends_the_stream_with_an_error(serve: Serve, dialect: str) -> None:
    bad, good = serve([Reply(text="one two three four", cuts_after=2)]), serve([Reply(text="forty two")])
    write_two(bad.base_url, good.base_url)
    ends = {"chat": '"error"', "messages": "event: error", "responses": "response.failed"}
    async with open_gateway() as (_, address, client):
        body = ask(dialect, "auto", stream=True, ripieno={"preference": 0.0})
        async with client.post(address + PATHS[dialect], data=json.dumps(body), headers=JSON) as response:
            content = (await response.read()).decode()
        assert response.status == 200
        assert "one" in content
        assert ends[dialect] in content
        for end in ("[DONE]", "message_stop", "response.completed"):
            assert end not in content


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_another_worker_continues_a_stream_where_that_is_allowed(serve: Serve, dialect: str) -> None:
    # Two words that surely arrive: of a connection that breaks, the latest may be lost on the way.
    chunks = (
        {**HEAD, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        for word in ("one", " two")
    )
    bad, good = serve([events(*chunks, end="")]), serve([Reply(text=" three four")])
    write_two(bad.base_url, good.base_url, "[gateway]\nresume_streams = true\n")
    async with open_gateway() as (app, address, client):
        body = ask(dialect, "auto", stream=True, ripieno={"preference": 0.0})
        async with client.post(address + PATHS[dialect], data=json.dumps(body), headers=JSON) as response:
            content = (await response.read()).decode()
        heard = read_stream(dialect, content)
        assert heard.is_whole
        assert heard.text == "one twothree four", "the text so far, then what the other worker adds"
        told: Any = good.seen[-1].body["messages"]
        assert told[-2] == {"role": "assistant", "content": "one two"}
        (run,) = app.ledger.runs.of_decision(response.headers["x-ripieno-decision"])
        assert run.answer is not None
        assert (run.answer.text, run.answer.authors) == (heard.text, ("bad", "good"))
        assert [call.failure is None for call in run.calls] == [False, True]
        assert '"authors":["bad","good"]' in content


async def test_a_stream_with_a_tool_call_is_not_continued(serve: Serve) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    deltas = ({"content": "one"}, {"content": " two", "tool_calls": [{"index": 0, **call}]})
    chunks = ({**HEAD, "choices": [{"index": 0, "delta": delta}]} for delta in deltas)
    bad = serve([events(*chunks, end="")])
    write_two(bad.base_url, serve([Reply(text="two")]).base_url, "[gateway]\nresume_streams = true\n")
    async with open_gateway() as (_, address, client):
        body = ask("chat", "auto", stream=True, ripieno={"preference": 0.0})
        async with client.post(address + PATHS["chat"], data=json.dumps(body), headers=JSON) as response:
            assert '"error"' in (await response.read()).decode()


@pytest.mark.parametrize("ends", [b"data: [DONE]\n\n", b""])
async def test_an_answer_ends_though_the_workers_connection_stays_open(ends: bytes) -> None:
    chunk = {**HEAD, "choices": [{"index": 0, "delta": {"content": "forty two"}, "finish_reason": "stop"}]}
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + f"data: {json.dumps(chunk)}\n\n".encode() + ends)
        await reader.read()  # until the client leaves

    lines = ["[ledger]", 'url = "sqlite:///ledger.db"', "[providers.open]", 'kind = "openai"']
    with misbehaving(answer) as server:
        lines += [f'base_url = "http://127.0.0.1:{server.port}/v1"', "[workers.open]", 'provider = "open"']
        Path("ripieno.toml").write_text("\n".join([*lines, 'price = "free"']))
        await check_that_it_ends()


async def check_that_it_ends() -> None:
    async with open_gateway() as (app, address, client):
        body = ask("chat", "open", stream=True)
        async with client.post(address + PATHS["chat"], data=json.dumps(body), headers=JSON) as response:
            heard = read_stream("chat", (await response.read()).decode())
        assert (heard.text, heard.is_whole) == ("forty two", True)
        (run,) = app.ledger.runs.of_decision(response.headers["x-ripieno-decision"])
        assert run.calls[0].failure is None
        assert run.calls[0].latency_s is not None
        assert run.calls[0].latency_s < 20.0, "it did not wait for the time-out of idle streams"
