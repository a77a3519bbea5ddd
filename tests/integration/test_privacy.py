"""The privacy boundary over real sockets: sensitive text reaches no worker, encoder or reader beyond it."""

import json
import logging
import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientSession
from benchmarks.planted import CARRIERS, FORMS
from tests.integration.conftest import ADMIN, Serve, open_app, open_gateway, write_pool

from ripieno.app import Installation
from ripieno.domain import (
    Cascade,
    Failure,
    Op,
    Plan,
    Privacy,
    Step,
    Task,
    WorkerId,
    Workflow,
)
from ripieno.domain.grader import Exact, GradedTask, Judge
from ripieno.domain.memory import NewItem, ReadStatus, Scope
from ripieno.encoders.remote import RemoteEncoder, RemoteOptions
from ripieno.errors import MissingExtra, WithheldTask
from ripieno.execute import Answered
from ripieno.measure import Campaign
from ripieno.memory.waiting import Waiting
from ripieno.orchestrator import make_arrival
from ripieno.providers import LiveCall, require_answer
from ripieno.testing import ReceivedRequest, Reply, ScriptedServer

FAR, NEAR = WorkerId("a"), WorkerId("b")
SECRET = "hunter22-is-it"  # planted
SENSITIVE = f"the password is {SECRET}"
LOCAL = '[route]\nsensitive = "local"'


def write_boundary(far: ScriptedServer, near: ScriptedServer, *, extra: str = "", route: str = LOCAL) -> Path:
    """Write a pool of a public worker `a`, the cheaper one, and a local worker `b`."""
    path = write_pool(far, near, extra=f"{route}\n{extra}")
    text = path.read_text().replace("usd_per_call", 'modalities = ["text", "image"]\nusd_per_call')
    path.write_text(text.replace('privacy = "local"', 'privacy = "public"', 1))
    return path


async def post(client: ClientSession, url: str, body: object) -> tuple[int, str, Mapping[str, str]]:
    async with client.post(url, json=body) as response:
        return response.status, await response.text(), dict(response.headers)


async def test_a_public_worker_receives_nothing_sensitive_in_any_carrier(serve: Serve) -> None:
    far, near = serve(), serve()
    write_boundary(far, near)
    async with open_gateway() as (_, address, client):
        for name, make in CARRIERS.items():
            before = len(near.seen)
            status, said, headers = await post(client, f"{address}/v1/chat/completions", make(SENSITIVE))
            assert (status, headers["x-ripieno-worker"]) == (200, NEAR), name
            assert len(near.seen) == before + 1
            status, said, _ = await post(client, f"{address}/v1/chat/completions", make(SENSITIVE) | {"model": FAR})
            assert status == 400, name
            assert json.loads(said)["error"]["code"] == "no_eligible_worker"
            assert "worker is public, and the task holds secret data" in said
            assert SECRET not in said
        assert far.seen == []
        await post(client, f"{address}/v1/chat/completions", CARRIERS["message"]("What is rice?") | {"model": FAR})
        assert len(far.seen) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("messages", {"max_tokens": 9, "messages": [{"role": "user", "content": SENSITIVE}]}),
        ("messages", {"max_tokens": 9, "system": SENSITIVE, "messages": [{"role": "user", "content": "go"}]}),
        (
            "messages",
            {
                "max_tokens": 9,
                "messages": [
                    {"role": "user", "content": "go"},
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"password": SECRET}}],
                    },
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "done"}]},
                ],
            },
        ),
        (
            "messages",
            {
                "max_tokens": 9,
                "tools": [{"name": "f", "description": SENSITIVE, "input_schema": {"type": "object"}}],
                "messages": [{"role": "user", "content": "go"}],
            },
        ),
        ("responses", {"input": SENSITIVE}),
        ("responses", {"input": "go", "instructions": SENSITIVE}),
        ("responses", {"input": "go", "stream": True, "instructions": SENSITIVE}),
    ],
)
async def test_every_dialect_is_read_whole(serve: Serve, path: str, body: dict[str, object]) -> None:
    far, near = serve(), serve()
    write_boundary(far, near)
    async with open_gateway() as (_, address, client):
        status, _, headers = await post(client, f"{address}/v1/{path}", body | {"model": "auto"})
        assert (status, headers["x-ripieno-worker"]) == (200, NEAR)
        status, said, _ = await post(client, f"{address}/v1/{path}", body | {"model": FAR})
        assert status == 400
        assert SECRET not in said
    assert far.seen == []


