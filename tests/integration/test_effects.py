"""Workers with effects over a real gateway: only a request that names one reaches it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from click.testing import CliRunner
from openai import APIStatusError, AsyncOpenAI
from tests.integration.conftest import Serve, open_app, write_pool

from ripieno.app import Installation
from ripieno.app.probing import probe
from ripieno.cli.main import cli
from ripieno.config import load_settings
from ripieno.domain import (
    Cascade,
    Ensemble,
    KeyLimits,
    Merge,
    Message,
    Mode,
    Objective,
    Op,
    Plan,
    Solo,
    Step,
    Task,
    Verified,
    WorkerId,
    Workflow,
    list_workers,
)
from ripieno.domain.grader import Exact, GradedTask, Judge, Numeric
from ripieno.errors import (
    ConfigError,
    InvalidPlan,
    InvalidTask,
    NoEligibleWorker,
    ProviderError,
    RipienoError,
)
from ripieno.gateway import bind_socket, running
from ripieno.measure import Campaign
from ripieno.memory.extract import extract
from ripieno.orchestrator import make_arrival
from ripieno.tasks import write_tasks
from ripieno.testing import Reply, ScriptedServer
from ripieno.testing.scripted import make_completion

A, B, C, PAY = (WorkerId(name) for name in "abcd")
TASK = Task.from_text("What is six times seven?")
HELLO = [{"role": "user", "content": "Say hello"}]
WRONG = Numeric(answer=42)


def write_paying(*servers: ScriptedServer, card: str = "has_effects = true", extra: str = "") -> Path:
    """Write a pool whose last worker has effects and is the cheapest."""
    path = write_pool(*servers, extra=extra)
    last = "abcdef"[len(servers) - 1]
    dear = f'[workers.{last}]\nprovider = "{last}"\nusd_per_call = {len(servers)}e-3'
    text = path.read_text()
    assert dear in text
    path.write_text(text.replace(dear, f'[workers.{last}]\nprovider = "{last}"\nusd_per_call = 1e-9\n{card}'))
    return path


@asynccontextmanager
async def open_gateway() -> AsyncIterator[tuple[Installation, str, ClientSession]]:
    async with open_app() as app, serving(app) as (address, client):
        yield app, address, client


@asynccontextmanager
async def serving(app: Installation) -> AsyncIterator[tuple[str, ClientSession]]:
    listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
    async with running(app, listener) as address, ClientSession() as client:
        yield address, client


async def ask(address: str, client: ClientSession, secret: str = "", **fields: object) -> tuple[int, dict[str, Any]]:
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    body = {"model": "auto", "messages": HELLO} | fields
    async with client.post(f"{address}/v1/chat/completions", json=body, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("card", ["has_effects = true", "needs_approval = true"])
async def test_auto_never_calls_a_worker_with_effects_and_says_why(serve: Serve, card: str) -> None:
    plain, pay = serve([Reply(text="hello")]), serve([Reply(text="paid")])
    write_paying(plain, pay, card=card)
    async with open_gateway() as (_, address, client):
        for model in ("auto", "auto:cheap", "auto:fast", "auto:best", "auto:private", "auto:qos"):
            status, said = await ask(address, client, model=model)
            assert (status, said["model"]) == (200, "a")
        plain.script = [Reply(status=500)]
        assert (await ask(address, client))[0] == 502
        assert not pay.seen, "it stands in for nobody, either"
    write_paying(pay, card=card)
    async with open_gateway() as (_, address, client):
        status, said = await ask(address, client)
        assert (status, said["error"]["code"]) == (400, "no_eligible_worker")
        assert "not_named" in said["error"]["message"]
        assert not pay.seen


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.SOLO])
@pytest.mark.parametrize("status", [200, 500])
async def test_no_workflow_falls_back_to_a_worker_with_effects(serve: Serve, mode: Mode, status: int) -> None:
    servers = [serve([Reply(text=text, status=status)]) for text in ("41", "40", "39")]
    pay = serve([Reply(text="42")])
    write_paying(*servers, pay, extra=f"[route]\nmodes = {[each.value for each in Mode]}")
    async with open_gateway() as (_, address, client):
        check = {"kind": "numeric", "answer": 42}
        for fields in ({}, {"check": check}, {"check": {"kind": "agreement", "peer": "d"}}):
            await ask(address, client, ripieno={"workflow": mode.value} | fields)
        assert not pay.seen


async def test_only_its_name_reaches_a_worker_with_effects(serve: Serve) -> None:
    plain, pay = serve([Reply(text="hello")]), serve([Reply(text="paid")])
    write_paying(plain, pay, extra='[gateway.aliases]\n"gpt-4o" = "b"')
    async with open_app() as app:
        _, only = app.ledger.keys.create("only", KeyLimits(workers=("b",)))
        _, both = app.ledger.keys.create("both", KeyLimits(workers=("a", "b")))
        await use_names(app, only, both, pay)


async def use_names(app: Installation, only: str, both: str, pay: ScriptedServer) -> None:
    async with serving(app) as (address, client):
        for secret, model in ((only, "auto"), ("", "gpt-4o"), (only, "gpt-4o"), (both, "gpt-4o")):
            status, said = await ask(address, client, secret, model=model)
            assert (status, said["error"]["code"]) == (400, "no_eligible_worker"), (model, said)
        assert (await ask(address, client, both))[1]["model"] == "a"
        assert not pay.seen
        for secret, fields in (
            ("", {"model": "b"}),
            (only, {"model": "b"}),
            ("", {"ripieno": {"workers": ["b"]}}),
            (both, {"ripieno": {"workers": ["b"]}}),
            ("", {"model": "gpt-4o", "ripieno": {"workers": ["b"]}}),
        ):
            status, said = await ask(address, client, secret, **fields)
            assert (status, said["choices"][0]["message"]["content"]) == (200, "paid"), fields
        assert len(pay.seen) == 5
        status, said = await ask(address, client, both, model="gpt-4o", ripieno={"workers": ["a"]})
        assert status == 400, "the alias still allows its own worker and no other"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_call_with_effects_that_fails_is_not_tried_again_by_a_client(serve: Serve, is_stream: bool) -> None:
    """The effect is uncertain, and the official client would retry a 5xx."""
    pay = serve([Reply(status=500)])
    write_paying(serve(), pay)
    async with open_gateway() as (_, address, _client), AsyncOpenAI(base_url=f"{address}/v1", api_key="x") as client:
        messages: Any = HELLO
        with pytest.raises(APIStatusError) as caught:
            await client.chat.completions.create(model="b", messages=messages, stream=is_stream)
        assert len(pay.seen) == 1
        assert (caught.value.status_code, caught.value.code) == (409, "in_doubt")
        assert caught.value.response.headers["x-should-retry"] == "false"
        pay.script = [Reply(status=422)]
        with pytest.raises(APIStatusError) as caught:
            await client.chat.completions.create(model="b", messages=messages, stream=is_stream)
        assert caught.value.status_code == 422, "refused for what was asked: nothing was done"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_call_with_effects_that_never_left_is_a_failure_and_not_in_doubt(serve: Serve, is_stream: bool) -> None:
    pay = serve([Reply(text="paid")])
    path = write_paying(serve(), pay)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # never listens: each connection is refused
        text = path.read_text()
        path.write_text(text.replace(pay.base_url, f"http://127.0.0.1:{closed.getsockname()[1]}/v1"))
        async with open_gateway() as (app, address, client):
            status, said = await ask(address, client, model="b", stream=is_stream)
            assert (status, said["error"]["code"]) == (502, "provider_unreachable")
            decision = app.ledger.decisions.last()
            assert decision is not None
            (run,) = app.ledger.runs.of_decision(decision)
            assert [call.failure for call in run.calls] == ["unreachable"]
            assert app.runs.unfinished() == []
            path.write_text(text)
            status, said = await ask(address, client, model="b")
            assert (status, said["choices"][0]["message"]["content"]) == (200, "paid"), "it may be asked again"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_call_with_effects_is_not_sent_again_over_a_new_connection(serve: Serve, is_stream: bool) -> None:
    """A kept connection that breaks without a reply may have sent the request: the first call counts."""
    pay, seen = serve(), []

    async def read_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the first request of all, and end the connection of each further one without a reply."""
        with closing(writer), suppress(asyncio.IncompleteReadError):
            while (head := await reader.readuntil(b"\r\n\r\n")).startswith(b"POST"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                seen.append(await reader.readexactly(length))
                if len(seen) > 1:
                    return
                done = json.dumps(make_completion(Reply(text="paid"), "b")).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(done), done))

    server = await asyncio.start_server(read_and_end, "127.0.0.1", 0)
    path = write_paying(serve(), pay)
    address_of_pay = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    path.write_text(path.read_text().replace(pay.base_url, address_of_pay))
    async with server, open_gateway() as (_, address, client):
        assert (await ask(address, client, model="b"))[0] == 200
        status, said = await ask(address, client, model="b", stream=is_stream)
        assert (status, said["error"]["code"], len(seen)) == (409, "in_doubt", 2)


