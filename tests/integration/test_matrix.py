"""The format of each client with that of each worker: what either says reaches the other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import Serve, open_gateway
from tests.integration.reading import DIALECTS, FINISH_WITH_CALLS, PATHS, ask, post, read_stream, read_whole
from tests.integration.upstreams import KINDS, PDF, PNG, SIGNATURE, Said, follow

from ripieno.errors import ProviderRejected
from ripieno.providers.refusals import Profile
from ripieno.testing import ReceivedRequest, Reply, ScriptedServer
from ripieno.wires.carries import TABLE, Carriage, Feature

SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
LOOK = {"type": "object", "properties": {"q": {"type": "integer"}}}
DATA_PNG, DATA_PDF = f"data:image/png;base64,{PNG}", f"data:application/pdf;base64,{PDF}"
ANSWER = Said(
    text="in the drawer",
    reasoning="The drawer first.",
    signature=SIGNATURE,
    calls=[("c8", "look", {"q": 2}), ("c9", "look", {"q": 3})],
)
SENT: dict[str, set[Feature]] = {
    "chat": {Feature.IMAGE, Feature.DOCUMENT, Feature.STOP, Feature.SCHEMA, Feature.EFFORT, Feature.SEED},
    "messages": {
        Feature.IMAGE, Feature.RESULT_IMAGE, Feature.DOCUMENT, Feature.TOOL_FAILURE, Feature.CACHE_MARK, Feature.STOP,
        Feature.SCHEMA, Feature.EFFORT, Feature.TOP_K,
    },
    "responses": {Feature.IMAGE, Feature.RESULT_IMAGE, Feature.DOCUMENT, Feature.SCHEMA, Feature.EFFORT},
}  # fmt: skip
"""Features of the request below, by the client's format."""


def ask_chat() -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q": 1}'}}
    parts = [
        {"type": "text", "text": "Where is the key?"},
        {"type": "image_url", "image_url": {"url": DATA_PNG}},
        {"type": "file", "file": {"filename": "map.pdf", "file_data": DATA_PDF}},
    ]
    return {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "no such room"},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": LOOK}}],
        "tool_choice": "required",
        "max_tokens": 5000,
        "stop": ["END"],
        "seed": 7,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}},
    }


def ask_messages() -> dict[str, Any]:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}}
    marked = {"type": "text", "text": "Where is the key?", "cache_control": {"type": "ephemeral"}}
    result = [{"type": "text", "text": "no such room"}, image]
    return {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [
            {"role": "user", "content": [marked, image, pdf]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {"q": 1}}]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c1", "is_error": True, "content": result}],
            },
        ],
        "tools": [{"name": "look", "description": "Looks.", "input_schema": LOOK}],
        "tool_choice": {"type": "any"},
        "max_tokens": 5000,
        "stop_sequences": ["END"],
        "top_k": 5,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }


def ask_responses() -> dict[str, Any]:
    parts = [
        {"type": "input_text", "text": "Where is the key?"},
        {"type": "input_image", "image_url": DATA_PNG},
        {"type": "input_file", "filename": "map.pdf", "file_data": DATA_PDF},
    ]
    result = [{"type": "input_text", "text": "no such room"}, {"type": "input_image", "image_url": DATA_PNG}]
    return {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": parts},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"q": 1}'},
            {"type": "function_call_output", "call_id": "c1", "output": result},
        ],
        "tools": [{"type": "function", "name": "look", "description": "Looks.", "parameters": LOOK}],
        "tool_choice": "required",
        "max_output_tokens": 5000,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA}},
    }


ASKS: dict[str, Callable[[], dict[str, Any]]] = {
    "chat": ask_chat,
    "messages": ask_messages,
    "responses": ask_responses,
}


