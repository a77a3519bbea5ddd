"""Commands on checkpoints: shadow, promotion, rollback, and the audit of decisions."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.app.installation import Installation
from ripieno.app.runtime import make_router
from ripieno.app.sources import find_tasks, load_measured, load_tasks
from ripieno.domain import Decided, Decision, DecisionInputs, Estimate, Features, Promoted
from ripieno.errors import NotFound, NotReplayable
from ripieno.evaluate.audit import Audit, Audited, audit
from ripieno.evaluate.benchmark import prepare
from ripieno.evaluate.offpolicy import Logged
from ripieno.learn import ModelCard, analyze_prompts
from ripieno.learn.checkpoint import read_card, require_shared_workers
from ripieno.learn.logs import LoggedDecision, make_log, read_decisions
from ripieno.learn.missing import check_missing
from ripieno.learn.promotion import (
    MOST_PAIRS,
    StageResult,
    compare,
    judge_harm,
    judge_shadow,
    new_shadow_test,
    record_stage,
    start_canary,
)
from ripieno.learn.train import promote
from ripieno.measure import CampaignProgress
from ripieno.measure.shadow import SHADOWS, Rivals, Shadow, Shadowing
from ripieno.route import Router
from ripieno.route.choose import DecisionRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Settings of the paired calls that compare a candidate with the checkpoint in traffic."""

    tasks: str | None = None
    """Graded tasks. Default: those that the candidate learned from."""
    pairs: int = MOST_PAIRS
    most_cost_usd: float | None = None
    on_progress: Callable[[CampaignProgress], None] | None = None


async def promote_by_hand(app: Installation, checkpoint: str, *, releases: bool = False) -> None:
    """Put a checkpoint into traffic.

    `releases` first releases it from quarantine.

    Raises:
        NotFound: there is no such version.
        GateRefused: it is in quarantine.
        CheckpointError: it belongs to another pool.
    """
    if releases:
        app.registry.release(checkpoint)
    if checkpoint in app.registry.versions():
        card = read_card(app.registry.folder / checkpoint)
        require_shared_workers(card, app.runtime.pool.ids, version=checkpoint)
    await promote(app.registry, app.ledger, checkpoint, reason="by hand")


async def roll_back(app: Installation) -> str:
    """End the trial of a canary or, without one, undo the latest promotion. Return the predictor in traffic.

    Raises:
        NotFound: the latest promotion replaced nothing.
    """
    canary = app.registry.canary()
    if canary is not None:
        app.registry.set_canary(None)
        result = StageResult(stage="canary", passed=False, reason="ended by hand", facts={})
        current = app.registry.current()
        await record_stage(app.ledger, result, checkpoint=canary.checkpoint, incumbent=current)
        return current or "the prior"
    steps = await asyncio.to_thread(lambda: list(app.ledger.read(kinds=("promoted",))))
    promotions = [step.entry for step in steps if isinstance(step.entry, Promoted)]
    previous = promotions[-1].previous if promotions else None
    if previous is None:
        raise NotFound("the latest promotion replaced no checkpoint")
    await promote(app.registry, app.ledger, previous, reason="rollback")
    return previous


async def shadow(app: Installation, checkpoint: str, pairing: Pairing) -> AsyncIterator[StageResult]:
    """Compare a checkpoint with the one in traffic, stage by stage. If it passes all stages, it becomes a canary.

    Each result is recorded before it is yielded. The first failure is the last result.

    Raises:
        NotFound: there is no other checkpoint in traffic, or there are no tasks.
    """
    current = app.registry.current()
    if current is None or current == checkpoint:
        raise NotFound(f"{checkpoint!r} has no other checkpoint to compare with", hint="`ripieno policy list`")
    async for result in _prove(app, checkpoint, current, pairing):
        await record_stage(app.ledger, result, checkpoint=checkpoint, incumbent=current)
        if result.passed and result.stage == "shadow":
            await asyncio.to_thread(start_canary, app.registry, app.ledger, checkpoint)
        yield result
        if not result.passed:
            return