async def test_embeddings_obey_the_boundary_as_any_route(serve: Serve) -> None:
    vectors = json.dumps({"data": [{"embedding": [1.0, 0.0]}], "usage": {"prompt_tokens": 3}}).encode()
    far, near = serve([Reply(raw=vectors)]), serve([Reply(raw=vectors)])
    write_boundary(far, near)
    async with open_gateway() as (_, address, client):
        url = f"{address}/v1/embeddings"
        for form, text in FORMS.items():
            status, said, _ = await post(client, url, {"model": FAR, "input": ["plain", text]})
            assert status == 400, form
            assert json.loads(said)["error"]["code"] == "no_eligible_worker"
        for ids in ([1, 2, 3], [[1, 2], [3]]):
            assert (await post(client, url, {"model": FAR, "input": ids}))[0] == 400
            assert (await post(client, url, {"model": NEAR, "input": ids}))[0] == 200
        assert far.seen == []
        assert (await post(client, url, {"model": NEAR, "input": SENSITIVE}))[0] == 200
        assert (await post(client, url, {"model": "auto", "input": SENSITIVE}))[0] == 200
        assert (await post(client, url, {"model": FAR, "input": "plain"}))[0] == 200
        status, _, _ = await post(
            client,
            f"{address}/v1/messages/count_tokens",
            {"model": FAR, "messages": [{"role": "user", "content": SENSITIVE}]},
        )
        assert status == 200
        assert len(far.seen) == 1


async def test_an_encoder_beyond_the_boundary_is_sent_nothing_sensitive(serve: Serve) -> None:
    def embed(request: ReceivedRequest) -> Reply:
        given = request.body["input"]
        assert isinstance(given, list)
        return Reply(raw=json.dumps({"data": [{"embedding": [0.6, 0.8]} for _ in given]}).encode())

    encoder, near = serve(embed), serve()
    options = f'base_url = "{encoder.base_url}", model = "m", dimensions = 2, privacy = "public"'
    write_boundary(serve(), near, extra=f'[encoder]\nname = "remote"\noptions = {{{options}}}')
    async with open_gateway() as (app, address, client):
        chat = f"{address}/v1/chat/completions"
        remembered = {"ripieno": {"memory": {"project": "p"}}}
        assert (await post(client, chat, CARRIERS["message"](SENSITIVE) | remembered))[0] == 200
        private = CARRIERS["message"]("a private matter") | {
            "ripieno": {"privacy": "local", "memory": {"project": "p"}}
        }
        assert (await post(client, chat, private))[0] == 200
        sent = json.dumps([seen.body for seen in encoder.seen])
        assert "[secret removed]" in sent, "memory keeps what is left, and may have it encoded"
        assert SECRET not in sent
        assert (await post(client, f"{address}/v1/embeddings", {"model": "auto", "input": SENSITIVE}))[0] == 400
        wanted = {"name": "k", "limits": {"privacy": "local"}}
        async with client.post(f"{address}/admin/keys", json=wanted, headers=ADMIN) as made:
            key = (await made.json())["secret"]
        headers = {"authorization": f"Bearer {key}"}
        asked = {"model": "auto", "input": "plain"}
        async with client.post(f"{address}/v1/embeddings", json=asked, headers=headers) as response:
            assert response.status == 403
        await app.memory.remember([NewItem(text=SENSITIVE), NewItem(text="kept near", privacy=Privacy.LOCAL)])
        recalled = await app.memory.recall("what is kept near?", scope=Scope(), reach=Privacy.LOCAL)
        assert recalled.status is not ReadStatus.UNAVAILABLE
        assert "searched by words alone" in recalled.detail
        sent = json.dumps([seen.body for seen in encoder.seen])
        assert SECRET not in sent
        assert "near" not in sent
        assert "private matter" not in sent
        found = await app.analyzer.analyze_many([Task.from_text(SENSITIVE), Task.from_text("What is rice?")])
        assert [float(abs(each.embedding).sum()) for each in found] == [0.0, pytest.approx(1.4)]
        assert (await post(client, f"{address}/v1/embeddings", {"model": "auto", "input": "plain"}))[0] == 200
    assert near.seen
    assert "plain" in json.dumps(encoder.seen[-1].body)


