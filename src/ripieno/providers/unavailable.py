"""A provider that could not be created. Every call returns the reason."""

from collections.abc import AsyncIterator

from ripieno.domain import Answer, Task, Worker
from ripieno.errors import ConfigError
from ripieno.providers.base import stream_whole
from ripieno.wires.pieces import Piece


class UnavailableProvider:
    """Replaces a provider whose key, package or plugin is missing on this machine."""

    can_stream = False

    def __init__(self, fault: ConfigError) -> None:
        self._fault = fault

    def find_fault(self, worker: Worker) -> str | None:
        """Return the reason, and the fix if one is known."""
        return self._fault.message if self._fault.hint is None else f"{self._fault.message}; {self._fault.hint}"

    async def complete(self, worker: Worker, task: Task) -> Answer:
        """Raise the reason."""
        raise self._refuse()

    async def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        """Raise the reason."""
        async for piece in stream_whole(await self.complete(worker, task)):
            yield piece

    async def check(self, worker: Worker) -> str:
        """Raise the reason."""
        raise self._refuse()

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _refuse(self) -> ConfigError:
        return ConfigError(self._fault.message, key=self._fault.key, hint=self._fault.hint)
