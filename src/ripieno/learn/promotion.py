"""Promotion: from saved to in traffic by four proofs, each a ledger entry; the first that fails ends it.

replay   both policies on frozen held-out tasks with all outcomes: not worse, and in no slice much worse
veto     doubly robust on logged traffic: no proof of harm
shadow   both chosen workers asked where the policies disagree: proven better, by a test that may stop at any pair
canary   a small share of the traffic; rolled back at once when outcomes fall short of what the old one promises
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
"""Utility that the lower 95 % bound may lie below the incumbent."""
SLICE_LOSS = 0.02
LEAST_SLICE = 20
LEAST_LOG = 100
SHADOW_ALPHA = 0.02
MOST_PAIRS = 800
CANARY_SHARE = 0.05
CANARY_ALPHA = 0.05
CANARY_LOSS = 0.02
"""Quality that a canary may fall short of what the incumbent promises on the same tasks."""
CANARY_OUTCOMES = 200
"""Outcomes without an alarm after which a canary takes over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one stage found."""

    stage: str
    passed: bool
    reason: str
    facts: Mapping[str, JsonValue]


def judge_replay(
    candidate: Matrix, incumbent: Matrix, *, slices: Sequence[str], groups: "np.ndarray", seed: int = 0
) -> Finding:
    """Hold two policies against each other on tasks with all outcomes.

    Args:
        candidate: utility earned on each task, shape (n,).
        incumbent: the same of the policy in traffic.
        slices: protected slice of each task.
        groups: tasks of one group are drawn together.
        seed: of the bootstrap.
    """
    gain = candidate - incumbent
    interval = bootstrap_mean(gain, rng=np.random.default_rng(seed), groups=groups)
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
        return Finding(stage="replay", passed=False, reason=reason, facts=facts)
    if worst and losses[worst] < -SLICE_LOSS:
        reason = f"loses {-losses[worst]:.4f} utility on tasks of kind {worst!r}"
        return Finding(stage="replay", passed=False, reason=reason, facts=facts | {"slice": worst})
    reason = f"gains {interval.mean:+.4f} utility [{interval.low:+.4f}, {interval.high:+.4f}] on held-out tasks"
    return Finding(stage="replay", passed=True, reason=reason, facts=facts)


def compare(
    bench: Benchmark,
    candidate: Checkpoint,
    incumbent: Checkpoint,
    *,
    objective: Objective,
    rules: tuple[DecisionRule, DecisionRule],
) -> Finding:
    """Replay two checkpoints on the held-out tasks of a data set.

    Args:
        bench: the data set, cut; its scales measure both.
        candidate: what may go into traffic.
        incumbent: what is in traffic.
        objective: what the caller wants.
        rules: the rules that choose by the candidate and by the incumbent.

    Raises:
        CheckpointError: one of them does not know a worker of the data set.
    """
    return judge_replay(
        routed_utility(bench, candidate, objective, rule=rules[0]),
        routed_utility(bench, incumbent, objective, rule=rules[1]),
        slices=bench.held_out.kinds,
        groups=bench.held_out.groups,
    )


def judge_harm(log: Logged | None, target: Matrix | None) -> Finding:
    """Veto a policy that logged traffic proves to be worse; little traffic proves nothing.

    Args:
        log: logged decisions with outcomes.
        target: the candidate's probability of each worker, shape (n, m).
    """
    if log is None or target is None or len(log.action) < LEAST_LOG:
        seen = 0 if log is None else len(log.action)
        reason = f"{seen} judged tasks of traffic are too few for a veto, {LEAST_LOG} are needed"
        return Finding(stage="veto", passed=True, reason=reason, facts={"tasks": seen})
    found = estimate_difference(log, target)
    facts: dict[str, JsonValue] = {"gain": found.mean, "low": found.low, "high": found.high, "tasks": len(log.action)}
    words = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] against logged traffic, doubly robust"
    return Finding(stage="veto", passed=found.high >= 0.0, reason=words, facts=facts)


def judge_shadow(test: BettingTest, *, unjudged: int = 0) -> Finding:
    """What paired calls have shown so far; `unjudged` answers had no verdict, and their pairs do not count."""
    facts: dict[str, JsonValue] = {"pairs": test.pairs, "gain": test.mean, "wealth": test.most_wealth}
    words = f"{test.mean:+.4f} utility over {test.pairs} tasks on which the policies disagree"
    if unjudged:
        facts["unjudged"] = unjudged
        words += f"; {unjudged} answers have no verdict, and their tasks do not count"
    if test.is_rejected:
        return Finding(stage="shadow", passed=True, reason=f"proven better: {words}", facts=facts)
    return Finding(stage="shadow", passed=False, reason=f"not proven better: {words}", facts=facts)


def new_shadow_test() -> BettingTest:
    """The test of the shadow stage: the candidate is no better where it disagrees."""
    return BettingTest(alpha=SHADOW_ALPHA)


def judge_canary(shortfalls: Sequence[float]) -> Finding | None:
    """Decide the fate of a canary; None while it goes on.

    Args:
        shortfalls: for each outcome of the canary, the quality that the incumbent promises of its own choice on that
            task minus the quality met, in [-1, 1], oldest first.
    """
    test = BettingTest(alpha=CANARY_ALPHA, bar=CANARY_LOSS)
    for shortfall in shortfalls[:CANARY_OUTCOMES]:
        test.update(shortfall)
        if test.is_rejected:
            reason = f"falls {test.mean:.3f} short of the incumbent's promise over {test.pairs} outcomes"
            return Finding(stage="canary", passed=False, reason=reason, facts={"outcomes": test.pairs})
    if test.pairs < CANARY_OUTCOMES:
        return None
    reason = f"no harm in {test.pairs} outcomes ({-test.mean:+.3f} against the incumbent's promise)"
    return Finding(stage="canary", passed=True, reason=reason, facts={"outcomes": test.pairs})


async def record_finding(ledger: Ledger, finding: Finding, *, checkpoint: str, incumbent: str | None) -> None:
    """Record what one stage found."""
    staged = Staged(
        checkpoint=checkpoint,
        incumbent=incumbent,
        stage=finding.stage,
        passed=finding.passed,
        reason=finding.reason,
        facts=finding.facts,
        nth=await asyncio.to_thread(ledger.count, "staged"),
    )
    await ledger.append(staged)


def start_canary(registry: Registry, ledger: Ledger, checkpoint: str) -> Canary:
    """Give a checkpoint its first share of the traffic."""
    canary = Canary(checkpoint=checkpoint, share=CANARY_SHARE, since=ledger.head())
    registry.set_canary(canary)
    return canary
