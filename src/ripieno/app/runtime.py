"""Runtime: all that one configuration and one state of the checkpoints decide and serve with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple, cast

from ripieno.analyze import Analyzer
from ripieno.app.availability import Availability
from ripieno.app.build import (
    build_boundary,
    build_conductor,
    build_directors,
    build_pool,
    build_shortener,
)
from ripieno.conductor import Brief, Decomposer
from ripieno.config import Loaded, Settings
from ripieno.domain import (
    Answer,
    Clock,
    JsonValue,
    Mode,
    Objective,
    Pool,
    RoutingSetup,
    Task,
    WorkerId,
    Workflow,
    parse_worker_id,
)
from ripieno.errors import ConfigError
from ripieno.execute import Executor, Journals
from ripieno.learn.checkpoint import Registry, read_card, read_workflows, require_shared_workers
from ripieno.ledger import Ledger
from ripieno.measure import Profiler
from ripieno.memory import Memory
from ripieno.memory.harness import Harness
from ripieno.memory.waiting import Waiting
from ripieno.orchestrator import Orchestrator, OrchestratorServices, RoutingState
from ripieno.plugins import build_plugin, find_plugins
from ripieno.privacy import Boundary
from ripieno.providers import Caller, Lanes, Leases, Provider, Residents, WorkerHealth, require_answer
from ripieno.route import PRESETS, Pacer, Policy, Predictor, Router, Scales
from ripieno.route.predictors import PriorPredictor
from ripieno.verify import Grading, Verifier
from ripieno.verify.trust import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """What outlives every runtime of an installation."""

    clock: Clock
    ledger: Ledger
    journals: Journals | None
    """The record of runs of several steps; None lets them end with this process."""
    registry: Registry
    analyzer: Analyzer
    memory: Callable[[], Memory]
    """Opens the memory at the first call."""
    health: WorkerHealth
    lanes: Lanes
    leases: Leases
    residents: Residents
    decides: bool
    """Whether tasks are to be decided; without, no checkpoint is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Serves with one configuration and one state of the checkpoints. It never changes: a reload builds another one.

    A request takes the runtime of its start, and keeps it to its end.
    """

    loaded: Loaded
    foundation: Foundation
    providers: Mapping[str, Provider]
    boundary: Boundary | None
    """What keeps sensitive text near; None where nothing is restricted."""
    caller: Caller
    grading: Callable[[], Grading]
    """Returns what grades answers; made at the first call."""
    availability: Availability
    routing: RoutingState
    pacer: Pacer | None
    harness: Harness
    """What puts memory into tasks."""
    orchestrator: Orchestrator

    @property
    def settings(self) -> Settings:
        """Return the settings."""
        return self.loaded.settings

    @property
    def pool(self) -> Pool:
        """Return the pool."""
        return self.routing.pool

    def make_objective(self, preset: str | None = None, *, preference: float | None = None) -> Objective:
        """Make the objective of a preset; by default that of the settings.

        Raises:
            ConfigError: there is no such preset.
        """
        route = self.settings.route
        name = preset or route.preset
        if name not in PRESETS:
            raise ConfigError(
                f"no preset is called {name!r}", key="route.preset", hint=f"presets: {', '.join(PRESETS)}"
            )
        chosen = PRESETS[name]
        dial = preference
        if dial is None:
            dial = route.preference if preset is None and route.preference is not None else chosen.preference
        return Objective(preference=dial, preset=name, privacy=chosen.privacy, abstain_price=route.abstain_price)

    def make_profiler(self) -> Profiler:
        """Make a profiler of these workers, which records in the ledger."""
        return Profiler(self.caller, make_grading(self.settings, self.pool, self.caller), self.foundation.ledger)


def build_runtime(
    loaded: Loaded, foundation: Foundation, providers: Mapping[str, Provider], *, former: Runtime | None = None
) -> Runtime:
    """Build a runtime. Nothing of it is in force yet, so a failure leaves no trace.

    Args:
        loaded: the configuration.
        foundation: what it is built on.
        providers: the providers of the configuration.
        former: the runtime that it replaces; the mean price of tasks is kept if their budget is unchanged.

    Raises:
        ConfigError: a setting is wrong, or a plugin or package is missing.
        CheckpointError: a checkpoint is damaged, or made for another encoder or pool.
    """
    settings, base = loaded.settings, foundation
    workers = _open_workers(loaded, base, providers)
    pool, caller = workers.pool, workers.caller
    routing = _build_routing(settings, pool, base)
    grading = _defer_grading(settings, workers, base)
    waiting = Waiting(settings.home / "memory-waiting.jsonl", base.clock)
    harness = Harness(base.memory, waiting, most_tokens=settings.memory.most_tokens)
    pacer = _build_pacer(settings, former)

    async def route_part(text: str, brief: Brief) -> WorkerId:
        """Choose who should own one part of a task, among the workers that may take the whole."""
        may = tuple(worker.id for worker in brief.roster.workers)
        objective = replace(brief.task.objective, mode=None, workers=may)
        return (await orchestrator.decide(Task.from_text(text, objective=objective))).worker

    encoder = base.analyzer.encoder
    services = OrchestratorServices(
        analyzer=base.analyzer,
        executor=_build_executor(settings, caller, grading),
        ledger=base.ledger,
        conditions=workers.availability.conditions,
        clock=base.clock,
        journals=base.journals,
        conductors={
            Mode.PLAN: build_conductor(settings, caller, encoder),
            Mode.DECOMPOSE: Decomposer(caller, route_part),
        },
        directors=build_directors(settings, encoder),
        harness=harness,
        shortener=build_shortener(settings),
        pacer=pacer,
    )
    orchestrator = Orchestrator(services, routing)
    return Runtime(
        loaded=loaded,
        foundation=base,
        providers=workers.providers,
        boundary=workers.boundary,
        caller=caller,
        grading=grading,
        availability=workers.availability,
        routing=routing,
        pacer=pacer,
        harness=harness,
        orchestrator=orchestrator,
    )


def _build_executor(settings: Settings, caller: Caller, grading: Callable[[], Grading]) -> Executor:
    return Executor(caller, grading, hedge_share=settings.route.hedge_share, resumes=settings.gateway.resume_streams)


def _defer_grading(settings: Settings, workers: "_Workers", base: Foundation) -> Callable[[], Grading]:
    """Return a function that makes the checks of answers when first asked: they open packages and files."""

    @cache
    def grading() -> Grading:
        current = base.registry.current()
        trusted = read_card(base.registry.folder / current).checks if current is not None else {}
        return make_grading(settings, workers.pool, workers.caller, trusted=trusted)

    return grading


class _Workers(NamedTuple):
    pool: Pool
    providers: Mapping[str, Provider]
    boundary: Boundary | None
    caller: Caller
    availability: Availability


def _open_workers(loaded: Loaded, base: Foundation, providers: Mapping[str, Provider]) -> _Workers:
    """Make the pool, and what reaches its workers."""
    settings = loaded.settings
    with loaded.placing():
        pool = build_pool(settings)
        _require_askable(settings, pool)
        boundary = build_boundary(settings)
        caller = Caller(
            providers, health=base.health, clock=base.clock, boundary=boundary, lanes=base.lanes, leases=base.leases
        )
        availability = Availability(
            pool,
            providers,
            health=base.health,
            lanes=base.lanes,
            clock=base.clock,
            sensitive=settings.route.sensitive,
        )
    return _Workers(pool, providers, boundary, caller, availability)


def make_router(version: str | None, pool: Pool, settings: Settings, foundation: Foundation) -> Router:
    """Make the router of a checkpoint; without one, of the worker cards alone.

    Raises:
        CheckpointError: it is damaged, or made for another encoder or pool.
    """
    predictor: Predictor = PriorPredictor()
    scales, margin = Scales(), 0.0
    learned: dict[WorkerId, Workflow] = {}
    schema = foundation.analyzer.schema
    if version is not None:
        estimator, card = foundation.registry.load_estimator(version, schema=schema)
        require_shared_workers(card, pool.ids, version=version)
        predictor, scales, margin = estimator, card.scales, estimator.checkpoint.margin
        learned = read_workflows(card)
    route = settings.route
    options: dict[str, JsonValue] = {
        "exploration": route.exploration,
        "reference_cost_usd": scales.cost_usd,
        "reference_latency_s": scales.latency_s,
        "margin": margin,
        "has_ladder": route.newcomers == "ladder",
    }
    given = options | {"rules": route.rules}
    policy = cast(Policy, build_plugin("ripieno.policies", route.policy, given, key="route"))
    judge = settings.profile.judge
    setup = RoutingSetup(
        pool=pool,
        policy=route.policy,
        options=options,
        rules=route.rules.read_text(encoding="utf-8") if route.rules is not None and route.rules.is_file() else "",
        modes=frozenset(route.modes),
        judge=WorkerId(judge) if judge is not None and judge in pool else None,
        chooses_workflows=route.chooses_modes,
        features=schema.name,
    )
    return Router(setup=setup, predictor=predictor, policy=policy, learned=learned)


def make_grading(
    settings: Settings, pool: Pool, caller: Caller, *, trusted: Mapping[str, Trust] | None = None
) -> Grading:
    """Make the graders, with installed verifiers and the configured judge.

    Args:
        settings: name the judge.
        pool: has the judge.
        caller: calls the judge.
        trusted: what findings of verifiers were worth.

    Raises:
        ConfigError: a verifier plugin is broken.
    """
    judge = settings.profile.judge
    verifiers = {
        name: cast(Verifier, build_plugin("ripieno.verifiers", name, {}, key="verifiers"))
        for name in find_plugins("ripieno.verifiers")
    }
    return Grading(
        verifiers,
        judge=parse_worker_id(judge) if judge is not None else None,
        ask=partial(_ask_judge, caller, pool),
        trusted=trusted,
    )


async def _ask_judge(caller: Caller, pool: Pool, worker: WorkerId, task: Task) -> Answer:
    """Call a worker that judges.

    Raises:
        ConfigError: its calls have effects or need approval, and no request has named it.
    """
    if pool[worker].is_restricted:
        raise ConfigError(f"{worker!r} judges nothing: its calls have effects or need approval")
    return require_answer(await caller.call(pool[worker], task)).answer


def _require_askable(settings: Settings, pool: Pool) -> None:
    """Check that no worker whose calls have effects or need approval is named for calls beside requests.

    Raises:
        ConfigError: one is; `key` names the setting.
    """
    named = {
        "profile.judge": settings.profile.judge,
        "conductor.worker": settings.conductor.worker,
        "memory.compact_worker": settings.memory.compact_worker,
        "memory.extract_worker": settings.memory.extract_worker,
    }
    for key, worker in named.items():
        if worker is not None and worker in pool and pool[worker].is_restricted:
            raise ConfigError(
                f"{key} names {worker!r}, whose calls have effects or need approval",
                key=key,
                hint="name a worker of which a call is a question and no more",
            )


def _build_routing(settings: Settings, pool: Pool, base: Foundation) -> RoutingState:
    if not base.decides:
        return RoutingState(router=make_router(None, pool, settings, base))
    canary = base.registry.canary()
    return RoutingState(
        router=make_router(base.registry.current(), pool, settings, base),
        canary=make_router(canary.checkpoint, pool, settings, base) if canary is not None else None,
        canary_share=canary.share if canary is not None else 0.0,
    )


def _build_pacer(settings: Settings, former: Runtime | None) -> Pacer | None:
    budget = settings.route.budget_usd_per_task
    if former is not None and former.settings.route.budget_usd_per_task == budget:
        return former.pacer
    return Pacer(budget) if budget is not None else None


def list_known(former: Runtime) -> Mapping[tuple[str, str], Provider]:
    """Return the providers of a runtime by name and settings, so that unchanged ones keep their connections."""
    configured = former.settings.providers
    return {(name, repr(configured[name])): provider for name, provider in former.providers.items()}
