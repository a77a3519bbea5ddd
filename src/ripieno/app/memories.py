"""Memory of one installation, opened alone: no pool, no provider, no ledger."""

from functools import cached_property
from types import TracebackType
from typing import Self

from ripieno.app.build import build_encoder, build_memory
from ripieno.config import Loaded
from ripieno.domain import Clock, SystemClock
from ripieno.encoders import CachedEncoder
from ripieno.memory import Memory


class MemoryApp:
    """What `ripieno memory` and `ripieno mcp` work on; needs neither workers nor their packages and keys.

    Use as an async context manager; nothing outlives it.

    Args:
        loaded: the settings.
        clock: the time.
    """

    def __init__(self, loaded: Loaded, *, clock: Clock | None = None) -> None:
        self._loaded = loaded
        self._clock = clock or SystemClock()
        self._encoder = CachedEncoder(build_encoder(loaded))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._encoder.close()
        if "memory" in self.__dict__:
            self.memory.close()

    @cached_property
    def memory(self) -> Memory:
        """What is remembered; opened when it is first asked for, so that an outage can end by itself."""
        return build_memory(self._loaded.settings, self._encoder, self._clock)
