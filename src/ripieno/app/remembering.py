"""What is done for memory beside requests: its canary beats, and facts are extracted from what was said."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ripieno.app.installation import Installation
from ripieno.memory.extract import Extracted, extract
from ripieno.privacy.files import make_folder, make_private

MOST_TURNS = 200
"""Turns that are read at a time."""

log = logging.getLogger(__name__)


async def extract_facts(app: Installation, *, worker: str, most: int) -> Extracted | None:
    """Have facts extracted from what was said since the last time; None where another process is at it.

    Args:
        app: the opened app.
        worker: who reads: a worker, or `auto` for the router's choice.
        most: turns to read.

    Raises:
        RipienoError: nobody answers, or memory is unavailable; the next one goes on where this one ended.
    """
    with _alone(app.runtime.settings.home / "extract.lock") as is_alone:
        if not is_alone:
            return None
        return await extract(app.memory, partial(app.runtime.orchestrator.generate_text, worker=worker), most=most)


async def beat_memory(app: Installation) -> None:
    """Let the canary of memory beat once, where memory is in use."""
    if (app.has_memory or app.runtime.settings.memory.extract_worker is not None) and not await app.memory.beat():
        log.warning("memory's canary did not come back")


async def extract_new_facts(app: Installation) -> None:
    """Extract facts from what was said since the last time, where the settings name who reads."""
    worker = app.runtime.settings.memory.extract_worker
    if worker is not None:
        await extract_facts(app, worker=worker, most=MOST_TURNS)


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether no other process of this machine holds a lock; held while the block runs, and given back by its end."""
    make_folder(path.parent)
    with make_private(path).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
