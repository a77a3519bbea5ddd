"""Learning beside decisions: outcomes are folded into what decides, and a canary's trial is watched."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice

from ripieno.analyze import Analyzer
from ripieno.app.replay import Replays
from ripieno.domain import Decision, Pool, Run, Worker
from ripieno.errors import NotReplayable, PredictorError
from ripieno.learn.checkpoint import Canary, Registry
from ripieno.learn.promotion import Finding, judge_canary, record_finding
from ripieno.learn.snapshots import Snapshots
from ripieno.learn.train import promote
from ripieno.ledger import Ledger, TrafficOutcome
from ripieno.orchestrator import RoutingState
from ripieno.route import Router
from ripieno.route.compose import workflow_as_worker
from ripieno.route.predictors import Estimator, Observation

log = logging.getLogger(__name__)

PAGE = 500
"""Outcomes that are read at a time."""
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
        self.fault: PredictorError | None = None
        """Why nothing was learned at the latest try; None where that went well."""
        self._canary: Canary | None = None
        self._canary_watermark = 0
        self._shortfalls: list[float] = []

    async def catch_up(self, brain: RoutingState) -> list[str]:
        """Fold in what has come since; return the changes of workers that were noticed.

        A predictor that fails learns nothing and stays as it is: its outcomes wait in the ledger.
        """
        async with self._lock:
            noticed, fault = await self._teach(brain.router, brain.pool)
            if fault is not None and self.fault is None:
                log.warning("outcomes are not learned from: %s", fault.message)
            self.fault = fault
            if brain.canary is not None:
                more, fault = await self._teach(brain.canary, brain.pool)
                noticed += more
                await self._watch_canary(brain, fault or brain.canary.fault)
        return noticed

    async def _teach(self, router: Router, pool: Pool) -> tuple[list[str], PredictorError | None]:
        """Give a router what outcomes teach; return the changes of workers, and the fault that ended it, if any."""
        if router.estimator is None:
            return [], None
        try:
            _, noticed = await self.fold(router.estimator, pool, publish=router.publish)
        except PredictorError as error:
            return [], error
        return noticed, None

    async def fold(
        self,
        estimator: Estimator,
        pool: Pool,
        *,
        until: int | None = None,
        publish: Callable[[Estimator], None] = lambda estimator: None,
    ) -> tuple[Estimator, list[str]]:
        """Fold outcomes into an estimator, from the latest snapshot on where it is new.

        Args:
            estimator: what learns; it does not change.
            pool: whose outcomes count: those of workers that have changed or left are passed over.
            until: place in the ledger up to which; its head if not given.
            publish: receives each estimator on the way to the last one.

        Returns:
            The estimator that knows all of them, and the changes of workers that were noticed.

        Raises:
            PredictorError: the predictor failed on an outcome.
        """
        noticed: list[str] = []
        if estimator.state.folded == 0:
            estimator = await asyncio.to_thread(self._snapshots.restore, estimator, pool, until=until)
        async for page in self._read_pages(after=estimator.state.watermark, until=until):
            found = iter(page)
            while batch := list(islice(found, min(BREATH, estimator.state.to_epoch))):
                await asyncio.sleep(0)
                matched = _match_workers(batch, estimator, pool)
                observations = [await self._observe(outcome, worker) for outcome, worker in matched]
                estimator, notices = estimator.fold(observations, until=batch[-1].seq)
                publish(estimator)
                for notice in notices:
                    log.warning("%s: what was learned of it counts less from here on", notice)
                noticed += notices
                if observations and estimator.state.is_between_epochs:
                    version, state = estimator.checkpoint.version, estimator.state
                    await asyncio.to_thread(self._snapshots.save, version, state, pool)
        return estimator, noticed

    async def _read_pages(self, *, after: int, until: int | None = None) -> AsyncIterator[list[TrafficOutcome]]:
        """Read outcomes in a thread, page by page."""

        def read_page() -> list[TrafficOutcome]:
            return list(islice(self._ledger.outcomes.traffic(after=after, until=until), PAGE))

        while page := await asyncio.to_thread(read_page):
            yield page
            after = page[-1].seq

    async def _observe(self, outcome: TrafficOutcome, worker: Worker) -> Observation:
        run, call = outcome.run, outcome.run.calls[-1]
        return Observation(
            features=await self._analyzer.analyze(outcome.task),
            worker=worker,
            quality=outcome.quality,
            cost_usd=run.cost_usd if run.learned_workflow is not None else call.cost_usd,
            latency_s=run.latency_s if run.learned_workflow is not None else call.latency_s,
            first_token_s=call.first_token_s,
        )

    async def _watch_canary(self, brain: RoutingState, fault: PredictorError | None) -> None:
        """Take what came of the canary's decisions, and end its trial where they suffice, or where it fails."""
        canary = self._registry.canary()
        if canary is None:
            return
        if self._canary != canary:
            self._canary, self._shortfalls, self._canary_watermark = canary, [], canary.since
        async for page in self._read_pages(after=self._canary_watermark):
            for outcome in page:
                self._canary_watermark = outcome.seq
                shortfall = await self._find_shortfall(outcome, canary, brain)
                self._shortfalls += [shortfall] if shortfall is not None else []
        if fault is None:
            finding = judge_canary(self._shortfalls)
        else:
            finding = Finding(stage="canary", passed=False, reason=f"cannot decide: {fault.message}", facts={})
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

    async def _find_shortfall(self, outcome: TrafficOutcome, canary: Canary, brain: RoutingState) -> float | None:
        """Find the shortfall of one decision by the canary; None where another checkpoint made it, or it is lost.

        It is lost where something that it depended on is gone: nothing tells what the incumbent would have done.
        """
        if outcome.run.decision is None:
            return None
        decided = await asyncio.to_thread(self._ledger.decisions.find, outcome.run.decision)
        if decided.decision.predictor.partition("+")[0] != canary.checkpoint:
            return None
        try:
            inputs = await self.replays.restore(decided, brain.pool)
        except NotReplayable:
            return None
        return measure_shortfall(brain.router.decide(inputs), decided.decision, outcome.quality)


def measure_shortfall(ours: Decision, theirs: Decision, quality: float) -> float:
    """Return what the incumbent promises of its choice minus what the canary's brought; 0 where they choose alike."""
    if ours.choice == theirs.choice:
        return 0.0
    promised = next(e.quality for e in ours.estimates if e.worker == ours.choice)
    return min(max(promised - quality, -1.0), 1.0)


def _match_workers(
    batch: Sequence[TrafficOutcome], estimator: Estimator, pool: Pool
) -> list[tuple[TrafficOutcome, Worker]]:
    """Pair each outcome with the worker it speaks of; those of workers that have changed or left drop out."""
    pairs = ((late, _find_worker(late.run, estimator, pool)) for late in batch)
    return [(late, worker) for late, worker in pairs if worker is not None]


def _find_worker(run: Run, estimator: Estimator, pool: Pool) -> Worker | None:
    if run.learned_workflow is not None:
        return (
            workflow_as_worker(run.learned_workflow) if run.learned_workflow in estimator.checkpoint.columns else None
        )
    call = run.calls[-1]
    known = call.worker in pool and pool[call.worker].version == call.worker_version
    return pool[call.worker] if known else None