async def carry(app: Installation, workflow: Workflow, task: Task = TASK) -> str:
    answered = await app.runtime.orchestrator.run_detailed(
        task, arrival=replace(make_arrival(app.clock), workflow=workflow)
    )
    assert answered.run.answer is not None
    return answered.run.answer.text


async def test_a_stated_workflow_may_name_it_as_a_step_but_not_as_a_fallback(serve: Serve) -> None:
    plain, pay = serve([Reply(text="41")]), serve([Reply(text="paid")])
    write_paying(plain, serve([Reply(text="40")]), serve([Reply(status=500)]), pay)
    async with open_app() as app:
        assert await carry(app, Plan(steps=(Step(worker=PAY, op=Op.SOLVE),))) == "paid"
        assert await carry(app, Solo(worker=PAY)) == "paid"
        for workflow in (
            Solo(worker=A, fallbacks=(PAY,)),
            Plan(steps=(Step(worker=C, op=Op.SOLVE),), fallbacks=(PAY,)),
            Verified(worker=A, check=Judge(rubric="r", worker=PAY)),
            Cascade(stages=(A, C), check=WRONG, fallbacks=(PAY,)),
        ):
            with pytest.raises(InvalidPlan, match=r"'d' may not take the task: not_named"):
                await carry(app, workflow)
        assert len(pay.seen) == 2