def look_chat(body: dict[str, Any]) -> dict[str, Any]:
    """What a worker of chat completions finds in a request."""
    roles = [message["role"] for message in body["messages"]]
    system, asked, called, result, *behind = body["messages"]
    assert roles[:4] == ["system", "user", "assistant", "tool"]
    urls = [part["image_url"]["url"] for part in asked["content"] if part["type"] == "image_url"]
    files = [part["file"]["file_data"] for part in asked["content"] if part["type"] == "file"]
    shown = [part["image_url"]["url"] for m in behind for part in m["content"] if part["type"] == "image_url"]
    (call,) = called["tool_calls"]
    return {
        "system": system["content"],
        "question": next(part["text"] for part in asked["content"] if part["type"] == "text"),
        Feature.IMAGE: urls == [DATA_PNG],
        Feature.DOCUMENT: files == [DATA_PDF],
        "call": (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])),
        "result": (result["tool_call_id"], "no such room" in result["content"]),
        Feature.RESULT_IMAGE: shown == [DATA_PNG],
        Feature.TOOL_FAILURE: "failed" in result["content"],
        "tool": body["tools"][0]["function"]["parameters"],
        "choice": body["tool_choice"] == "required",
        "most": body.get("max_tokens") or body.get("max_completion_tokens"),
        Feature.STOP: body.get("stop") == ["END"],
        Feature.SCHEMA: body["response_format"]["json_schema"]["schema"] == SCHEMA,
        Feature.EFFORT: body.get("reasoning_effort") == "low",
        Feature.SEED: body.get("seed") == 7,
        Feature.TOP_K: body.get("top_k") == 5,
        Feature.CACHE_MARK: "cache_control" in json.dumps(body),
    }


def look_messages(body: dict[str, Any]) -> dict[str, Any]:
    """What a worker of Anthropic's format finds in a request."""
    asked, called, answered = body["messages"]
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    blocks = {block["type"]: block for block in asked["content"]}
    (call,) = called["content"]
    (result,) = answered["content"]
    inner = result["content"]
    text = inner if isinstance(inner, str) else next(part["text"] for part in inner if part["type"] == "text")
    system = body["system"]
    return {
        "system": system if isinstance(system, str) else system[0]["text"],
        "question": blocks["text"]["text"],
        Feature.IMAGE: blocks["image"]["source"]["data"] == PNG,
        Feature.DOCUMENT: blocks["document"]["source"]["data"] == PDF,
        "call": (call["id"], call["name"], call["input"]),
        "result": (result["tool_use_id"], "no such room" in text),
        Feature.RESULT_IMAGE: not isinstance(inner, str) and inner[-1].get("source", {}).get("data") == PNG,
        Feature.TOOL_FAILURE: result.get("is_error") is True,
        "tool": body["tools"][0]["input_schema"],
        "choice": body["tool_choice"]["type"] == "any",
        "most": body["max_tokens"],
        Feature.STOP: body.get("stop_sequences") == ["END"],
        Feature.SCHEMA: body["output_config"]["format"]["schema"] == SCHEMA,
        Feature.EFFORT: body["thinking"]["budget_tokens"] >= 1024,
        Feature.SEED: "seed" in body,
        Feature.TOP_K: body.get("top_k") == 5,
        Feature.CACHE_MARK: system == ask_messages()["system"] and blocks["text"].get("cache_control") is not None,
    }


def look_responses(body: dict[str, Any]) -> dict[str, Any]:
    """What a worker of OpenAI's responses finds in a request."""
    asked, call, result = body["input"]
    parts = {part["type"]: part for part in asked["content"]}
    output = result["output"]
    text = output if isinstance(output, str) else " ".join(part.get("text", "") for part in output)
    return {
        "system": body["instructions"],
        "question": parts["input_text"]["text"],
        Feature.IMAGE: parts["input_image"]["image_url"] == DATA_PNG,
        Feature.DOCUMENT: parts["input_file"]["file_data"] == DATA_PDF,
        "call": (call["call_id"], call["name"], json.loads(call["arguments"])),
        "result": (result["call_id"], "no such room" in text),
        Feature.RESULT_IMAGE: not isinstance(output, str) and output[-1].get("image_url") == DATA_PNG,
        Feature.TOOL_FAILURE: "failed" in text,
        "tool": body["tools"][0]["parameters"],
        "choice": body["tool_choice"] == "required",
        "most": body["max_output_tokens"],
        Feature.STOP: "stop" in body,
        Feature.SCHEMA: body["text"]["format"]["schema"] == SCHEMA,
        Feature.EFFORT: body["reasoning"]["effort"] == "low",
        Feature.SEED: "seed" in body,
        Feature.TOP_K: "top_k" in body,
        Feature.CACHE_MARK: "cache_control" in json.dumps(body),
    }


