"""Background work for memory: its canary, and the extraction of facts from conversations."""

import asyncio
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ripieno.app.build import has_memory_file
from ripieno.app.installation import Installation
from ripieno.domain import Budget, Reason, Task
from ripieno.domain.memory import Scope
from ripieno.errors import BudgetExhausted, MemoryUnavailable, NoEligibleWorker
from ripieno.ledger.keys import find_owner
from ripieno.memory.extract import Extracted, extract
from ripieno.privacy.files import make_folder, make_private

MOST_TURNS = 200
"""Most turns of one extraction."""
_LIMITS = (Reason.NOT_ALLOWED, Reason.OVER_BUDGET, Reason.UNKNOWN_PRICE, Reason.PRIVACY)
"""Reasons that a key's limits give. Others, such as an outage, end by themselves."""

log = logging.getLogger(__name__)


async def extract_facts(app: Installation, *, worker: str, most: int) -> Extracted | None:
    """Extract facts from new turns; None if another process is extracting.

    The worker `auto` is the router's choice. The key whose memory holds the turns pays, and its limits apply: turns of
    a key that does not allow the worker, or has no money left for it, are skipped.

    Raises:
        RipienoError: no worker answers, or memory is unavailable. The next call continues from here.
    """
    with _alone(app.runtime.settings.home / "extract.lock") as is_alone:
        if not is_alone:
            return None

        async def write(task: Task, scope: Scope) -> str | None:
            owner = find_owner(scope.project)
            if owner is None:
                return await app.runtime.orchestrator.generate_text(task, worker)
            return await _write_for_key(app, task, worker, owner=owner)

        return await extract(app.memory, write, most=most)


async def _write_for_key(app: Installation, task: Task, worker: str, *, owner: str) -> str | None:
    """Call a worker for turns of a key's memory, within the limits of the key; None if they do not allow it."""
    store = app.ledger.keys
    key = await asyncio.to_thread(store.find_id, owner)
    if key is None:
        return None
    limits, own = key.limits, task.objective
    near = min(own.privacy, limits.privacy, key=lambda privacy: privacy.reach)
    left = await asyncio.to_thread(store.find_rest, key)
    bounded = replace(task, objective=replace(own, privacy=near, allowed=limits.workers), budget=Budget(cost_usd=left))
    try:
        return await app.runtime.orchestrator.generate_text(bounded, worker, key=key.id)
    except (NoEligibleWorker, BudgetExhausted) as error:
        if isinstance(error, NoEligibleWorker) and not any(why.startswith(_LIMITS) for why in error.whys.values()):
            raise
        log.warning("turns of key %s are not extracted: %s", key.id, error.message)
        return None


async def beat_memory(app: Installation) -> None:
    """Write and read memory's canary once, if memory is in use or was used before.

    Raises:
        MemoryUnavailable: the canary was not read back.
    """
    settings = app.runtime.settings
    wanted = (app.has_memory, settings.memory.extract_worker, settings.memory.url, has_memory_file(settings))
    if any(wanted) and not await app.memory.beat():
        raise MemoryUnavailable("memory's canary was not read back")


async def extract_new_facts(app: Installation) -> None:
    """Extract facts from new turns, if the settings name a worker for it."""
    worker = app.runtime.settings.memory.extract_worker
    if worker is not None:
        await extract_facts(app, worker=worker, most=MOST_TURNS)


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Hold a lock of this machine in this context. Yield False if another process holds it."""
    make_folder(path.parent)
    with make_private(path).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