async def test_a_worker_with_effects_is_called_once_and_is_no_fallback(serve: Serve) -> None:
    """Each sample, repair and round would be another call with effects."""
    broken, pay = serve([Reply(status=500)]), serve([Reply(text="41")])
    write_paying(broken, serve([Reply(status=500)]), serve([Reply(status=500)]), pay)
    named = Objective(workers=("a", "b", "c", "d"))
    async with open_app() as app:
        for workflow in (
            Verified(worker=A, check=WRONG, fallbacks=(PAY, B)),
            Ensemble(members=(A, B), merge=Merge.VOTE, fallbacks=(PAY,)),
            Ensemble(members=(A, B), merge=Merge.BEST, check=WRONG, fallbacks=(PAY,)),
            Solo(worker=A, fallbacks=(PAY,)),
        ):
            with pytest.raises(ProviderError):
                await carry(app, workflow, replace(TASK, objective=named))
            for worker in (A, B, C):
                app.health.note_success(worker)
        assert not pay.seen
        assert await carry(app, Verified(worker=PAY, check=WRONG, repairs=2)) == "41"
        assert len(pay.seen) == 1, "it does not mend its answer: that would be a second call"
        before = len(broken.seen)
        assert await carry(app, Verified(worker=PAY, check=WRONG, fallbacks=(A,))) == "41"
        assert (len(pay.seen), len(broken.seen)) == (2, before), "no worker stands in for it, either"
        pay.script = [Reply(status=400)]
        with pytest.raises(ProviderError, match="every member"):
            await carry(app, Ensemble(members=(PAY, PAY), merge=Merge.BEST, check=WRONG))
        for workers in (("a", "d"), ("d",)):
            for mode in (Mode.CASCADE, Mode.AGREEMENT, Mode.SYNTHESIZE):
                few = replace(TASK, objective=Objective(workers=workers, mode=mode))
                with pytest.raises(InvalidTask, match=r"two eligible|three eligible|no model"):
                    await app.runtime.orchestrator.decide(few)
        for mode in (Mode.CASCADE, Mode.AGREEMENT, Mode.VOTE, Mode.BEST_OF, Mode.SYNTHESIZE):
            many = replace(TASK, objective=replace(named, mode=mode))
            arrival = make_arrival(app.clock, check=WRONG)
            decided = await app.runtime.orchestrator.decide(many, arrival=arrival)
            assert PAY in decided.mask.eligible
            assert PAY not in list_workers(decided.workflow), mode


