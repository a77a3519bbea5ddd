"""The gateway: the official client, headers, errors, failover, feedback, keys."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import ClientSession
from openai import APIStatusError, AsyncOpenAI
from pydantic import SecretStr
from tests.integration.conftest import JSON, Serve, open_app, write_pool

from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.domain import Executed
from ripieno.errors import ConfigError
from ripieno.gateway import bind_socket, running
from ripieno.testing import Reply

ASK = [{"role": "user", "content": "What is 2 + 2?"}]


@asynccontextmanager
async def open_gateway() -> AsyncIterator[tuple[Installation, str]]:
    async with open_app() as app:
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener) as address:
            yield app, address


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


async def post(
    client: ClientSession, url: str, body: object, **headers: str
) -> tuple[int, dict[str, object], dict[str, str]]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.post(url, data=raw, headers=JSON | headers) as response:
        content = await response.read()
        return response.status, json.loads(content) if content else {}, dict(response.headers)


async def test_the_official_client_chats_unchanged(serve: Serve) -> None:
    write_pool(serve([Reply(text="four")]))
    async with open_gateway() as (app, address), open_client(address) as client:
        raw = await client.chat.completions.with_raw_response.create(model="auto", messages=ASK)
        answer = raw.parse()
        assert answer.choices[0].message.content == "four"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == "a"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (10, 1, 11)
        decided = app.ledger.decisions.find(raw.headers["x-ripieno-decision"])
        assert decided.task.text == "What is 2 + 2?"
        assert raw.headers["x-ripieno-worker"] == "a"
        assert raw.headers["x-ripieno-workflow"] == "solo"
        assert raw.headers["x-request-id"] == decided.decision.id
        assert float(raw.headers["x-ripieno-cost-usd"]) == pytest.approx(0.001)
        runs = app.ledger.runs.of_decision(decided.decision.id)
        assert runs[0].answer is not None
        assert runs[0].answer.text == "four"
        names = [model.id async for model in client.models.list()]
        assert names[0] == "auto"
        assert names[-1] == "a"
        assert (await client.models.retrieve("auto:cheap")).id == "auto:cheap"


async def test_the_official_client_streams_unchanged(serve: Serve) -> None:
    write_pool(serve([Reply(text="one two three")]))
    async with open_gateway() as (app, address), open_client(address) as client:
        stream = await client.chat.completions.create(
            model="auto",
            messages=ASK,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "one two three"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 3
        assert chunks[-1].choices == []
        finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        assert finishes[-1] == "stop"
        assert set(finishes[:-1]) == {None}
        decision = app.ledger.decisions.last()
        assert decision is not None
        run = app.ledger.runs.of_decision(decision)[0]
        assert run.answer is not None
        assert run.answer.text == "one two three"
        assert run.cost_usd == pytest.approx(0.001)


async def test_a_fallback_answers_whole_and_streamed_requests(serve: Serve) -> None:
    write_pool(serve([Reply(status=500)]), serve([Reply(text="from b")]))
    async with open_gateway() as (app, address), open_client(address) as client:
        answer = await client.chat.completions.create(model="auto", messages=ASK)
        assert (answer.model, answer.choices[0].message.content) == ("b", "from b")
        decision = app.ledger.decisions.last()
        assert decision is not None
        assert [(c.worker, c.failure) for c in app.ledger.runs.of_decision(decision)[0].calls] == [
            ("a", "server_error"),
            ("b", None),
        ]
        stream = await client.chat.completions.create(model="auto", messages=ASK, stream=True)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "from b"
        assert {chunk.model for chunk in chunks} == {"b"}


async def test_a_stream_that_breaks_off_ends_with_an_error_event(serve: Serve) -> None:
    write_pool(serve([Reply(text="one two three", cuts_after=2)]), serve([Reply(text="never")]))
    async with open_gateway() as (app, address), ClientSession() as client:
        body = json.dumps({"model": "auto", "messages": ASK, "stream": True}).encode()
        response = await client.post(f"{address}/v1/chat/completions", data=body, headers=JSON)
        events = [line for line in (await response.text()).split("\n\n") if line]
        assert '"error"' in events[-1]
        assert "[DONE]" not in events[-1]
        assert json.loads(events[0].removeprefix("data: "))["choices"][0]["delta"]["content"] == "one"
        decision = app.ledger.decisions.last()
        assert decision is not None
        assert [call.worker for call in app.ledger.runs.of_decision(decision)[0].calls] == ["a"]


async def test_when_all_fail_the_client_gets_an_openai_error(serve: Serve) -> None:
    write_pool(serve([Reply(status=500, text="down")]), serve([Reply(status=500, text="down too")]))
    async with open_gateway() as (app, address), open_client(address) as client:
        for stream in (False, True):
            with pytest.raises(APIStatusError) as caught:
                await client.chat.completions.create(model="auto", messages=ASK, stream=stream)
            assert caught.value.status_code == 502
            assert caught.value.body == {
                "message": "'b' answered 500: down too",
                "type": "server_error",
                "param": None,
                "code": "provider_error",
            }
        decision = app.ledger.decisions.last()
        assert decision is not None
        assert len(app.ledger.runs.of_decision(decision)[0].calls) == 2


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{", 400, "invalid_request", None),
        ({"messages": ASK}, 400, "invalid_request", "model"),
        ({"model": "auto", "messages": []}, 400, "invalid_request", "messages"),
        ({"model": "auto", "messages": [{"content": "x"}]}, 400, "invalid_request", "messages[0].role"),
        (
            {"model": "auto", "messages": [{"role": "user", "content": 5}]},
            400,
            "invalid_request",
            "messages[0].content",
        ),
        ({"model": "gpt-9", "messages": ASK}, 404, "model_not_found", "model"),
        ({"model": "auto:odd", "messages": ASK}, 400, "invalid_request", "ripieno"),
        ({"model": "auto", "messages": ASK, "ripieno": {"preference": 7}}, 400, "invalid_request", "ripieno"),
        ({"model": "auto", "messages": ASK, "ripieno": {"speed": 7}}, 400, "invalid_request", "ripieno"),
        ({"model": "auto", "messages": ASK, "ripieno": {"workers": ["z"]}}, 400, "no_eligible_worker", None),
    ],
)
async def test_each_bad_request_is_an_openai_error(
    serve: Serve, body: object, status: int, code: str, param: str | None
) -> None:
    write_pool(serve())
    async with open_gateway() as (app, address), ClientSession() as client:
        got, said, headers = await post(client, f"{address}/v1/chat/completions", body)
        error = said["error"]
        assert isinstance(error, dict)
        assert (got, error["code"], error["param"]) == (status, code, param)
        assert set(error) == {"message", "type", "param", "code"}
        assert headers["x-should-retry"] == "false"
        assert app.ledger.count("decided") == 0


DIALECTS: dict[str, dict[str, object]] = {
    "chat/completions": {"messages": ASK},
    "messages": {"messages": ASK, "max_tokens": 50},
    "responses": {"input": "What is 2 + 2?"},
}


@pytest.mark.parametrize("model", ["auto", "a"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_wrong_sampling_field_is_refused_and_named_in_every_dialect(
    serve: Serve, dialect: str, model: str
) -> None:
    server = serve()
    write_pool(server)
    limit = "max_output_tokens" if dialect == "responses" else "max_tokens"
    cases: list[tuple[str, object, str]] = [
        ("temperature", "hot", "a number, got 'hot'"),
        ("temperature", True, "a number, got true"),
        ("top_p", [0.5], "a number, got a list"),
        ("presence_penalty", "x" * 999, f"a number, got {'x' * 40!r}"),
        *((limit, wrong, f"a whole number above 0, got {wrong}") for wrong in (0, -5, 1.5)),
        (limit, "9", "a whole number above 0, got '9'"),
        ("max_completion_tokens", -1, "a whole number above 0, got -1"),
        ("n", 0, "a whole number above 0, got 0"),
        ("seed", 1.5, "a whole number, got 1.5"),
        ("top_k", {}, "a whole number, got an object"),
        ("stop", [1], "text, or a list of texts, got a list"),
        ("stop_sequences", "x", "a list of texts, got 'x'"),
    ]
    async with open_gateway() as (app, address), ClientSession() as client:
        url = f"{address}/v1/{dialect}"
        for name, value, told in cases:
            status, said, _ = await post(client, url, {"model": model, **DIALECTS[dialect], name: value})
            error = said["error"]
            assert isinstance(error, dict)
            assert (status, error["type"]) == (400, "invalid_request_error"), (name, value)
            assert error["message"] == f"{name} must be {told}"
            assert error.get("param", name) == name
        assert server.seen == []
        assert app.ledger.count("decided") == 0


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_valid_sampling_fields_and_unknown_fields_reach_the_worker_unchanged(serve: Serve, dialect: str) -> None:
    server = serve()
    write_pool(server)
    good = {"temperature": 0, "top_p": 0.5, "frequency_penalty": -2.0, "seed": 0, "top_k": -1, "n": 1, "stop": "x"}
    unknown = {"num_predict": -1, "min_p": "low", "x_temperature": "hot"}
    async with open_gateway() as (_, address), ClientSession() as client:
        body = {"model": "auto", **DIALECTS[dialect], **good, **unknown}
        assert (await post(client, f"{address}/v1/{dialect}", body))[0] == 200
        sent = server.seen[-1].body
        assert {name: sent[name] for name in good | unknown} == good | unknown
        nothing = {"temperature": None, "max_tokens": None, "max_output_tokens": None}
        assert (await post(client, f"{address}/v1/{dialect}", {"model": "auto", **DIALECTS[dialect], **nothing}))[
            0
        ] == 200


async def test_objective_headers_and_fields_reach_the_decision(serve: Serve) -> None:
    server = serve([Reply(text="x")])
    write_pool(server)
    async with open_gateway() as (app, address), ClientSession() as client:
        body = {
            "model": "auto:cheap", "messages": ASK, "temperature": 0.3, "x_unknown": {"a": 1},
            "ripieno": {"deadline_ms": 1500, "privacy": "local", "mission_criticality": 6, "workers": ["a"]},
        }  # fmt: skip
        headers = {"X-Ripieno-Preference": "0.25", "X-Ripieno-Task-Kind": "maths", "X-Ripieno-Budget-Usd": "0.5"}
        status, _, _ = await post(client, f"{address}/v1/chat/completions", body, **headers)
        assert status == 200
        decision = app.ledger.decisions.last()
        assert decision is not None
        decided = app.ledger.decisions.find(decision)
        objective = decided.task.objective
        assert (objective.preference, objective.preset, objective.deadline_s) == (0.25, "cheap", 1.5)
        assert (objective.privacy, objective.mission_criticality, decided.task.kind) == ("local", 6, "maths")
        assert decided.task.budget.cost_usd == 0.5
        assert server.seen[0].body["x_unknown"] == {"a": 1}
        assert "ripieno" not in server.seen[0].body
        wrong = {"X-Ripieno-Preference": "much"}
        assert (await post(client, f"{address}/v1/chat/completions", body, **wrong))[0] == 400


async def test_a_worker_can_be_named_as_the_model(serve: Serve) -> None:
    write_pool(serve([Reply(text="from a")]), serve([Reply(text="from b")]))
    async with open_gateway() as (_, address), open_client(address) as client:
        answer = await client.chat.completions.create(model="b", messages=ASK)
        assert answer.choices[0].message.content == "from b"


async def test_feedback_joins_its_decision(serve: Serve) -> None:
    write_pool(serve())
    async with open_gateway() as (app, address), ClientSession() as client:
        await post(client, f"{address}/v1/chat/completions", {"model": "auto", "messages": ASK})
        decision = app.ledger.decisions.last()
        for quality in (0.0, 1.0):
            status, said, _ = await post(client, f"{address}/v1/feedback", {"decision": decision, "quality": quality})
            assert status == 200
        assert said == {"recorded": f"judged:{decision}:user:1"}
        assert [m.outcome.quality for m in app.ledger.outcomes.measured()] == [1.0]
        assert (await post(client, f"{address}/v1/feedback", {"decision": "zz", "quality": 1}))[0] == 404
        assert (await post(client, f"{address}/v1/feedback", {"decision": decision, "quality": 2}))[0] == 400


async def test_health_and_unknown_paths(serve: Serve) -> None:
    write_pool(serve())
    async with open_gateway() as (_, address), ClientSession() as client:
        response = await client.get(f"{address}/healthz")
        health = await response.json()
        loops = health.pop("loops")
        faults = {"reload_fault": None, "ledger_fault": None}
        assert health == {"status": "ok", "workers": 1, "unhealthy": [], "unavailable": [], **faults}
        names = {"learning", "keys", "probing", "replicas", "runs", "memory", "extraction", "ledger", "ledger watch"}
        assert {loop["name"] for loop in loops} == names
        for method, path, status in (("GET", "/nope", 404), ("GET", "/v1/chat/completions", 405)):
            response = await client.request(method, f"{address}{path}")
            assert response.status == status
            assert (await response.json())["error"]["code"] == "unknown_url"


async def test_an_unknown_model_gets_the_same_error_on_both_routes(serve: Serve) -> None:
    write_pool(serve())
    async with open_gateway() as (_, address), ClientSession() as client:
        async with client.get(f"{address}/v1/models/nope") as shown:
            status, told = shown.status, await shown.json()
        assert (status, told["error"]["code"], told["error"]["param"]) == (404, "model_not_found", "model")
        assert "'nope'" in told["error"]["message"]
        asked = await post(client, f"{address}/v1/chat/completions", {"model": "nope", "messages": ASK})
        assert (asked[0], asked[1]["error"]) == (status, told["error"])


async def test_embeddings_name_the_worker_or_encoder_that_made_them(serve: Serve) -> None:
    made = {"object": "list", "data": [{"index": 0, "embedding": [1.0]}], "model": "text-embedding-of-the-server"}
    server = serve([Reply(raw=json.dumps(made).encode())])
    write_pool(server, extra='[gateway.aliases]\n"text-embedding-3-small" = "a"\n"ada" = "auto"')
    async with open_gateway() as (app, address), ClientSession() as client:
        url, encoder = f"{address}/v1/embeddings", app.analyzer.encoder.name
        for model, named in (("a", "a"), ("text-embedding-3-small", "a"), ("auto", encoder), ("ada", encoder)):
            status, said, headers = await post(client, url, {"model": model, "input": "x"})
            assert (status, said["model"]) == (200, named)
            assert headers.get("x-ripieno-worker", encoder) == named
        assert [seen.body["model"] for seen in server.seen] == ["a", "a"]
        status, said, _ = await post(client, url, {"model": "text-embedding-9", "input": "x"})
        error = said["error"]
        assert isinstance(error, dict)
        assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert len(server.seen) == 2


async def test_a_key_in_the_settings_is_required_and_never_shown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", "gate-secret")
    write_pool(serve())
    async with open_gateway() as (_, address), ClientSession() as client:
        url, body = f"{address}/v1/chat/completions", {"model": "auto", "messages": ASK}
        for headers in ({}, {"authorization": "Bearer wrong"}):
            status, said, _ = await post(client, url, body, **headers)
            assert status == 401
            assert said["error"]["code"] == "invalid_api_key"  # type: ignore[index]  # the error object
            assert "gate-secret" not in json.dumps(said)
        assert (await post(client, url, body, authorization="Bearer gate-secret"))[0] == 200
        assert (await post(client, url, body, **{"x-api-key": "gate-secret"}))[0] == 200
        async with client.get(f"{address}/healthz") as response:
            assert response.status == 200


async def test_an_open_address_without_a_key_and_a_port_in_use_are_refused(serve: Serve) -> None:
    write_pool(serve())
    async with open_app() as app:
        settings = app.runtime.settings.gateway
        with pytest.raises(ConfigError, match="open to other machines"):
            bind_socket(settings.model_copy(update={"host": "0.0.0.0"}))
        with pytest.raises(ConfigError, match="has less than 16 characters"):
            bind_socket(settings.model_copy(update={"host": "0.0.0.0", "api_key": SecretStr("x")}))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(ConfigError, match="cannot listen on") as caught:
                bind_socket(settings.model_copy(update={"port": taken.getsockname()[1]}))
            assert "--port 0" in str(caught.value.hint)
        with pytest.raises(ConfigError, match="open to other machines"):
            bind_socket(settings.model_copy(update={"host": "example.invalid"}))
        bind_socket(settings.model_copy(update={"host": "localhost", "port": 0})).close()


FAULTY = """
from pydantic import BaseModel
from ripieno.plugins import Plugin