def look_gemini(body: dict[str, Any]) -> dict[str, Any]:
    """What a worker of Google's format finds in a request."""
    asked, called, answered = body["contents"]
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    inline = {part["inlineData"]["mimeType"]: part["inlineData"] for part in asked["parts"] if "inlineData" in part}
    (call,) = called["parts"]
    result, *behind = answered["parts"]
    response = result["functionResponse"]
    config = body["generationConfig"]
    return {
        "system": body["systemInstruction"]["parts"][0]["text"],
        "question": asked["parts"][0]["text"],
        Feature.IMAGE: inline["image/png"]["data"] == PNG,
        Feature.DOCUMENT: inline["application/pdf"]["data"] == PDF,
        "call": (call["functionCall"]["id"], call["functionCall"]["name"], call["functionCall"]["args"]),
        "result": (response["id"], "no such room" in json.dumps(response["response"])),
        Feature.RESULT_IMAGE: [part["inlineData"]["data"] for part in behind] == [PNG],
        Feature.TOOL_FAILURE: "error" in response["response"],
        "tool": body["tools"][0]["functionDeclarations"][0]["parameters"],
        "choice": body["toolConfig"]["functionCallingConfig"]["mode"] == "ANY",
        "most": config["maxOutputTokens"],
        Feature.STOP: config.get("stopSequences") == ["END"],
        Feature.SCHEMA: config["responseJsonSchema"] == SCHEMA,
        Feature.EFFORT: config["thinkingConfig"]["thinkingBudget"] > 0,
        Feature.SEED: config.get("seed") == 7,
        Feature.TOP_K: config.get("topK") == 5,
        Feature.CACHE_MARK: "cache_control" in json.dumps(body),
    }


LOOKS = {"chat": look_chat, "messages": look_messages, "responses": look_responses, "gemini": look_gemini}


def write_worker(server: ScriptedServer, wire: str, extra: str = "") -> None:
    Path("ripieno.toml").write_text(
        f'[ledger]\nurl = "sqlite:///ledger.db"\n[providers.up]\nkind = "{KINDS[wire]}"\n'
        f'base_url = "{server.base_url}"\n[workers.w]\nprovider = "up"\nmodel = "m"\nusd_per_call = 0.001\n'
        f'modalities = ["text", "image"]\n{extra}'
    )


@pytest.mark.parametrize("wire", TABLE)
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_what_a_client_says_reaches_a_worker_of_each_format(serve: Serve, dialect: str, wire: str) -> None:
    server = serve(follow(lambda _: Said(text="in the drawer"), wire))
    write_worker(server, wire)
    async with open_gateway() as (app, address, client):
        for is_stream in (False, True):
            body = {"model": "auto", **ASKS[dialect](), "stream": is_stream}
            status, content, headers = await post(client, address + PATHS[dialect], body)
            assert status == 200, content
            found = LOOKS[wire](server.seen[-1].body)
            assert found["system"] == "Be brief."
            assert found["question"] == "Where is the key?"
            assert found["call"] == ("c1", "look", {"q": 1})
            assert found["result"] == ("c1", True)
            assert found["tool"] == LOOK
            assert found["choice"]
            assert found["most"] == 5000
            is_same = dialect == wire
            lost = {f for f in SENT[dialect] if TABLE[wire][f] is Carriage.LOST and not is_same}
            for feature in SENT[dialect]:
                assert found[feature] is (feature not in lost), feature
            told = headers.get("x-ripieno-lost", "")
            assert sorted(filter(None, told.split(", "))) == sorted(feature.value for feature in lost)
            decided = headers["x-ripieno-decision"]
            (run,) = app.ledger.runs.of_decision(decided)
            assert run.answer is not None
            assert sorted(run.answer.lost) == sorted(feature.value for feature in lost), "the record says so, too"
            assert app.ledger.decisions.find(decided).task.text == "Where is the key?"


