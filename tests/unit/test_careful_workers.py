"""For any pool, policy, workflow and failure: a worker with effects is called only if it is named."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.conductor import Roster
from ripieno.domain import (
    Answer,
    Arrival,
    Binding,
    Cascade,
    Ensemble,
    Mask,
    Merge,
    Mode,
    Objective,
    Op,
    Plan,
    Pool,
    Price,
    RoutingSetup,
    Solo,
    Step,
    Task,
    Turns,
    Verified,
    Worker,
    WorkerId,
    Workflow,
    list_named,
)
from ripieno.domain.grader import Agreement, Check, Exact, Judge
from ripieno.errors import ProviderTimeout, RipienoError
from ripieno.execute import Executor, Started, Turn
from ripieno.providers import Caller, Piece, WorkerHealth
from ripieno.providers.base import stream_whole
from ripieno.route import Conditions, Router, UtilityPolicy
from ripieno.route.choose import DecisionRule
from ripieno.route.policies import Policy
from ripieno.route.policies.rules import Rule, RulePolicy
from ripieno.route.predictors import PriorPredictor
from ripieno.testing import FixedClock
from ripieno.testing.conformance import make_features
from ripieno.verify import Grading

IDS = tuple(WorkerId(name) for name in "abcde")
LEARNED = WorkerId("cascade:learned")
TASK = Task.from_text("Say hello")
_some = st.lists(st.sampled_from(IDS), max_size=4, unique=True).map(tuple)
_one = st.sampled_from(IDS)
_checks: st.SearchStrategy[Check] = st.one_of(
    st.just(Exact(answers=("hello",))),
    st.builds(Agreement, peer=_one),
    st.builds(Judge, rubric=st.just("5 is best"), worker=st.none() | _one),
)


@dataclass(slots=True)
class Recording:
    """A provider in this process: some workers fail, and it records the called ones."""

    failing: frozenset[str]
    called: list[WorkerId] = field(default_factory=list)
    can_stream: bool = False

    async def complete(self, worker: Worker, task: Task) -> Answer:
        self.called.append(worker.id)
        if worker.id in self.failing:
            raise ProviderTimeout("late", worker=worker.id)
        return Answer(text=f"from {worker.id}")

    async def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        async for piece in stream_whole(await self.complete(worker, task)):
            yield piece

    async def check(self, worker: Worker) -> str:
        return "here"

    async def close(self) -> None:
        """There is nothing to release."""


@dataclass(frozen=True, slots=True)
class Random:
    """A director that gives each turn to a random worker of its roster."""

    roster: Roster
    seed: int

    async def choose(self, seen: Sequence[Turn]) -> Step | None:
        rng = np.random.default_rng(self.seed + len(seen))
        worker = self.roster.workers[int(rng.integers(len(self.roster)))].id
        ops = [Op.SOLVE, Op.EXTRACT] if not seen else [Op.SOLVE, Op.TRANSFORM, Op.MERGE]
        return Step(worker=worker, op=ops[int(rng.integers(len(ops)))], access=(len(seen) - 1,) if seen else ())


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    size = draw(st.integers(1, len(IDS)))
    return Pool(
        tuple(
            Worker(
                id=name,
                binding=Binding(provider="p", model=name),
                price=Price(usd_per_call=draw(st.sampled_from([0.0, 1e-6, 1.0]))),
                family=draw(st.sampled_from(["", "f"])),
                is_tool=draw(st.booleans()),
                has_effects=draw(st.booleans()),
                needs_approval=draw(st.integers(0, 3)) == 0,
            )
            for name in IDS[:size]
        )
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    steps: list[Step] = []
    for place in range(draw(st.integers(1, 4))):
        access = (place - 1,) if place and draw(st.booleans()) else ()
        steps.append(Step(worker=draw(_one), op=Op.MERGE if access else Op.SOLVE, access=access))
    return Plan(steps=tuple(steps), fallbacks=draw(_some))


_pairs = st.lists(_one, min_size=2, max_size=4).map(tuple)
_workflows: st.SearchStrategy[Workflow] = st.one_of(
    st.builds(Solo, worker=_one, fallbacks=_some),
    st.builds(Cascade, stages=_pairs, check=_checks, fallbacks=_some),
    st.builds(Verified, worker=_one, check=_checks, fallbacks=_some),
    st.builds(Ensemble, members=_pairs, merge=st.just(Merge.VOTE), fallbacks=_some),
    st.builds(Ensemble, members=_pairs, merge=st.just(Merge.BEST), check=_checks, fallbacks=_some),
    st.builds(Ensemble, members=_pairs, merge=st.just(Merge.SYNTHESIZE), arbiter=_one, fallbacks=_some),
    st.builds(Turns, worker=_one, fallbacks=_some, most=st.integers(1, 4)),
    plans(),
)
_objectives = st.builds(
    Objective,
    preference=st.sampled_from([0.0, 0.5, 1.0]),
    mode=st.none() | st.sampled_from(list(Mode)),
    workers=st.just(()) | _some,
    allowed=st.just(()) | _some,
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    utility = UtilityPolicy(DecisionRule(exploration=draw(st.sampled_from([0.0, 0.19]))))
    wanted = draw(_some)
    return RulePolicy([Rule(workers=list(wanted))], otherwise=utility) if wanted else utility


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a task meets."""

    pool: Pool
    router: Router
    arrival: Arrival
    task: Task
    failing: frozenset[str]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    learned = draw(st.none() | st.builds(Cascade, stages=_pairs, check=st.builds(Agreement, peer=_one)))
    pool = draw(pools())
    router = Router(
        setup=RoutingSetup(pool=pool, judge=draw(st.none() | _one)),
        predictor=PriorPredictor(),
        policy=draw(policies()),
        learned={} if learned is None else {LEARNED: learned},
    )
    workflow = draw(st.none() | _workflows)
    arrival = Arrival(
        id="d", seed=draw(st.integers(0, 1000)), started=0.0, workflow=workflow,
        incumbent=draw(st.none() | _one), check=draw(st.none() | _checks),
    )  # fmt: skip
    task = Task(messages=TASK.messages, objective=draw(_objectives))
    return World(pool, router, arrival, task, frozenset(draw(_some)))