async def test_memory_compaction_and_judges_never_use_it(serve: Serve) -> None:
    plain, pay = serve([Reply(text="hello")]), serve([Reply(text="[]")])
    path = write_paying(plain, pay, extra='[memory]\ncompact_words = 300\ncompact_worker = "auto"')
    chat = "Let me look at that now, it should not take very long at all. " * 12
    talk = [Message(role=("user", "assistant")[nth % 2], content=f"{nth} {chat}") for nth in range(7)]
    async with open_app() as app:
        await app.runtime.orchestrator.run_detailed(Task(messages=tuple(talk)))
        await app.runtime.orchestrator.run_detailed(TASK, arrival=replace(make_arrival(app.clock), memory=app_scope()))
        with pytest.raises(NoEligibleWorker, match="not_named"):
            await extract(app.memory, lambda task, scope: app.runtime.orchestrator.generate_text(task, "b"), most=10)
        judged = GradedTask(id="j", task=TASK, grader=Judge(rubric="r", worker=B), family="f")
        with pytest.raises(RipienoError, match=r"judges nothing|has no judge|judge"):
            await app.runtime.make_profiler().run(Campaign(name="c", tasks=(judged,), workers=("a",)), app.runtime.pool)
        assert not pay.seen
    path.write_text(path.read_text() + "\n[profile]\njudge = 'b'\n")
    with pytest.raises(ConfigError, match=r"profile.judge names 'b', whose calls have effects"):
        Installation(load_settings())


def app_scope() -> Any:
    from ripieno.domain.memory import Scope

    return Scope(project="web")


def make_tasks(count: int) -> tuple[GradedTask, ...]:
    return tuple(
        GradedTask(id=f"t{i}", task=Task.from_text(f"say yes {i}"), grader=Exact(answers=("yes",)), family="f")
        for i in range(count)
    )


def run_command(*arguments: str) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(cli, list(arguments))
    return done.exit_code, done.output, done.exception


@pytest.mark.parametrize("card", ["has_effects = true", "needs_approval = true"])
async def test_measuring_it_needs_its_name_and_a_flag(serve: Serve, card: str) -> None:
    plain, pay = serve([Reply(text="yes")]), serve([Reply(status=500)])
    write_paying(plain, pay, card=card)
    write_tasks(make_tasks(3), Path("tasks.jsonl"))
    profile: Sequence[str] = ("profile", "tasks.jsonl")

    def work() -> None:
        code, said, error = run_command(*profile)
        assert code == 0, (said, error)
        assert "b is left out: its calls" in said
        assert len(plain.seen) == 3
        _, said, error = run_command(*profile, "--worker", "b")
        assert isinstance(error, InvalidTask)
        assert "'b' is not measured" in error.message
        assert "--worker b --with-effects" in str(error.hint)
        code, said, _ = run_command(*profile, "--with-effects")
        assert code == 2
        assert "--with-effects needs --worker" in said
        assert not pay.seen
        code, said, error = run_command(*profile, "--worker", "b", "--with-effects")
        assert code == 0, (said, error)
        assert len(pay.seen) == 3, "once a task: what failed may have changed something, and is not tried again"

    await asyncio.to_thread(work)
    async with open_app() as app:
        with pytest.raises(InvalidTask, match="'b' is not measured"):
            await probe(app, "b", budget=5)
        with pytest.raises(InvalidTask, match="'b' is not measured"):
            await app.runtime.make_profiler().run(
                Campaign(name="c", tasks=make_tasks(2), workers=("a", "b")), app.runtime.pool
            )
        assert len(pay.seen) == 3


async def test_embeddings_never_reach_a_worker_with_effects(serve: Serve) -> None:
    pay = serve()
    write_paying(serve(), pay)
    async with open_gateway() as (_, address, client):
        async with client.post(f"{address}/v1/embeddings", json={"model": "b", "input": "x"}) as refused:
            assert refused.status == 403
        assert not pay.seen


async def test_a_decision_for_a_worker_with_effects_replays_unchanged(serve: Serve) -> None:
    """A ledger contains older decisions in which such a worker was eligible without its name."""
    write_pool(serve(), serve())
    async with open_app() as app:
        answered = await app.runtime.orchestrator.run_detailed(TASK)
        decided = app.ledger.decisions.find(answered.decision.id)
        assert set(decided.decision.mask.eligible) == {"a", "b"}
    path = Path("ripieno.toml")
    path.write_text(path.read_text().replace('privacy = "local"', 'privacy = "local"\nhas_effects = true', 1))
    async with open_app() as app:
        assert (await app.replays.replay(decided, app.runtime.pool)).differs == ()