@pytest.mark.parametrize("wire", TABLE)
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_what_a_worker_of_each_format_says_reaches_a_client(
    serve: Serve, dialect: str, wire: str, is_stream: bool
) -> None:
    server = serve(follow(lambda _: ANSWER, wire))
    write_worker(server, wire)
    async with open_gateway() as (app, address, client):
        body = {"model": "w", **ASKS[dialect](), "stream": is_stream}
        if dialect == "chat":
            body["stream_options"] = {"include_usage": True}
        status, content, headers = await post(client, address + PATHS[dialect], body)
        assert status == 200, content
        heard = read_stream(dialect, content) if is_stream else read_whole(dialect, json.loads(content))
        assert heard.text == "in the drawer"
        assert heard.reasoning == "The drawer first."
        assert heard.calls == [("look", {"q": 2}), ("look", {"q": 3})]
        assert heard.ids == ["c8", "c9"]
        assert heard.finish == FINISH_WITH_CALLS[dialect]
        assert heard.is_whole
        assert heard.usage == ((20, 7) if dialect == "messages" else (30, 7)), "Anthropic counts cached tokens apart"
        if wire == dialect == "messages":
            assert SIGNATURE in content
        (run,) = app.ledger.runs.of_decision(headers["x-ripieno-decision"])
        assert run.answer is not None
        assert [call.id for call in run.answer.calls] == ["c8", "c9"]
        assert (run.calls[0].usage.input_tokens, run.calls[0].usage.cached_tokens) == (30, 10)


@pytest.mark.parametrize("wire", TABLE)
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_answer_that_is_cut_says_so(serve: Serve, dialect: str, wire: str, is_stream: bool) -> None:
    server = serve(follow(lambda _: Said(text="in the", finish="length"), wire))
    write_worker(server, wire)
    async with open_gateway() as (_, address, client):
        body = {"model": "w", **ASKS[dialect](), "stream": is_stream}
        status, content, _ = await post(client, address + PATHS[dialect], body)
        assert status == 200
        ends = {"chat": '"finish_reason":"length"', "messages": '"max_tokens"', "responses": '"incomplete"'}
        assert ends[dialect] in content.replace('": "', '":"')


