"""Promotion of a checkpoint in four stages. Each result is a ledger entry, and the first failure ends the promotion.

replay   both policies on held-out tasks with all outcomes: not worse, and in no slice much worse
veto     doubly robust estimate on logged traffic: no proof of harm
shadow   calls to both chosen workers where the policies disagree: proven better, by a sequential test
canary   a small share of the traffic, rolled back when outcomes fall short of the incumbent's expected quality
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.domain import JsonValue, Matrix, Objective, Staged
from ripieno.evaluate.benchmark import Benchmark, routed_utility
from ripieno.evaluate.bootstrap import bootstrap_mean
from ripieno.evaluate.offpolicy import Logged, estimate_difference
from ripieno.evaluate.sequential import BettingTest
from ripieno.learn.checkpoint import Canary, Registry
from ripieno.ledger import Ledger
from ripieno.route.choose import DecisionRule
from ripieno.route.predictors import Checkpoint

REPLAY_LOSS = 0.002
"""Utility by which the lower 95 % bound may lie below the incumbent."""
SLICE_LOSS = 0.02
LEAST_SLICE = 20
LEAST_LOG = 100
SHADOW_ALPHA = 0.02
MOST_PAIRS = 800
CANARY_SHARE = 0.05
CANARY_ALPHA = 0.05
CANARY_LOSS = 0.02
"""Quality by which a canary may fall short of the incumbent's expected quality on the same tasks."""
CANARY_OUTCOMES = 200
"""Outcomes without an alarm after which a canary is promoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """Result of one stage."""

    stage: str
    passed: bool
    reason: str
    facts: Mapping[str, JsonValue]


def judge_replay(candidate: Matrix, incumbent: Matrix, *, slices: Sequence[str], groups: "np.ndarray") -> StageResult:
    """Compare two policies on tasks with all outcomes.

    Both utilities have the shape (n,). Tasks of one group are drawn together.
    """
    gain = candidate - incumbent
    interval = bootstrap_mean(gain, rng=np.random.default_rng(0), groups=groups)
    named = np.array(slices)
    losses = {
        str(name): float(gain[named == name].mean())
        for name in np.unique(named)
        if (named == name).sum() >= LEAST_SLICE
    }
    worst = min(losses, key=lambda name: losses[name], default="")
    facts: dict[str, JsonValue] = {
        "gain": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "tasks": len(gain),
    }
    if interval.low < -REPLAY_LOSS and interval.mean < 0.0:
        reason = f"loses {-interval.mean:.4f} utility on held-out tasks (lower bound {interval.low:+.4f})"
        return StageResult(stage="replay", passed=False, reason=reason, facts=facts)
    if worst and losses[worst] < -SLICE_LOSS:
        reason = f"loses {-losses[worst]:.4f} utility on tasks of kind {worst!r}"
        return StageResult(stage="replay", passed=False, reason=reason, facts=facts | {"slice": worst})
    reason = f"gains {interval.mean:+.4f} utility [{interval.low:+.4f}, {interval.high:+.4f}] on held-out tasks"
    return StageResult(stage="replay", passed=True, reason=reason, facts=facts)


def compare(
    bench: Benchmark,
    candidate: Checkpoint,
    incumbent: Checkpoint,
    *,
    objective: Objective,
    rules: tuple[DecisionRule, DecisionRule],
) -> StageResult:
    """Replay two checkpoints on the held-out tasks of a data set.

    The scales of the benchmark measure both.

    Raises:
        CheckpointError: a checkpoint does not know a worker of the data set.
    """
    return judge_replay(
        routed_utility(bench, candidate, objective, rule=rules[0]),
        routed_utility(bench, incumbent, objective, rule=rules[1]),
        slices=bench.held_out.kinds,
        groups=bench.held_out.groups,
    )


def judge_harm(log: Logged | None, target: Matrix | None) -> StageResult:
    """Veto a policy that logged traffic proves to be worse. Too little traffic proves nothing.

    `target` is the candidate's selection probability of each worker, shape (n, m).
    """
    if log is None or target is None or len(log.action) < LEAST_LOG:
        seen = 0 if log is None else len(log.action)
        reason = f"{seen} judged tasks of traffic are too few for a veto, {LEAST_LOG} are needed"
        return StageResult(stage="veto", passed=True, reason=reason, facts={"tasks": seen})
    found = estimate_difference(log, target)
    facts: dict[str, JsonValue] = {"gain": found.mean, "low": found.low, "high": found.high, "tasks": len(log.action)}
    words = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] against logged traffic, doubly robust"
    return StageResult(stage="veto", passed=found.high >= 0.0, reason=words, facts=facts)


def judge_shadow(test: BettingTest, *, unjudged: int = 0) -> StageResult:
    """Judge the paired calls so far. Pairs with one of the `unjudged` answers do not count."""
    facts: dict[str, JsonValue] = {"pairs": test.pairs, "gain": test.mean, "wealth": test.most_wealth}
    words = f"{test.mean:+.4f} utility over {test.pairs} tasks on which the policies disagree"
    if unjudged:
        facts["unjudged"] = unjudged
        words += f"; {unjudged} answers have no verdict, and their tasks do not count"
    verdict = "proven better" if test.is_rejected else "not proven better"
    return StageResult(stage="shadow", passed=test.is_rejected, reason=f"{verdict}: {words}", facts=facts)


def new_shadow_test() -> BettingTest:
    """Make the test of the shadow stage. Its hypothesis is that the candidate is no better."""
    return BettingTest(alpha=SHADOW_ALPHA)


def judge_canary(shortfalls: Sequence[float]) -> StageResult | None:
    """Judge a canary; None while its trial continues.

    Args:
        shortfalls: for each outcome of the canary, the incumbent's expected quality of its own choice on that task
            minus the judged quality, in [-1, 1], oldest first.
    """
    test = BettingTest(alpha=CANARY_ALPHA, bar=CANARY_LOSS)
    for shortfall in shortfalls[:CANARY_OUTCOMES]:
        test.update(shortfall)
        if test.is_rejected:
            reason = f"falls {test.mean:.3f} short of the incumbent's promise over {test.pairs} outcomes"
            return StageResult(stage="canary", passed=False, reason=reason, facts={"outcomes": test.pairs})
    if test.pairs < CANARY_OUTCOMES:
        return None
    reason = f"no harm in {test.pairs} outcomes ({-test.mean:+.3f} against the incumbent's promise)"
    return StageResult(stage="canary", passed=True, reason=reason, facts={"outcomes": test.pairs})


async def record_stage(ledger: Ledger, result: StageResult, *, checkpoint: str, incumbent: str | None) -> None:
    """Record the result of one stage."""
    staged = Staged(
        checkpoint=checkpoint,
        incumbent=incumbent,
        stage=result.stage,
        passed=result.passed,
        reason=result.reason,
        facts=result.facts,
        nth=await asyncio.to_thread(ledger.count, "staged"),
    )
    await ledger.append(staged)


def start_canary(registry: Registry, ledger: Ledger, checkpoint: str) -> Canary:
    """Give a checkpoint a share of the traffic."""
    canary = Canary(checkpoint=checkpoint, share=CANARY_SHARE, since=ledger.head())
    registry.set_canary(canary)
    return canary
