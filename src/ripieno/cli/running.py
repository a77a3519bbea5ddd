"""Open the app for one command, run it, close everything."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from ripieno.app import App
from ripieno.config import load_settings

Result = TypeVar("Result")


def run_app(
    config: Path | None,
    work: Callable[[App], Awaitable[Result]],
    *,
    flags: Mapping[str, object] | None = None,
    decides: bool = True,
) -> Result:
    """Run asynchronous work with an opened app; see `App` for `decides`."""
    loaded = load_settings(config, flags=flags)

    async def run() -> Result:
        async with App(loaded, decides=decides) as app:
            return await work(app)

    with asyncio.Runner(loop_factory=_make_loop) as runner:
        return runner.run(run())


def _make_loop() -> asyncio.AbstractEventLoop:
    """A faster loop, where there is one for the platform."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
