"""`ripieno policy`."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from ripieno.app import App
from ripieno.cli.output import print_json, print_table, say
from ripieno.cli.profile import load_tasks, progress_bar
from ripieno.cli.running import run_app
from ripieno.cli.train import load_measured
from ripieno.domain import Pool, Promoted
from ripieno.errors import GateRefused, NotFound
from ripieno.evaluate.benchmark import prepare
from ripieno.evaluate.offpolicy import Logged
from ripieno.learn import ModelCard, analyze_prompts
from ripieno.learn.checkpoint import read_card, require_shared_workers
from ripieno.learn.logs import LoggedDecision, make_log, read_decisions
from ripieno.learn.promotion import (
    CANARY_SHARE,
    MOST_PAIRS,
    Finding,
    compare,
    judge_harm,
    judge_shadow,
    new_shadow_test,
    record_finding,
    start_canary,
)
from ripieno.learn.train import promote as put_in_traffic
from ripieno.measure.shadow import SHADOWS, Rivals, Shadow, Shadowing, decide_alone
from ripieno.route import Router
from ripieno.route.predictors import TrainedPredictor


@click.group(epilog="\b\nExample:\n  ripieno policy list")
def policy() -> None:
    """The checkpoints: which one decides, and which it replaced."""


@policy.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def list_policies(config: Path | None, *, as_json: bool) -> None:
    """List checkpoints, oldest first."""

    async def work(app: App) -> list[dict[str, object]]:
        current, canary = app.registry.current(), app.registry.canary()
        on_trial = canary.checkpoint if canary is not None else None
        return [
            {
                "checkpoint": version,
                "in_traffic": version == current,
                "on_trial": version == on_trial,
                "quarantined": app.registry.quarantined(version),
                "trained_at": card.trained_at,
                "tasks": card.tasks,
                "verdict": card.verdict,
            }
            for version in app.registry.versions()
            for card in [read_card(app.registry.folder / version)]
        ]

    found = run_app(config, work, decides=False)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            str(f["checkpoint"]),
            _describe_state(f),
            str(f["trained_at"]),
            str(f["tasks"]),
            str(f["quarantined"] or f["verdict"]),
        ]
        for f in found
    ]
    print_table("", ("checkpoint", "state", "trained", "tasks", "note"), rows)


def _describe_state(found: dict[str, object]) -> str:
    if found["in_traffic"]:
        return "in traffic"
    if found["on_trial"]:
        return "canary"
    return "quarantined" if found["quarantined"] else "saved"


@policy.command()
@click.argument("checkpoint")
@click.option("--release", is_flag=True, help="Take it out of quarantine first.")
@click.pass_obj
def promote(config: Path | None, *, checkpoint: str, release: bool) -> None:
    """Put CHECKPOINT into traffic."""

    async def work(app: App) -> None:
        if release:
            app.registry.release(checkpoint)
        if checkpoint in app.registry.versions():
            card = read_card(app.registry.folder / checkpoint)
            require_shared_workers(card, app.pool.ids, version=checkpoint)
        await put_in_traffic(app.registry, app.ledger, checkpoint, reason="by hand")

    run_app(config, work, decides=False)
    say(f"{checkpoint} decides from the next request on")


@policy.command()
@click.pass_obj
def rollback(config: Path | None) -> None:
    """End a canary's trial; where there is none, put the checkpoint back that the latest promotion replaced."""

    async def work(app: App) -> str:
        canary = app.registry.canary()
        if canary is not None:
            app.registry.set_canary(None)
            finding = Finding(stage="canary", passed=False, reason="ended by hand", facts={})
            current = app.registry.current()
            await record_finding(app.ledger, finding, checkpoint=canary.checkpoint, incumbent=current)
            return current or "the prior"
        promotions = [s.entry for s in app.ledger.read(kinds=("promoted",)) if isinstance(s.entry, Promoted)]
        previous = promotions[-1].previous if promotions else None
        if previous is None:
            raise NotFound("the latest promotion replaced no checkpoint")
        await put_in_traffic(app.registry, app.ledger, previous, reason="rollback")
        return previous

    say(f"{run_app(config, work, decides=False)} decides again from the next request on")


