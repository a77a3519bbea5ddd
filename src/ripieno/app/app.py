"""App: builds every object from Settings, swaps pool and checkpoint when their files change, and closes it all."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cached_property
from types import TracebackType
from typing import Self, cast

from ripieno.analyze import Analyzer
from ripieno.app.build import (
    build_boundary,
    build_conductor,
    build_directors,
    build_encoder,
    build_memory,
    build_pool,
    build_providers,
    build_shortener,
    find_unavailable,
    make_outbox,
    prepare_home,
    stat_file,
)
from ripieno.app.learning import Learning
from ripieno.app.runs import Runs
from ripieno.conductor import Brief, Conductor, Decomposer
from ripieno.config import Loaded, Settings, load_settings
from ripieno.domain import (
    Answer,
    Clock,
    JsonValue,
    Mode,
    Objective,
    Pool,
    RoutingSetup,
    SystemClock,
    Task,
    WorkerId,
    Workflow,
    parse_worker_id,
)
from ripieno.encoders import CachedEncoder, GuardedEncoder
from ripieno.errors import CheckpointError, ConfigError, RipienoError
from ripieno.execute import Executor, Journals
from ripieno.learn.checkpoint import Registry, read_card, read_workflows, require_shared_workers
from ripieno.learn.criticality import load_criticality
from ripieno.ledger import HASTE_S, PATIENT_S, Ledger
from ripieno.loops import Loop
from ripieno.measure import Prober, Profiler
from ripieno.memory import Memory
from ripieno.memory.harness import Harness
from ripieno.memory.waiting import Waiting
from ripieno.orchestrator import Orchestrator, OrchestratorServices, RoutingState
from ripieno.plugins import build_plugin, find_plugins
from ripieno.privacy import Boundary
from ripieno.providers import Caller, Provider, Residents, WorkerHealth, require_answer
from ripieno.route import (
    PRESETS,
    Conditions,
    Pacer,
    Policy,
    Predictor,
    Router,
    Scales,
    find_able,
)
from ripieno.route.predictors import Estimator, PriorPredictor
from ripieno.verify import Grading, Verifier
from ripieno.verify.trust import Trust

log = logging.getLogger(__name__)

DAY_S = 86_400
FOLLOW_S = 2.0
"""Seconds between two looks for what other processes have recorded."""

Stamp = tuple[tuple[int, int] | None, ...]


class App:
    """One installation, opened.

    Use as an async context manager; nothing outlives it.

    Args:
        loaded: the settings; those of the current folder if not given.
        clock: the time.
        decides: whether tasks are to be decided; without, the checkpoint in traffic is not loaded, and need not fit.
    """

    def __init__(self, loaded: Loaded | None = None, *, clock: Clock | None = None, decides: bool = True) -> None:
        self.loaded = loaded or load_settings()
        self.clock = clock or SystemClock()
        prepare_home(self.settings)
        self._boundary = build_boundary(self.settings)
        self.registry = Registry(self.settings.home / "checkpoints")
        self.reload_fault: str | None = None
        """Why the latest change of a file was not taken, if it was not."""
        memory = self.settings.pool.memory_mb
        self.residents = Residents(memory * 1_000_000 if memory is not None else None)
        self._providers = build_providers(self.loaded, known={}, residents=self.residents)
        self._retired: list[Provider] = []
        """Providers that a reload replaced: calls under way may still use them."""
        self.health = WorkerHealth(self.clock)
        self.caller = Caller(self._providers, health=self.health, clock=self.clock, boundary=self.boundary)
        encoder = CachedEncoder(GuardedEncoder(build_encoder(self.loaded), self.boundary))
        self.analyzer = Analyzer(
            encoder,
            criticality=load_criticality(self.settings.home, encoder=encoder.name),
            boundary=self.boundary,
        )
        watched = (self.loaded.path, self.registry.pointer, self.registry.canary_pointer)
        self._watched = tuple(map(str, watched))
        """Files whose change is noticed between two tasks: plain names, as they are looked at for each one."""
        self._stamp = self._read_stamp()
        self._decides = decides
        self._brain = self._build_brain(self.loaded)
        with self.loaded.placing():
            self._unavailable = find_unavailable(self._brain.pool, self._providers)
        self.ledger = Ledger(
            self.settings.ledger.url,
            clock=self.clock,
            outbox=make_outbox(self.settings),
            patience_s=HASTE_S if decides else PATIENT_S,
        )
        durable = self.settings.ledger.durable_runs
        self.journals = Journals(self.ledger, self.clock) if durable else None
        self._grading: tuple[Loaded, Grading] | None = None
        budget = self.settings.route.budget_usd_per_task
        services = OrchestratorServices(
            analyzer=self.analyzer,
            executor=Executor(self.caller, self.grading, hedge_share=self.settings.route.hedge_share),
            ledger=self.ledger,
            conditions=self.conditions,
            clock=self.clock,
            journals=self.journals,
            conductors=self._make_conductors(),
            directors=build_directors(self.settings, self.analyzer.encoder),
            harness=lambda: self.harness,
            shortener=build_shortener(self.settings),
            pacer=Pacer(budget) if budget is not None else None,
        )
        self._today = (0, date.min)
        self.look_every_s = 0.0
        """Between two looks at the files that decide; 0 looks before each task."""
        self._looked_at = 0.0
        self.learning = Loop("learning", every_s=FOLLOW_S, clock=self.clock)
        """The record of learning beside requests."""
        self._learning = Learning(self.ledger, self.analyzer, self.registry)
        self.replays = self._learning.replays
        self.orchestrator = Orchestrator(services, self.brain)
        self.runs = Runs(self.orchestrator, self.journals, self.ledger, self.clock)

    async def __aenter__(self) -> Self:
        await self.catch_up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close providers, encoder and ledger."""
        await self.runs.close()
        with suppress(asyncio.CancelledError):
            await self.caller.close()
            for provider in self._retired:
                await provider.close()
        await self.analyzer.encoder.close()
        self.ledger.close()
        if self.has_memory:
            self.memory.close()

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.loaded.settings

    @property
    def pool(self) -> Pool:
        """The pool in force."""
        return self.brain().pool

    def brain(self) -> RoutingState:
        """Pool and router of this moment; a changed file is taken whole, or not at all."""
        if self.look_every_s:
            now = self.clock.monotonic()
            if now - self._looked_at < self.look_every_s:
                return self._brain
            self._looked_at = now
        stamp = self._read_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self._reload()
        return self._brain

    async def catch_up(self) -> list[str]:
        """Fold in what traffic and probes have shown since; gives the changes of workers that were noticed.

        Called again it goes on where it was. Outcomes of workers that have changed or left are passed over.
        """
        return await self._learning.catch_up(self.brain())

    async def prepare(self, version: str) -> int:
        """Fold what traffic has shown into a checkpoint ahead of its first start, which goes on from there."""
        estimator, _ = self.registry.load_estimator(version, schema=self.analyzer.schema)
        estimator, _ = await self._learning.fold(estimator, self.pool)
        return estimator.state.folded

    async def refresh(self) -> None:
        """Find out anew which workers are unavailable, and fold in what other processes have recorded.

        Raises:
            PredictorError: the predictor in traffic learns nothing.
        """
        self._unavailable = find_unavailable(self.pool, self._providers)
        await self.catch_up()
        if self._learning.fault is not None:
            raise self._learning.fault

    def boundary(self) -> Boundary | None:
        """What keeps sensitive text near at this moment; None where nothing is restricted."""
        return self._boundary

    def conditions(self) -> Conditions:
        """Health and limits of this moment."""
        return Conditions(
            today=self._find_today(),
            unavailable=self._unavailable,
            unhealthy=self.health.unhealthy(),
            rate_limited={**self.health.rate_limited(), **self.caller.crowded()},
            load=self.caller.load(),
            sensitive=self.settings.route.sensitive,
        )

    def able(self) -> tuple[WorkerId, ...]:
        """Find the workers that can serve now: not muted, deprecated, unavailable or resting after failures."""
        return find_able(self.pool, self.conditions())

    def _find_today(self) -> date:
        day = int(self.clock.now() // DAY_S)
        if self._today[0] != day:
            self._today = (day, datetime.fromtimestamp(day * DAY_S, tz=UTC).date())
        return self._today[1]

    def make_objective(self, preset: str | None = None, *, preference: float | None = None) -> Objective:
        """The objective of a preset, or of the settings where none is named.

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
        return Objective(
            preference=dial, preset=name, privacy=chosen.privacy, abstain_price=self.settings.route.abstain_price
        )

    def make_profiler(self) -> Profiler:
        """A profiler on this app's workers and ledger."""
        return Profiler(self.caller, self.make_grading(), self.ledger)

    def make_prober(self) -> Prober:
        """A prober on what the checkpoint in traffic believes.

        Raises:
            ConfigError: no checkpoint decides yet, so there is nothing to hold a new worker against.
        """
        router = self.brain().router
        if router.estimator is None:
            raise ConfigError(
                "no checkpoint decides yet: a new worker cannot be held against the others",
                hint="measure the pool and train: `ripieno profile TASKS`, `ripieno train`",
            )
        return Prober(self.make_profiler(), self.analyzer, self._learn_now)

    async def _learn_now(self) -> Estimator:
        """Fold in what has come since; return what decides.

        Raises:
            PredictorError: the predictor cannot learn.
            CheckpointError: the checkpoint in traffic is gone.
        """
        await self.catch_up()
        estimator = self.brain().router.estimator
        if self._learning.fault is not None:
            raise self._learning.fault
        if estimator is None:
            raise CheckpointError("no checkpoint decides any more", hint="`ripieno policy list`")
        return estimator

    def _make_conductors(self) -> dict[Mode, Conductor]:
        """Who writes plans."""
        return {
            Mode.PLAN: build_conductor(self.settings, self.caller, self.analyzer.encoder),
            Mode.DECOMPOSE: Decomposer(self.caller, self._route_part),
        }

    async def _route_part(self, text: str, brief: Brief) -> WorkerId:
        """Who should own one part of a task: one of those that may take the whole."""
        may = tuple(worker.id for worker in brief.roster.workers)
        objective = replace(brief.task.objective, mode=None, workers=may)
        decision = await self.orchestrator.decide(Task.from_text(text, objective=objective))
        return decision.worker

    @property
    def has_memory(self) -> bool:
        """Whether memory was asked for since the start."""
        return "memory" in self.__dict__

    @cached_property
    def memory(self) -> Memory:
        """What is remembered; opened when it is first asked for."""
        return build_memory(self.settings, self.analyzer.encoder, self.clock)

    @cached_property
    def harness(self) -> Harness:
        """What puts memory into tasks."""
        waiting = Waiting(self.settings.home / "memory-waiting.jsonl", self.clock)
        return Harness(lambda: self.memory, waiting, most_tokens=self.settings.memory.most_tokens)

    def grading(self) -> Grading:
        """Graders of the settings in force; see `make_grading`."""
        if self._grading is None or self._grading[0] is not self.loaded:
            current = self.registry.current()
            trusted = read_card(self.registry.folder / current).checks if current is not None else {}
            self._grading = (self.loaded, self.make_grading(trusted))
        return self._grading[1]

    def make_grading(self, trusted: Mapping[str, Trust] | None = None) -> Grading:
        """Graders, with installed verifiers and the configured judge.

        Args:
            trusted: what findings of verifiers were worth.

        Raises:
            ConfigError: the judge is no worker of the pool.
        """
        judge = self.settings.profile.judge
        if judge is not None and self.pool[judge].is_careful:
            raise ConfigError(
                f"profile.judge names {judge!r}, whose calls have effects or need approval",
                key="profile.judge",
                hint="name a worker of which a call is a question and no more",
            )
        verifiers = {
            name: cast(Verifier, build_plugin("ripieno.verifiers", name, {}, key="verifiers"))
            for name in find_plugins("ripieno.verifiers")
        }
        return Grading(
            verifiers,
            judge=parse_worker_id(judge) if judge is not None else None,
            ask=self._ask,
            trusted=trusted,
        )

    async def _ask(self, worker: WorkerId, task: Task) -> Answer:
        """Ask a worker where no workflow is under way.

        Raises:
            ConfigError: its calls have effects or need approval, and nobody named it for that.
        """
        if self.pool[worker].is_careful:
            raise ConfigError(f"{worker!r} judges nothing: its calls have effects or need approval")
        return require_answer(await self.caller.call(self.pool[worker], task)).answer

    def _read_stamp(self) -> Stamp:
        return (stat_file(self._watched[0]), stat_file(self._watched[1]), stat_file(self._watched[2]))

    def _reload(self) -> None:
        try:
            loaded = self.loaded.reload()
            providers = build_providers(loaded, known=self._known_providers(), residents=self.residents)
            brain = self._build_brain(loaded)
            with loaded.placing():
                unavailable = find_unavailable(brain.pool, providers)
            boundary = build_boundary(loaded.settings)
        except RipienoError as error:
            self.reload_fault = error.message
            log.warning("a changed file was not taken, the old pool stays: %s", error.message)
            return
        kept = set(map(id, providers.values()))
        self._retired.extend(provider for provider in self._providers.values() if id(provider) not in kept)
        self._providers.clear()
        self._providers.update(providers)
        self.loaded, self._brain, self.reload_fault = loaded, brain, None
        self._unavailable = unavailable
        self._boundary = boundary

    def _known_providers(self) -> Mapping[tuple[str, str], Provider]:
        configured = self.settings.providers
        return {(name, repr(configured[name])): provider for name, provider in self._providers.items()}

    def _build_brain(self, loaded: Loaded) -> RoutingState:
        with loaded.placing():
            pool = build_pool(loaded.settings)
        if not self._decides:
            return RoutingState(router=self.make_router(None, pool, loaded.settings))
        canary = self.registry.canary()
        return RoutingState(
            router=self.make_router(self.registry.current(), pool, loaded.settings),
            canary=self.make_router(canary.checkpoint, pool, loaded.settings) if canary is not None else None,
            canary_share=canary.share if canary is not None else 0.0,
        )

    def make_router(self, version: str | None, pool: Pool, settings: Settings) -> Router:
        """The router of a checkpoint; without one, of the worker cards alone.

        Raises:
            CheckpointError: it is damaged, or made for another encoder or pool.
        """
        predictor: Predictor = PriorPredictor()
        scales, margin = Scales(), 0.0
        learned: dict[WorkerId, Workflow] = {}
        if version is not None:
            estimator, card = self.registry.load_estimator(version, schema=self.analyzer.schema)
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
            features=self.analyzer.schema.name,
        )
        return Router(setup=setup, predictor=predictor, policy=policy, learned=learned)
