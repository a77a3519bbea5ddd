"""Providers over real sockets: answers, faults, and their results."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from tests.integration.conftest import Serve
from tests.unit.test_tasks import make_folder

from ripieno.domain import Binding, Failure, Message, Price, SystemClock, Task, Worker, WorkerId
from ripieno.errors import BadAnswer, ConfigError, ProviderError, ProviderRejected, ProviderTimeout, ProviderUnreachable
from ripieno.providers import CallAnswered, Caller, CallFailed, LiveCall, Piece, WorkerHealth
from ripieno.providers.callables import CallableOptions, CallableProvider
from ripieno.providers.health import FAILURES_TO_OPEN, OPEN_S
from ripieno.providers.options import EndpointOptions
from ripieno.providers.remote import RemoteProvider
from ripieno.providers.replay import ReplayOptions, ReplayProvider
from ripieno.testing import FixedClock, Reply, ScriptedServer, check_provider
from ripieno.wires.chat.upstream import vote

TASK = Task.from_text("What is 2 + 2?")


def make_worker(options: dict[str, object] | None = None, **fields: object) -> Worker:
    binding = Binding(provider="p", model="scripted", options=options or {})
    card = {"id": WorkerId("w"), "binding": binding, "price": Price(output_usd_per_mtok=1e6), **fields}
    return Worker(**card)  # type: ignore[arg-type]  # fields of the card


def make_provider(server: ScriptedServer, **options: object) -> RemoteProvider:
    return RemoteProvider(EndpointOptions(base_url=server.base_url, **options))  # type: ignore[arg-type]  # options


def make_caller(server: ScriptedServer, clock: FixedClock | None = None, **options: object) -> Caller:
    chosen = clock or FixedClock()
    return Caller({"p": make_provider(server, **options)}, health=WorkerHealth(chosen), clock=chosen)


async def test_the_openai_provider_passes_the_kit(serve: Serve) -> None:
    provider = make_provider(serve([Reply(text="it is four")]))
    await check_provider(provider, make_worker())
    await provider.close()


async def test_requests_contain_the_task_and_the_key(serve: Serve) -> None:
    server = serve([Reply(text="4", message={"reasoning": "two and two", "tool_calls": None})])
    provider = make_provider(server, api_key="sk-secret")
    task = Task(
        messages=(Message(role="user", content="hi", extra={"name": "bob"}),),
        tools=({"type": "function"},),
        params={"temperature": 0.5, "x_new": [1]},
    )
    answer = await provider.complete(
        make_worker({"system": "be brief", "params": {"temperature": 0, "top_p": 1}}), task
    )
    body = server.seen[0].body
    assert body == {
        "model": "scripted",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi", "name": "bob"}],
        "tools": [{"type": "function"}],
        "temperature": 0.5,
        "top_p": 1,
        "x_new": [1],
    }
    assert server.seen[0].headers["authorization"] == "Bearer sk-secret"
    assert (answer.text, answer.usage.input_tokens, answer.usage.output_tokens) == ("4", 10, 1)
    assert answer.reasoning == "two and two"
    await provider.close()


async def test_five_samples_are_one_request_and_one_vote(serve: Serve) -> None:
    server = serve([Reply(text="four four")])
    provider = make_provider(server)
    worker = make_worker({"samples": 5})
    answer = await provider.complete(worker, TASK)
    assert server.seen[0].body["n"] == 5
    assert answer.usage.output_tokens == 10
    pieces = [piece async for piece in provider.stream(worker, TASK)]
    assert [piece.text for piece in pieces] == ["four four", ""]
    assert vote(["Lyon", "paris.", "Paris", ""]) == 1
    assert vote(["", ""]) == 0
    await provider.close()


@pytest.mark.parametrize(
    ("reply", "error", "told"),
    [
        (Reply(status=401, text="no such key"), ProviderRejected, "answered 401: no such key"),
        (Reply(status=400, text="bad field"), ProviderRejected, "bad field"),
        (Reply(status=500, raw=b"<html>oops</html>"), ProviderError, "<html>oops</html>"),
        (Reply(status=429, text="slow", headers={"retry-after": "7"}), ProviderError, "slow"),
        (Reply(raw=b"<html>hello</html>"), BadAnswer, "did not answer with a chat completion"),
        (Reply(raw=b'{"choices": []}'), BadAnswer, "did not answer with a chat completion"),
        (Reply(raw=b'{"choices": [{"message": {"content": 5}}]}'), BadAnswer, "type int"),
        (Reply(text="  "), BadAnswer, "answered with no content"),
        (Reply(hangs=True), ProviderTimeout, "did not answer in time"),
    ],
)
async def test_each_bad_answer_has_its_error(serve: Serve, reply: Reply, error: type[ProviderError], told: str) -> None:
    provider = make_provider(serve([reply]), total_timeout_s=0.5)
    with pytest.raises(error, match=told) as caught:
        await provider.complete(make_worker(), TASK)
    assert caught.value.worker == "w"
    await provider.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "Wed, 01 Jan 2020 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
async def test_retry_after_headers_are_read(serve: Serve, headers: dict[str, str], seconds: float | None) -> None:
    provider = make_provider(serve([Reply(status=429, headers=headers)]))
    with pytest.raises(ProviderError) as caught:
        await provider.complete(make_worker(), TASK)
    assert caught.value.retry_after_s == seconds
    await provider.close()


async def test_a_dead_address_is_unreachable() -> None:
    with ScriptedServer() as server:
        pass
    provider = make_provider(server)
    with pytest.raises(ProviderUnreachable, match="cannot be reached"):
        await provider.complete(make_worker(), TASK)
    with pytest.raises(ProviderUnreachable):
        await provider.check(make_worker())
    await provider.close()


async def test_check_reports_whether_the_server_has_the_model(serve: Serve) -> None:
    provider = make_provider(serve())
    assert await provider.check(make_worker()) == "reachable, model listed"
    other = Worker(id=WorkerId("x"), binding=Binding(provider="p", model="scriptde"))
    with pytest.raises(ProviderRejected, match="does not list the model 'scriptde' among its 3") as caught:
        await provider.check(other)
    assert "nearest: scripted" in str(caught.value.hint)
    await provider.close()


@pytest.mark.parametrize(
    ("listed", "one", "told"),
    [
        ((404, "{}"), (404, "{}"), "not verified"),
        ((405, "{}"), (404, "{}"), "not verified"),
        ((200, '{"data": [{"id": "m:latest"}]}'), (404, "{}"), "model listed"),
        ((200, '{"data": [{"id": "other"}], "has_more": true}'), (200, '{"id": "m-2026"}'), "model listed"),
        ((200, '{"data": [{"id": "other"}]}'), (200, "<html>"), None),
        ((200, '{"data": []}'), (404, "{}"), None),
    ],
)
async def test_check_queries_a_model_that_is_not_listed(
    listed: tuple[int, str], one: tuple[int, str], told: str | None
) -> None:
    async def answer(request: web.Request) -> web.Response:
        status, text = listed if request.path == "/v1/models" else one
        return web.Response(status=status, text=text, content_type="application/json")

    served = web.Application()
    served.router.add_get("/v1/models", answer)
    served.router.add_get("/v1/models/m", answer)
    async with TestServer(served) as server:
        provider = RemoteProvider(EndpointOptions(base_url=str(server.make_url("/v1"))))
        worker = Worker(id=WorkerId("x"), binding=Binding(provider="p", model="m"))
        if told is None:
            with pytest.raises(ProviderRejected, match="does not list the model 'm'"):
                await provider.check(worker)
        else:
            assert told in await provider.check(worker)
        await provider.close()


async def collect(caller: Caller, live: LiveCall) -> str:
    return "".join([piece.text async for piece in caller.stream(live, TASK)])


async def test_a_stream_is_counted_and_priced(serve: Serve) -> None:
    caller = make_caller(serve([Reply(text="one two three")]))
    live = LiveCall(make_worker())
    assert await collect(caller, live) == "one two three"
    call = live.result().call
    assert (call.usage.output_tokens, call.cost_usd) == (3, 3.0)
    assert call.first_token_s is not None
    await caller.close()


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (Reply(text="one two three", cuts_after=2), Failure.UNREACHABLE),
        (Reply(status=503, text="down"), Failure.SERVER_ERROR),
        (Reply(hangs=True), Failure.TIMEOUT),
        (Reply(text=""), Failure.BAD_ANSWER),
    ],
)
async def test_a_broken_stream_is_an_error_and_is_recorded(serve: Serve, reply: Reply, failure: Failure) -> None:
    caller = make_caller(serve([reply]), first_token_timeout_s=0.4)
    live = LiveCall(make_worker())
    with pytest.raises(ProviderError):
        await collect(caller, live)
    assert live.result().call.failure is failure
    assert isinstance(live.result(), CallFailed)
    await caller.close()


async def test_leaving_a_stream_cancels_the_call(serve: Serve) -> None:
    server = serve([Reply(hangs=True)])
    caller = make_caller(server)
    live = LiveCall(make_worker())
    task = asyncio.create_task(collect(caller, live))
    assert await asyncio.to_thread(server.came.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(server.left.wait, 5)
    assert live.result().call.failure is Failure.CANCELLED
    await caller.close()


async def test_transient_faults_are_retried_and_final_ones_are_not(serve: Serve) -> None:
    waits = Reply(status=429, headers={"retry-after-ms": "10"})
    recovering = serve([Reply(status=500), Reply(text="fine")])
    caller = make_caller(recovering)
    called = await caller.call(make_worker(), TASK)
    assert isinstance(called, CallAnswered)
    assert (called.answer.text, called.call.attempts) == ("fine", 2)
    await caller.close()

    for script, count in (
        ([waits, Reply()], 2),
        ([Reply(status=400)], 1),
        ([Reply(status=429, headers={"retry-after": "60"})], 1),
    ):
        server = serve(script)
        caller = make_caller(server)
        await caller.call(make_worker(), TASK)
        assert len(server.seen) == count
        await caller.close()


async def test_a_breaker_opens_after_failures_in_a_row_and_closes_with_time(serve: Serve) -> None:
    clock = FixedClock()
    caller = make_caller(serve([Reply(status=500)] * FAILURES_TO_OPEN + [Reply(text="well again")]), clock)
    worker = make_worker()
    for _ in range(FAILURES_TO_OPEN):
        assert worker.id not in caller.health.unhealthy()
        await caller.call(worker, TASK, attempts=1)
    assert "server_error" in caller.health.unhealthy()[worker.id]
    clock.advance(OPEN_S + 1)
    assert worker.id not in caller.health.unhealthy()
    assert isinstance(await caller.call(worker, TASK), CallAnswered)
    await caller.call(worker, TASK)
    assert not caller.health.unhealthy()
    await caller.close()


async def test_a_refused_key_opens_the_breaker_at_once_and_a_bad_request_does_not(serve: Serve) -> None:
    caller = make_caller(serve([Reply(status=400), Reply(status=401)]))
    worker = make_worker()
    called = await caller.call(worker, TASK)
    assert called.call.failure is Failure.REJECTED
    assert not caller.health.unhealthy()
    await caller.call(worker, TASK)
    assert worker.id in caller.health.unhealthy()
    await caller.close()


async def test_a_worker_that_asks_to_wait_is_rate_limited(serve: Serve) -> None:
    clock = FixedClock()
    caller = make_caller(serve([Reply(status=429, headers={"retry-after": "30"})]), clock)
    worker = make_worker()
    called = await caller.call(worker, TASK)
    assert called.call.failure is Failure.RATE_LIMITED
    assert "30.0 s more" in caller.health.rate_limited()[worker.id]
    clock.advance(31)
    assert not caller.health.rate_limited()
    await caller.close()


def shout(text: str) -> str:
    return text.upper()


def boom(text: str) -> str:
    raise RuntimeError(text)


def mute(text: str) -> str:
    return ""


def dawdle(text: str) -> str:
    import threading

    threading.Event().wait(0.6)
    return "late"


def make_callable(name: str) -> Worker:
    return Worker(
        id=WorkerId(name),
        binding=Binding(provider="p", model=f"tests.integration.test_providers:{name}"),
        price=Price(usd_per_cpu_s=1.0),
    )


async def test_a_callable_is_a_worker() -> None:
    provider = CallableProvider(CallableOptions(timeout_s=0.3))
    await check_provider(provider, make_callable("shout"))
    for name, error, told in (
        ("boom", BadAnswer, "RuntimeError"),
        ("mute", BadAnswer, "instead of text"),
        ("dawdle", ProviderTimeout, "over 0.3 s"),
    ):
        with pytest.raises(error, match=told):
            await provider.complete(make_callable(name), TASK)
    with pytest.raises(ConfigError, match="cannot be imported"):
        await provider.check(make_callable("gone"))
    with pytest.raises(ConfigError, match="is not callable"):
        await provider.check(make_callable("TASK"))


async def test_a_replay_worker_answers_as_recorded(tmp_path: Path) -> None:
    make_folder(tmp_path / "set")
    provider = ReplayProvider(ReplayOptions(folder=tmp_path / "set"))
    worker = Worker(id=WorkerId("m1"), binding=Binding(provider="p", model="m1"))
    clock = FixedClock()
    caller = Caller({"p": provider}, health=WorkerHealth(clock), clock=clock)
    hello = Task.from_text("hello")
    first, second = (await caller.call(worker, hello)), (await caller.call(worker, hello))
    assert isinstance(first, CallAnswered)
    assert isinstance(second, CallAnswered)
    assert [first.answer.recorded_quality, second.answer.recorded_quality] == [1.0, 0.0]
    assert first.call.cost_usd == 0.1
    missing = await caller.call(worker, Task.from_text("never asked"))
    assert missing.call.failure is Failure.BAD_ANSWER
    assert await caller.check(worker) == "2 recorded prompts"
    with pytest.raises(BadAnswer, match="'m9' is not in"):
        await caller.check(Worker(id=WorkerId("m9"), binding=Binding(provider="p", model="m9")))
    await caller.close()


async def test_a_worker_without_provider_is_a_setup_fault(serve: Serve) -> None:
    clock = FixedClock()
    caller = Caller({}, health=WorkerHealth(clock), clock=clock)
    called = await caller.call(make_worker(), TASK)
    assert called.call.failure is Failure.REJECTED
    assert "not configured" in str(called.call.error)
    live = LiveCall(make_worker())
    with pytest.raises(ConfigError):
        await collect(caller, live)


class Broken:
    """A plugin that breaks the rules."""

    can_stream = True

    async def complete(self, worker: Worker, task: Task) -> object:
        raise KeyError("oops")

    async def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        if worker.id:
            raise KeyError("oops")
        yield Piece()

    async def close(self) -> None: ...


async def test_any_exception_of_a_plugin_becomes_one_typed_error() -> None:
    clock = FixedClock()
    caller = Caller({"p": Broken()}, health=WorkerHealth(clock), clock=clock)  # type: ignore[dict-item]  # what is tested
    called = await caller.call(make_worker(), TASK)
    assert called.call.failure is Failure.BAD_ANSWER
    with pytest.raises(BadAnswer, match="KeyError"):
        await collect(caller, LiveCall(make_worker()))
    with pytest.raises(RuntimeError, match="has not ended"):
        LiveCall(make_worker()).result()


async def test_measuring_times_the_first_token_and_retries_once(serve: Serve) -> None:
    server = serve([Reply(status=500), Reply(text="after all"), Reply(text="at once")])
    clock = SystemClock()
    caller = Caller({"p": make_provider(server)}, health=WorkerHealth(clock), clock=clock)
    retried = await caller.measure(make_worker(), TASK)
    assert isinstance(retried, CallAnswered)
    assert (retried.answer.text, retried.call.first_token_s) == ("after all", None)
    timed = await caller.measure(make_worker(), TASK)
    assert isinstance(timed, CallAnswered)
    assert timed.answer.text == "at once"
    assert timed.call.first_token_s is not None
    assert timed.call.latency_s is not None
    assert 0 < timed.call.first_token_s <= timed.call.latency_s
    await caller.close()


async def test_an_answer_without_usage_is_priced_by_its_length(serve: Serve) -> None:
    body = b'{"choices": [{"message": {"content": "thirty-six letters stand in this line"}}]}'
    caller = make_caller(serve([Reply(raw=body)]))
    called = await caller.call(make_worker(), TASK)
    assert called.call.usage.output_tokens == 1 + int(37 / 3.6)
    assert called.call.cost_usd == called.call.usage.output_tokens
    await caller.close()


async def test_a_remote_encoder_asks_its_server(serve: Serve) -> None:
    import json

    from ripieno.encoders.remote import RemoteEncoder, RemoteOptions

    rows = {"data": [{"embedding": [3.0, 4.0]}, {"embedding": [0.0, 2.0]}]}
    server = serve([Reply(raw=json.dumps(rows).encode())])
    encoder = RemoteEncoder(RemoteOptions(base_url=server.base_url, model="m", dimensions=2, api_key=SecretStr("sk-1")))
    assert (await encoder.encode(["a", "b"])).round(6).tolist() == [[0.6000000238418579, 0.800000011920929], [0.0, 1.0]]
    assert server.seen[0].body == {"model": "m", "input": ["a", "b"]}
    assert server.seen[0].headers["authorization"] == "Bearer sk-1"
    other = RemoteEncoder(RemoteOptions(base_url=server.base_url, model="m", dimensions=3))
    with pytest.raises(ConfigError, match=r"vectors of shape \(2,\), not \(3,\)"):
        await other.encode(["a", "b"])
    await encoder.close()
    await other.close()
