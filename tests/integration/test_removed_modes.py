"""What `debate` and `mixture` left behind: their decisions stay readable, and naming them says what to use."""

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.integration.conftest import Serve, open_app, open_gateway, write_pool
from tests.unit.test_codec import ENTRIES

from ripieno.cli.main import cli
from ripieno.config import load_settings
from ripieno.dashboard.graph import lay_out
from ripieno.errors import ConfigError, NotReplayable
from ripieno.evaluate.questions import answer
from ripieno.learn.logs import observe
from ripieno.ledger import Ledger, export_data


def write_ledger(url: str) -> None:
    """Make a ledger of the entries as an earlier version wrote them."""
    Ledger(url).close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        for row in ENTRIES:
            body = json.loads(row["body"])
            run = {"executed": body.get("id"), "judged": body.get("run")}.get(row["kind"])
            decision = body["id"] if row["kind"] == "decided" else body.get("decision")
            if row["task_body"] is not None:
                connection.execute("INSERT INTO tasks (digest, body) VALUES (?, ?)", (row["task"], row["task_body"]))
            connection.execute(
                "INSERT INTO entries (id, kind, at, run, decision, task, body, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (row["id"], row["kind"], row["at"], run, decision, row["task"], row["body"], row["digest"]),
            )
    connection.close()


async def test_a_ledger_with_decisions_of_removed_modes_is_read_verified_and_exported(serve: Serve) -> None:
    write_pool(serve(), serve(), serve())
    write_ledger(load_settings().settings.ledger.url)
    async with open_app() as app:
        assert app.ledger.verify().entries == len(ENTRIES)
        assert len(export_data(app.ledger, "traffic").quality) == 1, "only the run of a single worker is its outcome"
        assert answer(observe(app.ledger)).decisions >= 2
        for decision, mode in (("d15", "debate"), ("d16", "mixture")):
            decided = app.ledger.decisions.find(decision)
            assert lay_out(decided.decision.workflow, app.ledger.runs.of_decision(decision)[-1]).boxes
            with pytest.raises(NotReplayable) as caught:
                await app.replays.replay(decided, app.runtime.pool)
            assert (caught.value.decision, f"{mode!r} was removed" in caught.value.missing) == (decision, True)


def test_the_commands_explain_them_and_say_why_there_is_no_replay(serve: Serve) -> None:
    write_pool(serve(), serve(), serve())
    write_ledger(load_settings().settings.ledger.url)
    told = CliRunner().invoke(cli, ["explain", "d15", "--json"])
    assert json.loads(told.output)["task"].startswith("What is 15")
    refused = CliRunner().invoke(cli, ["explain", "d15", "--replay"])
    assert isinstance(refused.exception, NotReplayable)
    assert f"{len(ENTRIES)} entries" in CliRunner().invoke(cli, ["ledger", "verify"]).output


async def test_a_request_that_names_one_is_told_what_to_use(serve: Serve) -> None:
    write_pool(serve(), serve())
    async with open_gateway() as (_, address, client):
        for name, instead in (("debate", "vote"), ("mixture", "synthesize")):
            body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "ripieno": {"workflow": name}}
            async with client.post(f"{address}/v1/chat/completions", json=body) as reply:
                assert reply.status == 400
                said = (await reply.json())["error"]["message"]
            assert f"{name!r} was removed: use {instead!r} or 'plan'" in said


def test_settings_that_name_one_are_refused_with_their_line() -> None:
    Path("ripieno.toml").write_text("[route]\npreset = 'best'\nmodes = ['solo', 'debate']\n")
    with pytest.raises(ConfigError, match=r"line 3: route.modes: .*'debate' was removed: use 'vote' or 'plan'"):
        load_settings()
    Path("ripieno.toml").write_text("[route]\nmodes = [['debate'], 3]\n")
    with pytest.raises(ConfigError, match=r"line 2: route\.modes"):
        load_settings()