class Options(BaseModel):
    pass

class Faulty:
    name = "faulty"
    facts = {}

    def decide(self, *given, **options):
        raise KeyError("sk-secret")

policy = Plugin(Options, lambda options: Faulty())
"""
"""A policy plugin with a bug."""


async def test_an_unhandled_exception_is_an_openai_error_without_its_text(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty_plugin.py").write_text(FAULTY)
    info = tmp_path / "faulty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ripieno.policies]\nfaulty = faulty_plugin:policy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    write_pool(serve(), extra="[route]\npolicy = 'faulty'\n")
    async with open_gateway() as (_, address), ClientSession() as client:
        status, said, _ = await post(client, f"{address}/v1/chat/completions", {"model": "auto", "messages": ASK})
        assert status == 500
        assert said["error"]["code"] == "internal_error"  # type: ignore[index]  # the error object
        assert "sk-secret" not in json.dumps(said)
        async with client.get(f"{address}/healthz") as response:
            assert response.status == 200


async def test_an_alias_stands_for_several_workers_and_a_pattern_for_many_names(serve: Serve) -> None:
    aliases = """[gateway.aliases]
"desk" = ["b", "c"]
"claude-*haiku*" = "auto:cheap"
"claude-*" = "c"
"a" = "auto"
"[x]?" = "b"
"""
    write_pool(serve([Reply(text="a")]), serve([Reply(text="b")]), serve([Reply(text="c")]), extra=aliases)
    path = Path("ripieno.toml")
    text = path.read_text()
    with pytest.raises(ConfigError, match="is the name of a worker"):
        load_settings()
    path.write_text(text.replace('"a" = "auto"\n', '"desk2" = ["b", "nope"]\n'))
    with pytest.raises(ConfigError, match="names 'nope', which does not exist"):
        load_settings()
    path.write_text(text.replace('"a" = "auto"\n', ""))
    async with open_gateway() as (app, address), ClientSession() as client:
        names = {
            "desk": {"b", "c"},
            "claude-3-5-haiku-latest": {"a", "b", "c"},
            "claude-opus-9": {"c"},
            "[x]?": {"b"},
            "a": {"a"},
        }
        for name, workers in names.items():
            status, _, headers = await post(client, f"{address}/v1/chat/completions", {"model": name, "messages": ASK})
            assert status == 200
            decided = app.ledger.decisions.find(headers["x-ripieno-decision"]).decision
            assert set(decided.mask.eligible) == workers, name
            async with client.get(f"{address}/v1/models/{quote(name)}") as shown:
                assert shown.status == 200
        for name in ("gpt-9", "x"):
            status, body, _ = await post(client, f"{address}/v1/chat/completions", {"model": name, "messages": ASK})
            assert (status, body["error"]["code"]) == (404, "model_not_found")  # type: ignore[index]  # an error
        async with client.get(f"{address}/v1/models") as listed:
            ids = [model["id"] for model in (await listed.json())["data"]]
        assert "desk" in ids
        assert not [name for name in ids if "*" in name]


async def test_the_official_client_completes_a_prompt(serve: Serve) -> None:
    server = serve([Reply(text="four it is")])
    write_pool(server)
    async with open_gateway() as (_, address), open_client(address) as client:
        made = await client.completions.create(model="auto", prompt="2 + 2 is ", max_tokens=9, echo=True)
        assert (made.choices[0].text, made.choices[0].finish_reason) == ("2 + 2 is four it is", "stop")
        assert made.usage is not None
        assert made.usage.completion_tokens == 3
        assert server.seen[-1].body["messages"] == [{"role": "user", "content": "2 + 2 is "}]
        stream = await client.completions.create(
            model="auto", prompt=["2 + 2 is"], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "four it is"
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
        assert chunks[-1].usage is not None
        with pytest.raises(APIStatusError, match="one text"):
            await client.completions.create(model="auto", prompt=["a", "b"])
        with pytest.raises(APIStatusError, match="suffix"):
            await client.completions.create(model="auto", prompt="a", suffix="b")


async def test_requests_of_further_routes_are_passed_on_and_metered(serve: Serve) -> None:
    sound = serve([Reply(raw=b"RIFF....", content_type="audio/wav")])
    picture = serve([Reply(raw=b'{"data": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}')])
    silent = serve([Reply(status=500, text="down")])
    write_pool(sound, picture, silent)
    async with open_gateway() as (app, address), open_client(address) as client, ClientSession() as plain:
        spoken = await client.audio.speech.create(model="a", voice="alloy", input="Where is the key?")
        assert spoken.content == b"RIFF...."
        assert spoken.response.headers["content-type"] == "audio/wav"
        assert (sound.seen[0].path, sound.seen[0].body["model"]) == ("/v1/audio/speech", "a")
        status, body, headers = await post(plain, f"{address}/v1/images/generations", {"model": "b", "prompt": "a key"})
        assert (status, body["data"], headers["x-ripieno-worker"]) == (200, [], "b")
        await app.ledger.append()
        entries = [stored.entry for stored in app.ledger.read(kinds=["executed"])]
        runs = [entry.run for entry in entries if isinstance(entry, Executed)]
        costs = {run.worker: (run.cost_usd, run.tokens) for run in runs}
        assert costs == {"a": (0.001, 0), "b": (0.002, 12)}
        for model, wanted in (("c", 502), ("nope", 404), (5, 400)):
            status, _, _ = await post(plain, f"{address}/v1/moderations", {"model": model, "input": "x"})
            assert status == wanted, model
