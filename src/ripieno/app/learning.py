"""Learning beside decisions: outcomes are folded into what decides, and a canary's trial is watched."""

import asyncio
import logging

from ripieno.analyze import Analyzer
from ripieno.app.replay import Replays
from ripieno.domain import Decision, Pool, Run, Worker
from ripieno.errors import NotReplayable
from ripieno.learn.checkpoint import Canary, Registry
from ripieno.learn.promotion import judge_canary, record_finding
from ripieno.learn.snapshots import Snapshots
from ripieno.learn.train import promote
from ripieno.ledger import Ledger
from ripieno.orchestrator import RoutingState
from ripieno.route.modes import workflow_as_worker
from ripieno.route.predictors import TrainedPredictor

log = logging.getLogger(__name__)

BREATH = 16
"""Outcomes after which others have their turn."""


class Learning:
    """Takes what traffic and probes have shown.

    Args:
        ledger: the record.
        analyzer: finds the features of its tasks again.
        registry: the checkpoints.
    """

    def __init__(self, ledger: Ledger, analyzer: Analyzer, registry: Registry) -> None:
        self._ledger = ledger
        self._analyzer = analyzer
        self._registry = registry
        self._snapshots = Snapshots(registry.folder, ledger)
        self.replays = Replays(ledger, analyzer, registry, self.fold)
        self._lock = asyncio.Lock()
        self._canary: Canary | None = None
        self._canary_watermark = 0
        self._shortfalls: list[float] = []

    async def catch_up(self, brain: RoutingState) -> list[str]:
        """Fold in what has come since; gives the changes of workers that were noticed."""
        noticed: list[str] = []
        async with self._lock:
            for router in (brain.router, brain.canary):
                if router is not None and isinstance(router.predictor, TrainedPredictor):
                    noticed += await self.fold(router.predictor, brain.pool)
            if brain.canary is not None:
                await self._watch_canary(brain)
        return noticed

    async def fold(self, predictor: TrainedPredictor, pool: Pool, *, until: int | None = None) -> list[str]:
        """Fold outcomes into one predictor, from the latest snapshot on where it is new.

        Args:
            predictor: what learns.
            pool: whose outcomes count: those of workers that have changed or left are passed over.
            until: place in the ledger up to which; its head if not given.
        """
        noticed: list[str] = []
        if predictor.folded == 0:
            await asyncio.to_thread(self._snapshots.restore, predictor, pool, until=until)
        for place, late in enumerate(self._ledger.late(after=predictor.watermark, until=until)):
            if place % BREATH == 0:
                await asyncio.sleep(0)
            learner, call = _find_learner(late.run, predictor, pool), late.run.calls[-1]
            predictor.watermark = late.seq
            if learner is None:
                continue
            change = predictor.learn(
                await self._analyzer.analyze(late.task),
                learner,
                late.quality,
                cost_usd=late.run.cost_usd if late.run.mode is not None else call.cost_usd,
                latency_s=late.run.latency_s if late.run.mode is not None else call.latency_s,
                first_token_s=call.first_token_s,
            )
            if change is not None:
                log.warning("%s: what was learned of it counts less from here on", change)
                noticed.append(change)
            if predictor.is_between_epochs:
                self._snapshots.save(predictor, pool)
        return noticed

    async def _watch_canary(self, brain: RoutingState) -> None:
        """Take what came of the canary's decisions, and end its trial where they suffice."""
        canary = self._registry.canary()
        if canary is None:
            return
        if self._canary != canary:
            self._canary, self._shortfalls, self._canary_watermark = canary, [], canary.since
        for late in self._ledger.late(after=self._canary_watermark):
            self._canary_watermark = late.seq
            if late.run.decision is None:
                continue
            decided = self._ledger.find_decided(late.run.decision)
            if decided.decision.predictor.partition("+")[0] == canary.checkpoint:
                try:
                    inputs = await self.replays.restore(decided, brain.pool)
                except NotReplayable:
                    continue  # nothing tells what the incumbent would have done
                self._shortfalls.append(measure_shortfall(brain.router.decide(inputs), decided.decision, late.quality))
        finding = judge_canary(self._shortfalls)
        if finding is None:
            return
        incumbent = self._registry.current()
        await record_finding(self._ledger, finding, checkpoint=canary.checkpoint, incumbent=incumbent)
        self._registry.set_canary(None)
        if finding.passed:
            await promote(self._registry, self._ledger, canary.checkpoint, reason=finding.reason)
        else:
            self._registry.quarantine(canary.checkpoint, f"as a canary it {finding.reason}")
            log.warning("canary %s is rolled back: it %s", canary.checkpoint, finding.reason)


def measure_shortfall(ours: Decision, theirs: Decision, quality: float) -> float:
    """Return what the incumbent promises of its choice minus what the canary's brought; 0 where they choose alike."""
    if ours.choice == theirs.choice:
        return 0.0
    promised = next(e.quality for e in ours.estimates if e.worker == ours.choice)
    return min(max(promised - quality, -1.0), 1.0)


def _find_learner(run: Run, predictor: TrainedPredictor, pool: Pool) -> Worker | None:
    """Of whom an outcome speaks: the workflow that was chosen by name, or the worker, unless it has changed or left."""
    if run.mode is not None:
        return workflow_as_worker(run.mode) if run.mode in predictor.workers else None
    call = run.calls[-1]
    known = call.worker in pool and pool[call.worker].version == call.worker_version
    return pool[call.worker] if known else None