async def carry(world: World, *, is_stream: bool) -> list[WorkerId]:
    """Decide and run a task. Return the called workers."""
    clock, provider = FixedClock(), Recording(world.failing)
    caller = Caller({"p": provider}, health=WorkerHealth(clock), clock=clock)
    today = Conditions(today=date(2026, 11, 22))
    with suppress(RipienoError):
        inputs = world.router.gather(world.task, make_features(), today, arrival=world.arrival)
        decision = world.router.decide(inputs)
        director = make_director(world, decision.mask)
        started = Started(decision=decision, task=world.task, setup=inputs.setup, director=director)
        if isinstance(decision.workflow, Turns) and director is None:
            return []
        executor = Executor(caller, lambda: Grading({}), hedge_share=1.0)
        if is_stream:
            async for _ in executor.stream(started):
                pass
        else:
            await executor.execute(started)
    return provider.called


def make_director(world: World, mask: Mask) -> Random | None:
    roster = Roster.draw(world.pool, mask.eligible, np.random.default_rng(0))
    return Random(roster, world.arrival.seed) if len(roster) else None


@settings(max_examples=400, deadline=None)
@given(world=worlds(), is_stream=st.booleans())
def test_no_unnamed_worker_with_effects_is_ever_called(world: World, is_stream: bool) -> None:
    named: set[str] = {*world.task.objective.workers}
    if world.arrival.workflow is not None:
        named |= {*list_named(world.arrival.workflow)}
    called = asyncio.run(carry(world, is_stream=is_stream))
    careful = {worker.id for worker in world.pool if worker.is_restricted}
    assert careful & {*called} <= named
    if world.arrival.workflow is None and world.task.objective.mode is not Mode.TURNS:
        for worker in careful:
            assert called.count(worker) <= 1, "neither sampled, nor asked to mend, nor asked again"
