"""Memory of one installation, opened without pool, providers and ledger."""

from functools import cached_property
from types import TracebackType
from typing import Self

from ripieno.app.build import build_encoder, build_memory
from ripieno.config import Loaded
from ripieno.domain import SystemClock
from ripieno.encoders import CachedEncoder
from ripieno.memory import Memory


class MemoryApp:
    """Memory for `ripieno memory` and `ripieno mcp`. It needs no workers. Use it as an async context manager."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
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
        """Return the memory, which opens on first use, so that an outage can end by itself."""
        return build_memory(self._loaded.settings, self._encoder, SystemClock())
