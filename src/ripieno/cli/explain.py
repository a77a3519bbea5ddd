"""`ripieno explain` and `ripieno feedback`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from ripieno.cli.ask import describe, describe_steps, list_steps, show
from ripieno.cli.output import print_json, say
from ripieno.cli.running import run_app
from ripieno.domain import Decided, Judged, Run, Verdict
from ripieno.errors import NotFound

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.app.replay import Replayed


@click.command(epilog="\b\nExample:\n  ripieno explain last")
@click.argument("decision_id")
@click.option("--replay", "wants_replay", is_flag=True, help="Decide again from the record, and compare.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def explain(config: Path | None, *, decision_id: str, wants_replay: bool, as_json: bool) -> None:
    """Tell decision DECISION_ID in words; `last` is the latest, and a beginning of the id is enough."""
    from ripieno.route.explain import explain as explain_decision

    async def work(app: Installation) -> tuple[Decided, list[Run], list[Judged], Replayed | None]:
        name = app.ledger.decisions.last() if decision_id == "last" else decision_id
        if name is None:
            raise NotFound("no decision is recorded yet", hint="make one: `ripieno ask TEXT`")
        decided = app.ledger.decisions.find(name)
        runs = app.ledger.runs.of_decision(decided.decision.id)
        verdicts = [judged for run in runs for judged in app.ledger.runs.verdicts_of(run.id)]
        return decided, runs, verdicts, await app.replays.replay(decided, app.runtime.pool) if wants_replay else None

    decided, runs, verdicts, replayed = run_app(config, work)
    explanation = explain_decision(decided.decision)
    if as_json:
        print_json(
            describe(decided.decision)
            | {
                "task": decided.task.text,
                "changes": list(explanation.changes),
                "dial": [{"low": s.low, "high": s.high, "worker": s.worker} for s in explanation.spans],
                "calls": [
                    {"worker": c.worker, "cost_usd": c.cost_usd, "latency_s": c.latency_s, "failure": c.failure}
                    for run in runs
                    for c in run.calls
                ],
                "steps": [step for run in runs for step in list_steps(run)],
                "verdicts": [{"verifier": j.verdict.verifier, "quality": j.verdict.quality} for j in verdicts],
                "replayed": None if replayed is None else replayed.decision.worker,
                "replay_differs": None if replayed is None else list(replayed.differs),
                "replay_unrecorded": None if replayed is None else list(replayed.unrecorded),
            }
        )
        return
    click.echo(f"decision {decided.decision.id}")
    click.echo(f"task: {decided.task.text[:200]!r}")
    show(decided.decision)
    click.echo("what would change it:")
    for change in explanation.changes or ("nothing short of other estimates",):
        click.echo(f"  {change}")
    for run in runs:
        for line in describe_steps(run):
            click.echo(line)
    for judged in verdicts:
        click.echo(f"verdict: {judged.verdict.verifier} {judged.verdict.quality:.2f} {judged.verdict.detail}")
    if replayed is not None:
        differs = f"another decision: {', '.join(replayed.differs)}" if replayed.differs else "the same decision"
        say(f"replay: {replayed.decision.worker}, {differs}")
        if replayed.unrecorded:
            say(f"not recorded, and taken from the decision and today's pool: {', '.join(replayed.unrecorded)}")


@click.command(epilog="\b\nExample:\n  ripieno feedback 3f2a91 --quality 1")
@click.argument("decision_id")
@click.option("--quality", type=click.FloatRange(0, 1), help="What the answer was worth, 0 to 1.")
@click.option(
    "--correction", type=click.File(encoding="utf-8"), help="A file with what it should have been; - reads stdin."
)
@click.option("--detail", default="", help="Why.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def feedback(
    config: Path | None,
    *,
    decision_id: str,
    quality: float | None,
    correction: TextIO | None,
    detail: str,
    as_json: bool,
) -> None:
    """Record what the answer of decision DECISION_ID was worth, or what it should have been."""
    from ripieno.app.feedback import record_feedback

    text = correction.read() if correction is not None else None

    async def work(app: Installation) -> Judged:
        name = (app.ledger.decisions.last() or "") if decision_id == "last" else decision_id
        verdict = None if quality is None else Verdict(verifier="user", quality=quality, detail=detail)
        return await record_feedback(app, name, verdict, correction=text)

    judged = run_app(config, work)
    if as_json:
        print_json({"recorded": judged.id})
    else:
        say(f"recorded {judged.id}")