def test_the_reach_of_an_encoder_follows_its_address_or_setting() -> None:
    def far(url: str, privacy: Privacy | None = None) -> Privacy:
        return RemoteEncoder(RemoteOptions(base_url=url, model="m", dimensions=2, privacy=privacy)).privacy

    assert far("http://127.0.0.1:1/v1") == far("http://localhost:1/v1") == far("http://[::1]:1/v1") == Privacy.LOCAL
    assert far("https://embed.example/v1") == far("http://10.0.0.5/v1") == Privacy.PUBLIC
    assert far("https://embed.example/v1", Privacy.PRIVATE) == Privacy.PRIVATE


async def carry(app: Installation, workflow: Workflow, text: str) -> Answered:
    return await app.runtime.orchestrator.run_detailed(
        Task.from_text(text), arrival=replace(make_arrival(app.clock), workflow=workflow)
    )


async def test_results_of_steps_never_cross_the_boundary(serve: Serve) -> None:
    far, near = serve([Reply(text="far")]), serve([Reply(text=f"It says: {SENSITIVE}."), Reply(text="near again")])
    write_boundary(far, near)
    steps = (Step(worker=NEAR, op=Op.SOLVE), Step(worker=FAR, op=Op.SOLVE, access=(0,)))
    async with open_app() as app:
        answered = await carry(app, Plan(steps=steps, fallbacks=(NEAR,)), "Look it up")
        assert far.seen == []
        assert [(call.worker, call.failure) for call in answered.run.calls] == [
            (NEAR, None),
            (FAR, Failure.REJECTED),
            (NEAR, None),
        ]
        assert SECRET not in str(answered.run.calls)
        assert app.health.unhealthy() == {}
        far.script = [Reply(text="far")]
        judged = Cascade(stages=(NEAR, NEAR), check=Judge(rubric="is it right?", worker=FAR))
        near.script = [Reply(text=f"It says: {SENSITIVE}.")]
        await carry(app, judged, "Look it up once more")
    assert far.seen == []


async def test_a_profile_sends_no_sensitive_task_to_a_public_worker(serve: Serve) -> None:
    far, near = serve(), serve()
    write_boundary(far, near)
    tasks = tuple(
        GradedTask(id=name, task=Task.from_text(text), grader=Exact(answers=("ok",)), family="f")
        for name, text in (("1", SENSITIVE), ("2", "What is rice?"))
    )
    async with open_app() as app:
        campaign = Campaign(name="c", tasks=tasks, workers=(FAR, NEAR))
        progress = await app.runtime.make_profiler().run(campaign, app.runtime.pool)
        assert progress.failures == {"rejected": 1}
        assert len(list(app.ledger.outcomes.measured(dataset="c"))) <= 3
        assert len(app.ledger.campaigns.run_ids("c")) == 3
        with pytest.raises(WithheldTask) as caught:
            require_answer(await app.runtime.caller.call(app.runtime.pool[FAR], tasks[0].task))
        assert SECRET not in f"{caught.value} {caught.value.hint}"
        with pytest.raises(WithheldTask):
            [piece async for piece in app.runtime.caller.stream(LiveCall(app.runtime.pool[FAR]), tasks[0].task)]
    assert SECRET not in json.dumps([seen.body for seen in far.seen])


