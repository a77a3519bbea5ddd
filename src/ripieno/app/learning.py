"""Learning beside requests: folds outcomes into the estimators, and watches the trial of a canary."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice

from ripieno.analyze import Analyzer
from ripieno.app.replay import Replays
from ripieno.domain import Decision, Pool, Run, Worker
from ripieno.errors import NotReplayable, PredictorError
from ripieno.learn.checkpoint import Canary, Registry
from ripieno.learn.promotion import StageResult, judge_canary, record_stage
from ripieno.learn.snapshots import Snapshots
from ripieno.learn.train import promote
from ripieno.ledger import Ledger, TrafficOutcome
from ripieno.orchestrator import RoutingState
from ripieno.route import Router
from ripieno.route.compose import workflow_as_worker
from ripieno.route.predictors import Estimator, Observation

log = logging.getLogger(__name__)

PAGE = 500
"""Outcomes of each read."""
YIELD_EVERY = 16
"""Outcomes after which the event loop serves others."""


class Learning:
    """Learns from the outcomes of traffic and probes in the ledger."""

    def __init__(self, ledger: Ledger, analyzer: Analyzer, registry: Registry) -> None:
        self._ledger = ledger
        self._analyzer = analyzer
        self._registry = registry
        self._snapshots = Snapshots(registry.folder, ledger)
        self.replays = Replays(ledger, analyzer, registry, self.fold)
        self._lock = asyncio.Lock()
        self.fault: PredictorError | None = None
        """Error of the latest attempt to learn; None after a success."""
        self._canary: Canary | None = None
        self._canary_watermark = 0
        self._shortfalls: list[float] = []

    async def catch_up(self, routing: RoutingState) -> list[str]:
        """Fold in the new outcomes. Return the detected changes of workers.

        A predictor that fails stays as it is. Its outcomes stay in the ledger.
        """
        async with self._lock:
            noticed, fault = await self._teach(routing.router, routing.pool)
            if fault is not None and self.fault is None:
                log.warning("learning from outcomes failed: %s", fault.message)
            self.fault = fault
            if routing.canary is not None:
                more, fault = await self._teach(routing.canary, routing.pool)
                noticed += more
                await self._watch_canary(routing, fault or routing.canary.fault)
        return noticed

    async def _teach(self, router: Router, pool: Pool) -> tuple[list[str], PredictorError | None]:
        """Fold outcomes into the estimator of a router. Return the changes of workers, and the error, if any."""
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
        """Fold outcomes into an estimator. A new one starts from its latest snapshot.

        Args:
            estimator: the estimator, which does not change.
            pool: the workers. Outcomes of changed or removed workers do not count.
            until: last place in the ledger. Default: its head.
            publish: receives each intermediate estimator.

        Returns:
            The estimator with all outcomes, and the detected changes of workers.

        Raises:
            PredictorError: the predictor failed on an outcome.
        """
        noticed: list[str] = []
        if estimator.state.folded == 0:
            estimator = await asyncio.to_thread(self._snapshots.restore, estimator, pool, until=until)
        async for page in self._read_pages(after=estimator.state.watermark, until=until):
            found = iter(page)
            while batch := list(islice(found, min(YIELD_EVERY, estimator.state.to_epoch))):
                await asyncio.sleep(0)
                matched = _match_workers(batch, estimator, pool)
                observations = [await self._observe(outcome, worker) for outcome, worker in matched]
                estimator, notices = estimator.fold(observations, until=batch[-1].seq)
                publish(estimator)
                for notice in notices:
                    log.warning("%s: earlier outcomes of it count less from now on", notice)
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

    async def _watch_canary(self, routing: RoutingState, fault: PredictorError | None) -> None:
        """Read the outcomes of the canary's decisions, and end its trial if they suffice or if it fails."""
        canary = self._registry.canary()
        if canary is None:
            return
        if self._canary != canary:
            self._canary, self._shortfalls, self._canary_watermark = canary, [], canary.since
        async for page in self._read_pages(after=self._canary_watermark):
            for outcome in page:
                self._canary_watermark = outcome.seq
                shortfall = await self._find_shortfall(outcome, canary, routing)
                self._shortfalls += [shortfall] if shortfall is not None else []
        if fault is None:
            finding = judge_canary(self._shortfalls)
        else:
            finding = StageResult(stage="canary", passed=False, reason=f"cannot decide: {fault.message}", facts={})
        if finding is None:
            return
        incumbent = self._registry.current()
        await record_stage(self._ledger, finding, checkpoint=canary.checkpoint, incumbent=incumbent)
        self._registry.set_canary(None)
        if finding.passed:
            await promote(self._registry, self._ledger, canary.checkpoint, reason=finding.reason)
        else:
            self._registry.quarantine(canary.checkpoint, f"as a canary it {finding.reason}")
            log.warning("canary %s is rolled back: it %s", canary.checkpoint, finding.reason)

    async def _find_shortfall(self, outcome: TrafficOutcome, canary: Canary, routing: RoutingState) -> float | None:
        """Find the shortfall of one decision by the canary; None if another checkpoint made it.

        It is also None if the decision cannot be replayed, because the incumbent's choice is then unknown.
        """
        if outcome.run.decision is None:
            return None
        decided = await asyncio.to_thread(self._ledger.decisions.find, outcome.run.decision)
        if decided.decision.predictor.partition("+")[0] != canary.checkpoint:
            return None
        try:
            inputs = await self.replays.restore(decided, routing.pool)
        except NotReplayable:
            return None
        return measure_shortfall(routing.router.decide(inputs), decided.decision, outcome.quality)


def measure_shortfall(ours: Decision, theirs: Decision, quality: float) -> float:
    """Return the incumbent's expected quality minus the canary's judged one; 0 if they choose alike."""
    if ours.choice == theirs.choice:
        return 0.0
    promised = next(e.quality for e in ours.estimates if e.worker == ours.choice)
    return min(max(promised - quality, -1.0), 1.0)


def _match_workers(
    batch: Sequence[TrafficOutcome], estimator: Estimator, pool: Pool
) -> list[tuple[TrafficOutcome, Worker]]:
    """Pair each outcome with its worker. Outcomes of changed or removed workers drop out."""
    pairs = ((outcome, _find_worker(outcome.run, estimator, pool)) for outcome in batch)
    return [(outcome, worker) for outcome, worker in pairs if worker is not None]


def _find_worker(run: Run, estimator: Estimator, pool: Pool) -> Worker | None:
    if run.learned_workflow is not None:
        return (
            workflow_as_worker(run.learned_workflow) if run.learned_workflow in estimator.checkpoint.columns else None
        )
    call = run.calls[-1]
    known = call.worker in pool and pool[call.worker].version == call.worker_version
    return pool[call.worker] if known else None
