"""`ripieno explain` and `ripieno feedback`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from ripieno.cli.ask import describe, describe_steps, list_steps, show
from ripieno.cli.options import prints_json
from ripieno.cli.output import print_json, say
from ripieno.cli.running import run_app
from ripieno.errors import NotFound

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.app.replay import Replayed
    from ripieno.domain import Decided, Judged, Run


@click.command(epilog="\b\nExample:\n  ripieno explain last")
@click.argument("decision_id")
@click.option("--replay", "wants_replay", is_flag=True, help="Replay the decision from the ledger, and compare.")
@prints_json
def explain(config: Path | None, *, decision_id: str, wants_replay: bool, as_json: bool) -> None:
    """Explain decision DECISION_ID in words. `last` is the latest; the beginning of an id is enough."""
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
        print_json(_describe_explained(decided, runs, verdicts, replayed))
        return
    click.echo(f"decision {decided.decision.id}")
    click.echo(f"task: {decided.task.text[:200]!r}")
    show(decided.decision)
    click.echo("what would change it:")
    for change in explanation.changes or ("only other estimates would",):
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
            say(f"not recorded, and taken from the decision and the current pool: {', '.join(replayed.unrecorded)}")


def _describe_explained(
    decided: Decided, runs: list[Run], verdicts: list[Judged], replayed: Replayed | None
) -> dict[str, object]:
    from ripieno.route.explain import explain as explain_decision

    explanation = explain_decision(decided.decision)
    return describe(decided.decision) | {
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


@click.command(epilog="\b\nExample:\n  ripieno feedback 3f2a91 --quality 1")
@click.argument("decision_id")
@click.option("--quality", type=click.FloatRange(0, 1), help="Quality of the answer, 0 to 1.")
@click.option(
    "--correction", type=click.File(encoding="utf-8"), help="A file with the correct answer. `-` reads stdin."
)
@click.option("--detail", default="", help="The reason.")
@prints_json
def feedback(
    config: Path | None,
    *,
    decision_id: str,
    quality: float | None,
    correction: TextIO | None,
    detail: str,
    as_json: bool,
) -> None:
    """Record the quality of the answer to decision DECISION_ID, or the correct answer."""
    from ripieno.app.feedback import record_feedback

    text = correction.read() if correction is not None else None

    from ripieno.domain import Verdict

    async def work(app: Installation) -> Judged:
        name = (app.ledger.decisions.last() or "") if decision_id == "last" else decision_id
        verdict = None if quality is None else Verdict(verifier="user", quality=quality, detail=detail)
        return await record_feedback(app, name, verdict, correction=text)

    judged = run_app(config, work)
    if as_json:
        print_json({"recorded": judged.id})
    else:
        say(f"recorded {judged.id}")