async def test_a_new_boundary_applies_to_a_running_gateway_at_once(serve: Serve) -> None:
    far, near = serve(), serve()
    path = write_boundary(far, near, route="")
    async with open_gateway() as (app, address, client):
        chat, body = f"{address}/v1/chat/completions", CARRIERS["message"](SENSITIVE) | {"model": FAR}
        assert (await post(client, chat, body))[0] == 200
        path.write_text(f"{path.read_text()}\n{LOCAL}\n")
        assert (await post(client, chat, body))[0] == 400
        assert fault_of(app) == ""
        path.write_text(path.read_text().replace(LOCAL, f'{LOCAL}\nsensitive_patterns = {{mine = "(?<=a)b"}}'))
        assert (await post(client, chat, body))[0] == 400
        assert "'mine'" in fault_of(app)
    assert len(far.seen) == 1


async def test_an_app_that_cannot_scan_does_not_open(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    route = f'{LOCAL}\nphone_region = "NZ"'
    write_boundary(serve(), serve(), route=route)
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    with pytest.raises(MissingExtra) as caught:
        Installation()
    assert (caught.value.extra, caught.value.library) == ("privacy", "phonenumbers")


async def test_logs_errors_and_memory_contain_no_findings(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    write_boundary(serve(), serve())
    async with open_gateway() as (app, address, client):
        body = CARRIERS["message"](SENSITIVE) | {"ripieno": {"memory": {"project": "p"}}}
        assert (await post(client, f"{address}/v1/chat/completions", body))[0] == 200
        status, said, _ = await post(client, f"{address}/v1/memory", {"text": SENSITIVE, "project": "q"})
        assert status == 201
        assert json.loads(said)["secrets_removed"] == 1
        status, said, _ = await post(client, f"{address}/v1/memory", {"text": "tea at five", "project": "q"})
        assert "secrets_removed" not in json.loads(said)
        receipt = (await app.memory.remember([NewItem(text=f"{SENSITIVE} and {SENSITIVE}.")]))[0]
        assert receipt.removed == 2
        assert (await app.memory.get([receipt.id]))[0].text.count("[secret removed]") == 2
    assert SECRET not in caplog.text
    for path in Path().rglob("memory.db*"):
        assert SECRET.encode() not in path.read_bytes()


async def test_files_of_an_installation_are_private_to_their_owner(serve: Serve, tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        path = write_boundary(serve(), serve(), route='[memory]\nurl = "sqlite:///kept/memory.db"')
        path.write_text(path.read_text().replace("sqlite:///ledger.db", "sqlite:///kept/ledger.db"))
        async with open_gateway() as (app, address, client):
            body = CARRIERS["message"]("What is rice?") | {"ripieno": {"memory": {"project": "p"}}}
            assert (await post(client, f"{address}/v1/chat/completions", body))[0] == 200
            waiting = Waiting(app.runtime.settings.home / "memory-waiting.jsonl", app.clock)
            waiting.put([NewItem(text="tea at five")])
            found = {str(each): mode_of(each) for each in tmp_path.rglob("*") if _is_kept(each, tmp_path)}
            databases = {"ledger.db", "ledger.db-wal", "ledger.db-shm", "memory.db"}
            assert {Path(name).name for name in found} >= databases | {"memory-waiting.jsonl", "memory-waiting.lock"}
            assert set(found.values()) == {0o600}
            assert mode_of(tmp_path / "kept") == mode_of(tmp_path / ".ripieno") == 0o700
        (tmp_path / "kept" / "ledger.db").chmod(0o644)
        (tmp_path / "kept").chmod(0o755)
        async with open_app():
            assert mode_of(tmp_path / "kept" / "ledger.db") == 0o600
            assert mode_of(tmp_path / "kept") == 0o755, "a folder that was there is somebody's choice"
    finally:
        os.umask(umask)


def _is_kept(path: Path, root: Path) -> bool:
    return path.is_file() and bool(re.match(r"(kept|\.ripieno)/", str(path.relative_to(root))))


def fault_of(app: Installation) -> str:
    return app.reload_fault or ""


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
