"""Open the app for one command, run the command, and close the app."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ripieno.errors import ConfigError, InvalidTask

if TYPE_CHECKING:
    from ripieno.app import Installation, MemoryApp
    from ripieno.domain import Pool
    from ripieno.ledger import Ledger

Result = TypeVar("Result")
Opened = TypeVar("Opened")


def run_app(
    config: Path | None,
    work: Callable[["Installation"], Awaitable[Result]],
    *,
    flags: Mapping[str, object] | None = None,
    decides: bool = True,
) -> Result:
    """Run asynchronous work with an opened app. See `Installation` for `decides`."""
    from ripieno.app import Installation
    from ripieno.config import load_settings

    loaded = load_settings(config, flags=flags)
    return run(lambda: Installation(loaded, decides=decides), work)


def run_memory(config: Path | None, work: Callable[["MemoryApp"], Awaitable[Result]]) -> Result:
    """Run asynchronous work with an opened memory, without opening workers."""
    from ripieno.app import MemoryApp
    from ripieno.config import load_settings

    loaded = load_settings(config)
    return run(lambda: MemoryApp(loaded), work)


def require_workers(pool: "Pool", workers: Iterable[str]) -> None:
    """Check that a pool has some workers.

    Raises:
        InvalidTask: a worker does not exist.
    """
    for worker in workers:
        if worker not in pool:
            raise InvalidTask(f"no worker is called {worker!r}", hint=f"workers: {', '.join(pool.ids)}")


def open_ledger(config: Path | None, *, must_exist: bool = False) -> "Ledger":
    """Open only the ledger of the settings, which is made if it is missing and `must_exist` is false.

    Raises:
        ConfigError: the settings are wrong, the home folder cannot be written, or the ledger is missing.
    """
    from ripieno.app.build import prepare_home
    from ripieno.config import load_settings
    from ripieno.ledger import Ledger

    settings = load_settings(config).settings
    prefix, _, file = settings.ledger.url.partition("sqlite:///")
    is_missing = must_exist and not prefix and not Path(file).exists()
    if settings.home.exists() or not is_missing:
        prepare_home(settings)
    if is_missing:
        raise ConfigError(
            f"there is no ledger at {file}",
            key="ledger.url",
            hint="run the command in the folder of the installation, or name its file: `ripieno --config PATH`",
        )
    return Ledger(settings.ledger.url)


def run(
    open_: Callable[[], AbstractAsyncContextManager[Opened]], work: Callable[[Opened], Awaitable[Result]]
) -> Result:
    """Run asynchronous work with a resource that `open_` opens, on a new event loop."""

    async def run_all() -> Result:
        async with open_() as opened:
            return await work(opened)

    with asyncio.Runner(loop_factory=_make_loop) as runner:
        return runner.run(run_all())


def _make_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop: uvloop if the platform has it."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
