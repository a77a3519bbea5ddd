"""`ripieno runs`."""

from __future__ import annotations

import asyncio
import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.ask import describe_steps, list_steps
from ripieno.cli.options import prints_json
from ripieno.cli.output import print_json, print_table, say
from ripieno.cli.running import run_app
from ripieno.domain.report import format_money
from ripieno.errors import GateRefused

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.domain import Decided, Resolved, Run
    from ripieno.execute import Answered, Unfinished


_PROPOSAL = ("run", "step", "worker", "question", "arguments", "digest", "expires_at")


@click.group(epilog="\b\nExample:\n  ripieno runs list")
def runs() -> None:
    """List, resume, approve and deny unfinished runs of several steps."""


@runs.command("list", epilog="\b\nExample:\n  ripieno runs list --json")
@prints_json
def list_runs(config: Path | None, *, as_json: bool) -> None:
    """List unfinished runs with their owner process and the question to a human."""
    found = run_app(config, lambda app: asyncio.to_thread(app.runs.unfinished))
    if as_json:
        print_json({"runs": [describe_unfinished(each) for each in found]})
        return
    rows = [[each.claim.run[:12], name_state(each), each.claim.owner, _format_time(each.at)] for each in found]
    print_table(("run", "state", "owner", "last heard of"), rows)
    for each in found:
        if each.proposal is not None:
            click.echo(f"{each.claim.run[:12]}  step {each.proposal.step}: {each.proposal.question}")
            click.echo(f"  {each.proposal.arguments[:400]!r}")
            click.echo(f"  expires at {_format_time(each.proposal.expires_at)}, as a denial")
    if not found:
        say("there is no unfinished run")


@runs.command(epilog="\b\nExample:\n  ripieno runs resume 3f2a91")
@click.argument("run")
@prints_json
def resume(config: Path | None, *, run: str, as_json: bool) -> None:
    """Resume RUN here, and print its answer. Finished steps are not repeated."""

    async def work(app: Installation) -> Answered | None:
        return await app.runs.resume(await asyncio.to_thread(app.runs.find, run))

    answered = run_app(config, work)
    if answered is None:
        raise GateRefused(f"another process has just resumed run {run}")
    ended, text = answered.run, answered.answer.text
    if as_json:
        print_json({"run": ended.id, "answer": text, "cost_usd": ended.cost_usd, "steps": list_steps(ended)})
        return
    click.echo(text)
    say(f"{ended.worker}, {format_money(ended.cost_usd)}; ripieno explain {ended.id[:12]}")


@runs.command(epilog="\b\nExample:\n  ripieno runs show 3f2a91")
@click.argument("run")
@prints_json
def show(config: Path | None, *, run: str, as_json: bool) -> None:
    """Show the steps of RUN so far, or its end."""

    async def work(app: Installation) -> tuple[Decided, list[Run], Unfinished | None]:
        decided = app.ledger.decisions.find(run)
        return decided, *app.runs.look_up(decided.decision.id)

    decided, ended, found = run_app(config, work)
    if as_json:
        state = name_state(found) if found is not None else "ended"
        print_json(
            {
                "run": decided.decision.id,
                "state": state,
                "task": decided.task.text,
                "steps": [step for each in ended for step in list_steps(each)],
                "answer": ended[-1].answer.text if ended and ended[-1].answer is not None else None,
                "waits": describe_unfinished(found)["waits"] if found is not None else None,
            }
        )
        return
    click.echo(f"run {decided.decision.id}: {name_state(found) if found is not None else 'ended'}")
    for each in ended:
        for line in describe_steps(each):
            click.echo(line)
        click.echo(each.answer.text if each.answer is not None else "no answer")


def _answer(config: Path | None, run: str, *, is_approved: bool, by: str | None, reason: str) -> Resolved:
    name = by or getpass.getuser()
    answer = run_app(config, lambda app: app.runs.resolve(run, is_approved=is_approved, by=name, reason=reason))
    if answer.is_approved != is_approved:
        said = "approved" if answer.is_approved else "denied"
        raise GateRefused(f"run {answer.run} was {said} before, by {answer.by}: the first answer counts")
    return answer


@runs.command(epilog="\b\nExample:\n  ripieno runs approve 3f2a91 --by ada")
@click.argument("run")
@click.option("--by", help="Name of the person. Default: the user of this machine.")
@click.option("--reason", default="", help="The reason.")
@click.pass_obj
def approve(config: Path | None, *, run: str, by: str | None, reason: str) -> None:
    """Approve the step that RUN waits for. A running gateway resumes it; else use `ripieno runs resume`."""
    answer = _answer(config, run, is_approved=True, by=by, reason=reason)
    say(f"approved by {answer.by}; without a running gateway: ripieno runs resume {answer.run[:12]}")


@runs.command(epilog="\b\nExample:\n  ripieno runs deny 3f2a91 --reason 'wrong account'")
@click.argument("run")
@click.option("--by", help="Name of the person. Default: the user of this machine.")
@click.option("--reason", default="", help="The reason.")
@click.pass_obj
def deny(config: Path | None, *, run: str, by: str | None, reason: str) -> None:
    """Deny the step that RUN waits for."""
    answer = _answer(config, run, is_approved=False, by=by, reason=reason)
    say(f"denied by {answer.by}")


def name_state(found: Unfinished) -> str:
    """Name the state of an unfinished run."""
    if found.proposal is not None:
        return "waits for a human"
    return "under way" if found.is_owned else "stranded"


def describe_unfinished(found: Unfinished) -> dict[str, object]:
    """Describe an unfinished run for JSON."""
    waits = found.proposal
    return {
        "run": found.claim.run,
        "state": name_state(found),
        "owner": found.claim.owner,
        "claims": found.claim.nth + 1,
        "last_at": found.at,
        "waits": None if waits is None else {name: getattr(waits, name) for name in _PROPOSAL},
    }


def _format_time(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
