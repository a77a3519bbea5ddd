"""Approvals over HTTP: a serving gateway continues an approved run."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from click.testing import CliRunner, Result
from tests.integration.conftest import ADMIN, ADMIN_KEY, Serve, open_app, write_pool

from ripieno.app import Installation
from ripieno.cli.main import cli
from ripieno.domain import KeyLimits, Objective, Task
from ripieno.errors import ApprovalPending, RipienoError
from ripieno.gateway import bind_socket, running
from ripieno.testing import Reply

BODY: dict[str, Any] = {"model": "a", "messages": [{"role": "user", "content": "Pay Ada 3 euros"}]}


def write_careful(serve: Serve, *, extra: str = "") -> None:
    path = write_pool(serve([Reply(text="paid")]), extra=extra)
    path.write_text(path.read_text().replace('privacy = "local"', 'privacy = "local"\nneeds_approval = true', 1))


@asynccontextmanager
async def serving(app: Installation) -> AsyncIterator[tuple[ClientSession, str]]:
    async with (
        running(
            app, bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0})), admin_key=ADMIN_KEY
        ) as address,
        ClientSession() as client,
    ):
        yield client, address


async def wait_for_end(client: ClientSession, address: str, run: str) -> dict[str, Any]:
    while True:
        async with client.get(f"{address}/v1/runs/{run}") as response:
            found: dict[str, Any] = await response.json()
        if found["status"] in ("done", "failed"):
            return found


async def test_a_request_waits_for_approval_while_the_gateway_serves(serve: Serve) -> None:
    write_careful(serve)
    async with open_app() as app, serving(app) as (client, address):
        async with client.post(f"{address}/v1/chat/completions", json=BODY) as refused:
            assert refused.status == 409
            assert (await refused.json())["error"]["code"] == "approval_pending"
        async with client.get(f"{address}/admin/approvals", headers=ADMIN) as listed:
            (waits,) = (await listed.json())["approvals"]
        assert (waits["worker"], waits["arguments"]) == ("a", "Pay Ada 3 euros")
        async with client.get(f"{address}/v1/runs/{waits['run']}") as found:
            assert (await found.json())["status"] == "waiting"
        where = f"{address}/admin/approvals/{waits['run']}"
        async with client.post(where, json={"approve": "yes"}, headers=ADMIN) as refused:
            assert refused.status == 400
        async with client.post(where, json={"approve": True, "by": "ada"}, headers=ADMIN) as answered:
            assert await answered.json() == {"run": waits["run"], "approved": True, "by": "ada", "reason": ""}
        ended = await wait_for_end(client, address, waits["run"])
        assert (ended["answer"], ended["status"]) == ("paid", "done")
        async with client.post(where, json={"approve": False, "by": "bob"}, headers=ADMIN) as late:
            assert late.status == 404, "it waits for nobody any more"


async def test_a_denied_call_is_not_made(serve: Serve) -> None:
    write_careful(serve)
    async with open_app() as app, serving(app) as (client, address):
        async with client.post(f"{address}/v1/chat/completions", json=BODY | {"stream": True}) as refused:
            assert refused.status == 409
        async with client.get(f"{address}/admin/approvals", headers=ADMIN) as listed:
            run = (await listed.json())["approvals"][0]["run"]
        where = f"{address}/admin/approvals/{run}"
        async with client.post(where, json={"approve": False, "by": "bob", "reason": "no"}, headers=ADMIN) as answered:
            assert answered.status == 200
        assert (await wait_for_end(client, address, run))["status"] == "failed"


async def test_a_key_sees_its_own_runs_and_approves_none(serve: Serve) -> None:
    write_careful(serve, extra="[gateway]\nneeds_key = true")
    async with open_app() as app:
        _, mine = app.ledger.keys.create("mine", KeyLimits())
        _, other = app.ledger.keys.create("other", KeyLimits())
        async with serving(app) as (client, address):
            headers = {"authorization": f"Bearer {mine}"}
            async with client.post(f"{address}/v1/chat/completions", json=BODY, headers=headers) as refused:
                assert refused.status == 409
            run = app.runs.unfinished()[0].claim.run
            async with client.get(f"{address}/v1/runs/{run}", headers=headers) as found:
                assert (await found.json())["status"] == "waiting"
            async with client.get(f"{address}/v1/runs/{run}", headers={"authorization": f"Bearer {other}"}) as hidden:
                assert hidden.status == 404
            async with client.get(f"{address}/admin/approvals", headers=headers) as refused:
                assert refused.status == 403


def run_command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


async def propose() -> str:
    async with open_app() as app:
        try:
            await app.runtime.orchestrator.run_detailed(
                Task.from_text("Pay Ada 3 euros", objective=Objective(workers=("a",)))
            )
        except ApprovalPending as pending:
            return pending.run
    raise AssertionError("it did not wait")


async def test_the_commands_show_answer_and_resume(serve: Serve, tmp_path: Path) -> None:
    import asyncio

    write_careful(serve)
    assert "no unfinished run" in (await asyncio.to_thread(run_command, "runs", "list")).output
    run = await propose()

    def work() -> None:
        listed = json.loads(run_command("runs", "list", "--json").output)["runs"]
        assert (listed[0]["run"], listed[0]["state"]) == (run, "waits for a human")
        assert listed[0]["waits"]["step"] == "1"
        told = run_command("runs", "list").output
        assert run[:12] in told
        assert "'Pay Ada 3 euros'" in told
        shown = run_command("runs", "show", run)
        assert "waits for a human" in shown.output
        assert json.loads(run_command("runs", "show", run, "--json").output)["waits"]["worker"] == "a"
        assert "approved by ada" in run_command("runs", "approve", run, "--by", "ada").output
        resumed = json.loads(run_command("runs", "resume", run, "--json").output)
        assert (resumed["answer"], resumed["steps"][0]["worker"]) == ("paid", "a")
        assert "paid" in run_command("runs", "show", run).output
        assert json.loads(run_command("runs", "show", run, "--json").output)["state"] == "ended"

    await asyncio.to_thread(work)
    again = await propose()

    def turn_down() -> None:
        assert "denied by bob" in run_command("runs", "deny", again[:10], "--by", "bob").output
        refused = run_command("runs", "resume", again)
        assert isinstance(refused.exception, RipienoError)
        gone = run_command("runs", "approve", again)
        assert isinstance(gone.exception, RipienoError)

    await asyncio.to_thread(turn_down)
