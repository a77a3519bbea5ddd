"""Background work for memory: its canary, and the extraction of facts from conversations."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ripieno.app.build import has_memory_file
from ripieno.app.installation import Installation
from ripieno.errors import MemoryUnavailable
from ripieno.memory.extract import Extracted, extract
from ripieno.privacy.files import make_folder, make_private

MOST_TURNS = 200
"""Most turns of one extraction."""

log = logging.getLogger(__name__)


async def extract_facts(app: Installation, *, worker: str, most: int) -> Extracted | None:
    """Extract facts from new turns; None if another process is extracting.

    The worker `auto` is the router's choice.

    Raises:
        RipienoError: no worker answers, or memory is unavailable. The next call continues from here.
    """
    with _alone(app.runtime.settings.home / "extract.lock") as is_alone:
        if not is_alone:
            return None
        return await extract(app.memory, partial(app.runtime.orchestrator.generate_text, worker=worker), most=most)


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