async def test_signatures_and_cache_marks_return_to_an_anthropic_worker_byte_for_byte(serve: Serve) -> None:
    server = serve(follow(lambda _: ANSWER, "messages"))
    write_worker(server, "messages")
    async with open_gateway() as (_, address, client):
        first = ask_messages()
        _, content, _ = await post(client, address + PATHS["messages"], {"model": "auto", **first})
        blocks = json.loads(content)["content"]
        assert blocks[0] == {"type": "thinking", "thinking": "The drawer first.", "signature": SIGNATURE}
        results = [
            {"type": "tool_result", "tool_use_id": name, "content": "nothing", "cache_control": {"type": "ephemeral"}}
            for name in ("c8", "c9")
        ]
        talk = [*first["messages"], {"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
        served = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
        body = {**first, "messages": talk, "tools": [*first["tools"], served], "context_management": {"edits": []}}
        status, content, headers = await post(client, address + PATHS["messages"], {"model": "auto", **body})
        assert status == 200, content
        sent = server.seen[-1].body
        assert sent == {**body, "model": "m"}, "all but the model is as the client sent it"
        assert "x-ripieno-lost" not in headers


async def test_a_worker_that_carries_all_is_preferred_to_a_cheaper_one_that_does_not(serve: Serve) -> None:
    cheap = serve(follow(lambda _: Said(text="cheap"), "chat"))
    whole = serve(follow(lambda _: Said(text="whole"), "messages"))
    Path("ripieno.toml").write_text(
        '[ledger]\nurl = "sqlite:///ledger.db"\n'
        f'[providers.chat]\nkind = "openai"\nbase_url = "{cheap.base_url}"\n'
        f'[providers.anthropic]\nkind = "anthropic"\nbase_url = "{whole.base_url}"\n'
        '[workers.cheap]\nprovider = "chat"\nusd_per_call = 0.001\n'
        '[workers.whole]\nprovider = "anthropic"\nusd_per_call = 0.01\n'
    )
    tools = [{"type": "web_search_20250305", "name": "web_search"}, {"name": "look", "input_schema": LOOK}]
    talk = [{"role": "user", "content": "Where is the key?"}]
    async with open_gateway() as (app, address, client):
        url = address + PATHS["messages"]
        body: dict[str, Any] = {"model": "auto", "max_tokens": 9, "messages": talk, "ripieno": {"preference": 0.0}}
        marked = [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}]
        for tool, worker, said in ((tools[1:], "cheap", talk), (tools[1:], "cheap", marked), (tools, "whole", talk)):
            asked = {**body, "tools": tool, "messages": said}
            status, content, headers = await post(client, url, asked)
            assert status == 200, content
            assert headers["x-ripieno-worker"] == worker
        masked = app.ledger.decisions.find(headers["x-ripieno-decision"]).decision.mask.masked
        assert [(name, why.reason) for name, why in masked.items()] == [("cheap", "cannot_carry")]
        status, content, headers = await post(
            client, address + PATHS["messages"], {**body, "model": "cheap", "tools": tools}
        )
        assert (status, headers["x-ripieno-lost"]) == (200, "tool of the vendor")
        assert [tool["function"]["name"] for tool in cheap.seen[-1].body["tools"]] == ["look"]  # type: ignore[attr-defined]  # a list
        status, content, _ = await post(
            client, address + PATHS["messages"], {**body, "model": "cheap", "tools": tools[:1]}
        )
        assert status == 400
        assert "web_search" in content


async def test_keys_headers_and_queries_go_with_every_request(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = {wire: serve(follow(lambda _: Said(text="here"), wire)) for wire in TABLE}
    lines = ["[ledger]", 'url = "sqlite:///ledger.db"']
    for wire, server in servers.items():
        monkeypatch.setenv(f"RIPIENO_PROVIDERS__{wire.upper()}__API_KEY", f"key-of-{wire}")
        lines += [f"[providers.{wire}]", f'kind = "{KINDS[wire]}"', f'base_url = "{server.base_url}?tenant=7"']
        lines += ['headers = { "x-team" = "tools" }', 'query = { "api-version" = "2026-10-01" }']
        lines += [f"[workers.{wire}]", f'provider = "{wire}"', 'model = "m"']
    Path("ripieno.toml").write_text("\n".join(lines))
    paths = {
        "chat": "/v1/chat/completions?tenant=7&api-version=2026-10-01",
        "messages": "/v1/messages?tenant=7&api-version=2026-10-01",
        "responses": "/v1/responses?tenant=7&api-version=2026-10-01",
        "gemini": "/v1/models/m:streamGenerateContent?alt=sse&tenant=7&api-version=2026-10-01",
    }
    keys = {"chat": "authorization", "messages": "x-api-key", "responses": "authorization", "gemini": "x-goog-api-key"}
    async with open_gateway() as (_, address, client):
        for wire, server in servers.items():
            body = {"model": wire, "messages": [{"role": "user", "content": "hi"}], "stream": True}
            status, content, _ = await post(client, address + PATHS["chat"], body)
            assert status == 200, content
            (request,) = server.seen
            assert request.path == paths[wire]
            assert request.headers["x-team"] == "tools"
            assert request.headers[keys[wire]].removeprefix("Bearer ") == f"key-of-{wire}"


async def test_a_field_that_a_worker_refuses_is_left_out_and_remembered(serve: Serve) -> None:
    def refuse(request: ReceivedRequest) -> Reply:
        if request.body["model"] == "m" and "max_tokens" in request.body:
            said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        elif request.body["model"] == "m" and "temperature" in request.body:
            said = "Unsupported value: 'temperature' does not support 0.3 with this model."
        else:
            return follow(lambda _: Said(text="here"), "chat")(request)
        return Reply(status=400, raw=json.dumps({"error": {"message": said, "code": "unsupported_value"}}).encode())

    server = serve(refuse)
    write_worker(server, "chat")
    talk = [{"role": "user", "content": "hi"}]
    async with open_gateway() as (_, address, client):
        for is_stream in (False, True):
            body = {"model": "w", "messages": talk, "max_tokens": 9, "temperature": 0.3, "stream": is_stream}
            status, content, headers = await post(client, address + PATHS["chat"], body)
            assert status == 200, content
            assert headers["x-ripieno-lost"] == "temperature"
        assert len(server.seen) == 4, "two were refused, once each"
        assert server.seen[-1].body["max_completion_tokens"] == 9
        config = Path("ripieno.toml")
        config.write_text(config.read_text().replace('model = "m"', 'model = "m-2"'))
        status, content, headers = await post(client, address + PATHS["chat"], body)
        assert status == 200, content
        assert "x-ripieno-lost" not in headers, "another model may take what this one refused"
        assert server.seen[-1].body["temperature"] == 0.3


def test_two_requests_at_once_learn_from_the_same_refusal() -> None:
    refused, profile = ProviderRejected("Unknown parameter: 'seed'", worker="w"), Profile()
    bodies: list[dict[str, Any]] = [{"model": "m", "seed": 7}, {"model": "m", "seed": 8}]
    assert [profile.learn(refused, body) for body in bodies] == [True, True]
    assert bodies == [{"model": "m"}] * 2


async def test_reasoning_goes_back_to_the_worker_that_gave_it_and_to_no_other(serve: Serve) -> None:
    thinking = serve([Reply(text="", message={
        "reasoning_content": "The drawer first.",
        "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
    }, finish_reason="tool_calls"), Reply(text="in the drawer")])  # fmt: skip
    other = serve([Reply(text="here")])
    lines = ["[ledger]", "url = 'sqlite:///ledger.db'"]
    for name, server in (("a", thinking), ("b", other)):
        lines += [f"[providers.{name}]", 'kind = "openai"', f'base_url = "{server.base_url}"']
        lines += [f"[workers.{name}]", f'provider = "{name}"', "usd_per_call = 0.001"]
    Path("ripieno.toml").write_text("\n".join(lines))
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    async with open_gateway() as (_, address, client):
        url = address + PATHS["messages"]
        _, content, _ = await post(client, url, ask("messages", "a", tools=tools))
        blocks = json.loads(content)["content"]
        assert [block["type"] for block in blocks] == ["thinking", "tool_use"]
        result = [{"type": "tool_result", "tool_use_id": "t1", "content": "nothing"}]
        talk = [
            {"role": "user", "content": "Where is the key?"},
            {"role": "assistant", "content": blocks},
            {"role": "user", "content": result},
        ]
        for model in ("a", "b"):
            body = {"model": model, "max_tokens": 9, "messages": talk, "tools": tools}
            status, content, _ = await post(client, url, body)
            assert status == 200, content
        given = [server.seen[-1].body["messages"][1] for server in (thinking, other)]  # type: ignore[index]  # a list
        assert given[0]["reasoning_content"] == "The drawer first."
        assert "reasoning_content" not in given[1]
        assert given[1]["tool_calls"][0]["id"] == "t1"