@policy.command()
@click.argument("checkpoint")
@click.option("--tasks", help="Graded tasks for the paired calls; those the checkpoint learned from, if not given.")
@click.option("--pairs", type=click.IntRange(1), default=MOST_PAIRS, show_default=True, help="Most paired calls.")
@click.option("--most-cost", type=click.FloatRange(0), help="Ceiling in USD for the paired calls.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def shadow(
    config: Path | None, *, checkpoint: str, tasks: str | None, pairs: int, most_cost: float | None, as_json: bool
) -> None:
    """Hold CHECKPOINT against the one in traffic: replay, veto, paired calls; then give it a canary's share.

    Exit 5 if a stage ends it; the checkpoint in traffic stays. A canary is promoted or rolled back by what comes of it.
    """

    async def work(app: App) -> list[Finding]:
        found: list[Finding] = []
        current = app.registry.current()
        if current is None or current == checkpoint:
            raise NotFound(f"{checkpoint!r} has no other checkpoint to be held against", hint="`ripieno policy list`")
        async for finding in prove(app, checkpoint, current, tasks=tasks, pairs=pairs, most_cost=most_cost):
            await record_finding(app.ledger, finding, checkpoint=checkpoint, incumbent=current)
            found.append(finding)
            say(f"{finding.stage}: {finding.reason}")
            if not finding.passed:
                return found
        start_canary(app.registry, app.ledger, checkpoint)
        return found

    found = run_app(config, work, decides=False)
    if as_json:
        print_json([asdict(finding) for finding in found])
    if not found[-1].passed:
        raise GateRefused(f"{checkpoint} is not promoted: {found[-1].reason}")
    say(f"{checkpoint} decides {CANARY_SHARE:.0%} of the tasks from the next request on")


async def prove(
    app: App, checkpoint: str, current: str, *, tasks: str | None, pairs: int, most_cost: float | None
) -> AsyncIterator[Finding]:
    """The stages before the canary, in order; the caller stops at the first that fails."""
    quiet = app.settings.model_copy(update={"route": app.settings.route.model_copy(update={"exploration": 0.0})})
    candidate = app.make_router(checkpoint, app.pool, quiet)
    incumbent = app.make_router(current, app.pool, quiet)
    card = read_card(app.registry.folder / checkpoint)
    yield await _replay(app, candidate, incumbent, card)
    rows = [row for row in read_decisions(app.ledger) if row.quality is not None and row.is_realised]
    log, target = await _ask_again(app, rows, candidate) if rows else (None, None)
    yield judge_harm(log, target)
    source = tasks or app.ledger.find_source(card.datasets[0])
    if not source:
        raise NotFound(
            f"the tasks of {card.datasets[0]!r} cannot be read again", hint="name graded tasks: --tasks FILE"
        )
    rivals = Rivals(candidate=candidate, incumbent=incumbent, scales=card.scales)
    shadow, test, name = Shadow(app.make_profiler(), app.analyzer), new_shadow_test(), f"{SHADOWS}{checkpoint}"
    found = await shadow.find_pairs(load_tasks(source), rivals, app.pool, app.conditions())
    known = {row.run: row.outcome for row in app.ledger.measured(dataset=name)}
    with progress_bar("paired calls") as show:
        shadowing = Shadowing(pairs=found[:pairs], rivals=rivals, campaign=name, known=known, most_cost_usd=most_cost)
        await shadow.run(shadowing, app.pool, test, on_progress=show)
    yield judge_shadow(test)


async def _replay(app: App, candidate: Router, incumbent: Router, card: ModelCard) -> Finding:
    data = load_measured(app, card.datasets[0])
    bench = prepare(data, await analyze_prompts(app.analyzer, data))
    assert isinstance(candidate.predictor, TrainedPredictor)
    assert isinstance(incumbent.predictor, TrainedPredictor)
    return compare(bench, candidate.predictor, incumbent.predictor, objective=app.make_objective())


async def _ask_again(app: App, rows: Sequence[LoggedDecision], candidate: Router) -> tuple[Logged, np.ndarray]:
    """Logged decisions as arrays, and what the candidate would have taken, shape (n, m)."""
    log, workers = make_log(rows)
    target = np.zeros(log.expected.shape)
    features = await app.analyzer.analyze_many([row.task for row in rows])
    for index, (row, found) in enumerate(zip(rows, features, strict=True)):
        eligible = Pool(tuple(worker for worker in app.pool if worker.id in row.decision.mask.eligible))
        if not len(eligible):
            target[index, log.action[index]] = 1.0
            continue
        taken = decide_alone(candidate, row.task, found, eligible, app.conditions())
        target[index, workers.index(taken)] = 1.0
    return log, target
