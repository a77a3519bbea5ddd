"""Installation: opens what outlives a change of the configuration, and swaps the runtime when a file changes."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from ripieno.analyze import Analyzer
from ripieno.app.build import (
    build_encoder,
    build_memory,
    build_pool,
    build_providers,
    make_outbox,
    prepare_home,
)
from ripieno.app.learning import Learning
from ripieno.app.runs import Runs
from ripieno.app.runtime import Foundation, Runtime, build_runtime, list_known
from ripieno.app.watch import Watch
from ripieno.config import Loaded, load_settings
from ripieno.domain import Clock, SystemClock
from ripieno.encoders import CachedEncoder, GuardedEncoder
from ripieno.errors import CheckpointError, RipienoError
from ripieno.execute import Journals
from ripieno.learn.checkpoint import Registry
from ripieno.learn.criticality import load_criticality
from ripieno.ledger import HASTE_S, PATIENT_S, Ledger
from ripieno.loops import Loop
from ripieno.memory import Memory
from ripieno.privacy import Boundary
from ripieno.providers import Lanes, Leases, Residents, WorkerHealth
from ripieno.route.predictors import Estimator

log = logging.getLogger(__name__)

FOLLOW_S = 2.0
"""Seconds between two looks for what other processes have recorded."""


class Installation:
    """One installation, opened.

    Use as an async context manager; nothing outlives it.

    Args:
        loaded: the configuration; by default that of the current folder.
        clock: the time.
        decides: whether tasks are to be decided; without, the checkpoint in traffic is not loaded, and need not fit.
    """

    def __init__(self, loaded: Loaded | None = None, *, clock: Clock | None = None, decides: bool = True) -> None:
        loaded = loaded or load_settings()
        settings = loaded.settings
        self.clock = clock or SystemClock()
        prepare_home(settings)
        encoder = CachedEncoder(GuardedEncoder(build_encoder(loaded), self._boundary))
        criticality = load_criticality(settings.home, encoder=encoder.name)
        self.analyzer = Analyzer(encoder, criticality=criticality, boundary=self._boundary)
        self.registry = Registry(settings.home / "checkpoints")
        memory_mb = settings.pool.memory_mb
        residents = Residents(memory_mb * 1_000_000 if memory_mb is not None else None)
        with loaded.placing():
            build_pool(settings)
        providers = build_providers(loaded, known={}, residents=residents)  # a mistake leaves no ledger
        patience_s = HASTE_S if decides else PATIENT_S
        outbox = make_outbox(settings)
        self.ledger = Ledger(settings.ledger.url, clock=self.clock, outbox=outbox, patience_s=patience_s)
        self.journals = Journals(self.ledger, self.clock) if settings.ledger.durable_runs else None
        self.health = WorkerHealth(self.clock)
        self._foundation = Foundation(
            clock=self.clock,
            ledger=self.ledger,
            journals=self.journals,
            registry=self.registry,
            analyzer=self.analyzer,
            memory=lambda: self.memory,
            health=self.health,
            lanes=Lanes(),
            leases=Leases(),
            residents=residents,
            decides=decides,
        )
        self._files = Watch(_list_files(loaded))
        self._checkpoints = Watch([self.registry.pointer, self.registry.canary_pointer])
        self._file_fault: str | None = None
        self._checkpoint_fault: str | None = None
        self.reload_check_interval_s = 0.0
        """Seconds between two looks at the files; 0 looks whenever the runtime is asked for."""
        self._looked_at = 0.0
        try:
            self._runtime = build_runtime(loaded, self._foundation, providers)
        except RipienoError:
            self.ledger.close()
            raise
        self.learning = Loop("learning", every_s=FOLLOW_S, clock=self.clock)
        """The record of learning beside requests."""
        self._learning = Learning(self.ledger, self.analyzer, self.registry)
        self.replays = self._learning.replays
        self.runs = Runs(lambda: self.runtime.orchestrator, self.journals, self.ledger, self.clock)

    async def __aenter__(self) -> Self:
        await self.catch_up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close providers, encoder, ledger and memory."""
        await self.runs.close()
        with suppress(asyncio.CancelledError):
            await self._runtime.caller.close()
            await self._foundation.leases.close()
        await self.analyzer.encoder.close()
        self.ledger.close()
        if self.has_memory:
            self.memory.close()

    @property
    def runtime(self) -> Runtime:
        """Return the runtime in force. A changed file is taken whole, or not at all."""
        now = self.clock.monotonic()
        if not self.reload_check_interval_s or now - self._looked_at >= self.reload_check_interval_s:
            self._looked_at = now
            self._follow_files()
        return self._runtime

    @property
    def reload_fault(self) -> str | None:
        """Return why the latest change of a file was refused; None if none was."""
        return self._file_fault or self._checkpoint_fault

    async def catch_up(self) -> list[str]:
        """Learn from what traffic and probes have shown since; return the changes of workers that were noticed.

        Called again it continues where it was. Outcomes of workers that have changed or left do not count.
        """
        return await self._learning.catch_up(self.runtime.routing)

    async def learn_now(self) -> Estimator:
        """Learn from what has come since; return what decides.

        Raises:
            PredictorError: the predictor cannot learn.
            CheckpointError: the checkpoint in traffic is gone.
        """
        await self.catch_up()
        if self._learning.fault is not None:
            raise self._learning.fault
        estimator = self.runtime.routing.router.estimator
        if estimator is None:
            raise CheckpointError("no checkpoint decides any more", hint="`ripieno policy list`")
        return estimator

    async def prepare(self, version: str) -> int:
        """Fold what traffic has shown into a checkpoint ahead of its first start, which goes on from there."""
        estimator, _ = self.registry.load_estimator(version, schema=self.analyzer.schema)
        estimator, _ = await self._learning.fold(estimator, self.runtime.pool)
        return estimator.state.folded

    async def refresh(self) -> None:
        """Find again which workers are unavailable, and learn from what other processes have recorded.

        Raises:
            PredictorError: the predictor in traffic learns nothing.
        """
        self.runtime.availability.refresh()
        await self.catch_up()
        if self._learning.fault is not None:
            raise self._learning.fault

    @property
    def has_memory(self) -> bool:
        """Return whether memory was asked for since the start."""
        return "memory" in self.__dict__

    @cached_property
    def memory(self) -> Memory:
        """Return the memory; it is opened when it is first asked for, so that an outage can end by itself."""
        return build_memory(self._runtime.settings, self.analyzer.encoder, self.clock)

    def _boundary(self) -> Boundary | None:
        return self._runtime.boundary

    def _follow_files(self) -> None:
        """Swap the runtime if a file has changed; a refused configuration does not hold up a checkpoint."""
        is_file_new, is_checkpoint_new = self._files.has_changed(), self._checkpoints.has_changed()
        if is_file_new or (is_checkpoint_new and self._file_fault is not None):
            self._file_fault = self._swap(self._runtime.loaded.reload)
            if self._file_fault is None:
                self._checkpoint_fault = None
                return
        if is_checkpoint_new:
            self._checkpoint_fault = self._swap(lambda: self._runtime.loaded)

    def _swap(self, load: Callable[[], Loaded]) -> str | None:
        """Build a runtime and put it in force; return why the old one stays, if it does."""
        former = self._runtime
        try:
            loaded = load()
            residents = self._foundation.residents
            providers = build_providers(loaded, known=list_known(former), residents=residents)
            runtime = build_runtime(loaded, self._foundation, providers, former=former)
        except RipienoError as error:
            log.warning("a changed file was not taken, the old runtime stays: %s", error.message)
            return error.message
        self._runtime = runtime
        log.info("the changed configuration is in force: %d workers", len(runtime.pool))
        self._files.follow(_list_files(loaded))
        kept = set(map(id, runtime.providers.values()))
        self._foundation.leases.retire(p for p in former.providers.values() if id(p) not in kept)
        return None


def _list_files(loaded: Loaded) -> list[Path]:
    """List the files whose change changes the runtime."""
    rules = loaded.settings.route.rules
    return [loaded.path] if rules is None else [loaded.path, rules]