async def audit_traffic(app: Installation, *, last: int) -> tuple[Audit, list[str]]:
    """Audit the latest decisions for bias. Return the detected changes of workers, too.

    Raises:
        NotFound: no decision is recorded.
    """
    logged = await asyncio.to_thread(lambda: list(read_decisions(app.ledger, last=last)))
    if not logged:
        raise NotFound("no decision is recorded yet", hint="make some: `ripieno ask TEXT`, or serve traffic")
    rows: list[Audited] = []
    for row in logged:
        inputs = await _restore(app, row)
        features = inputs.features if inputs is not None else await app.analyzer.analyze(row.task)
        rows.append(Audited(decision=row.decision, features=features, quality=row.quality if row.is_realised else None))
        await asyncio.sleep(0)  # the gateway serves requests in between
    router = app.runtime.routing.router

    def estimate(changed: Features, decision: Decision) -> Sequence[Estimate]:
        eligible = [worker for worker in app.runtime.pool if worker.id in decision.mask.eligible]
        return router.predictor.forecast(changed, eligible).estimates if eligible else decision.estimates

    found = await asyncio.to_thread(audit, rows, policy=router.policy, estimate=estimate)
    return found, list(router.estimator.state.drifts) if router.estimator is not None else []


async def _prove(app: Installation, checkpoint: str, current: str, pairing: Pairing) -> AsyncIterator[StageResult]:
    """Yield the results of the stages before the canary, in order."""
    runtime = app.runtime
    route = runtime.settings.route.model_copy(update={"exploration": 0.0})
    quiet = runtime.settings.model_copy(update={"route": route})
    candidate = make_router(checkpoint, runtime.pool, quiet, runtime.foundation)
    incumbent = make_router(current, runtime.pool, quiet, runtime.foundation)
    card = read_card(app.registry.folder / checkpoint)
    check_missing(card)
    yield await _replay(app, (checkpoint, current), (candidate, incumbent), card)
    logged = await asyncio.to_thread(lambda: list(read_decisions(app.ledger)))
    rows = [row for row in logged if row.quality is not None and row.is_realised]
    log, target = await _decide_again(app, rows, candidate) if rows else (None, None)
    yield judge_harm(log, target)
    rivals = Rivals(candidate=candidate, incumbent=incumbent, scales=card.scales)
    shadow, test, name = Shadow(app.runtime.make_profiler(), app.analyzer), new_shadow_test(), f"{SHADOWS}{checkpoint}"
    source = await asyncio.to_thread(find_tasks, app, card, pairing.tasks)
    tasks = await asyncio.to_thread(load_tasks, source)
    found = await shadow.find_pairs(tasks, rivals, app.runtime.availability.conditions())
    measured = await asyncio.to_thread(lambda: list(app.ledger.outcomes.measured(dataset=name)))
    unjudged = await asyncio.to_thread(app.ledger.outcomes.unjudged, name)
    shadowing = Shadowing(
        pairs=found[: pairing.pairs],
        rivals=rivals,
        campaign=name,
        known={row.run: row.outcome for row in measured},
        unjudged={run.id: run for run in unjudged},
        most_cost_usd=pairing.most_cost_usd,
    )
    done = await shadow.run(shadowing, app.runtime.pool, test, on_progress=pairing.on_progress)
    yield judge_shadow(test, unjudged=len(done.unjudged))


async def _replay(
    app: Installation, names: tuple[str, str], routers: tuple[Router, Router], card: ModelCard
) -> StageResult:
    data = await asyncio.to_thread(load_measured, app, card.datasets[0])
    bench = prepare(data, await analyze_prompts(app.analyzer, data))
    checkpoints = [app.registry.load(version, schema=app.analyzer.schema)[0] for version in names]
    rules = DecisionRule.read(routers[0].policy.facts), DecisionRule.read(routers[1].policy.facts)
    return compare(bench, checkpoints[0], checkpoints[1], objective=app.runtime.make_objective(), rules=rules)


async def _decide_again(
    app: Installation, rows: Sequence[LoggedDecision], candidate: Router
) -> tuple[Logged, np.ndarray]:
    """Return logged decisions as arrays, and the candidate's choices, shape (n, m)."""
    log, workers = make_log(rows)
    target = np.zeros(log.expected.shape)
    for index, row in enumerate(rows):
        inputs = await _restore(app, row)
        if inputs is None:
            target[index, log.action[index]] = 1.0
        else:
            target[index, workers.index(candidate.decide_likeliest(inputs).worker)] = 1.0
    return log, target


async def _restore(app: Installation, row: LoggedDecision) -> DecisionInputs | None:
    """Restore the inputs of a logged decision; None if they are not available any more."""
    try:
        return await app.replays.restore(Decided(decision=row.decision, task=row.task), app.runtime.pool)
    except NotReplayable:
        return None
