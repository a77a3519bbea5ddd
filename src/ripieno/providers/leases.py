"""Leases: count the open calls of each provider, so that a replaced one is closed after its last call."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ripieno.providers.base import Provider


class Leases:
    """Counts the calls of each provider, and closes a retired provider when it has none.

    A run that began before the reload may call its provider once more. The provider then opens its resources
    again, and is closed again after that call.
    """

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}
        """Open calls, by the identity of the provider."""
        self._retired: dict[int, Provider] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @contextmanager
    def hold(self, provider: Provider) -> Iterator[None]:
        """Count one call of a provider while the block runs."""
        name = id(provider)
        self._calls[name] = self._calls.get(name, 0) + 1
        try:
            yield
        finally:
            self._calls[name] -= 1
            if not self._calls[name]:
                del self._calls[name]
                if name in self._retired:
                    self._start_closing(provider)

    def retire(self, providers: Iterable[Provider]) -> None:
        """Close each provider when its last call ends. A provider without calls is closed at once."""
        for provider in providers:
            self._retired[id(provider)] = provider
            if id(provider) not in self._calls:
                self._start_closing(provider)

    async def close(self) -> None:
        """Close every retired provider, even one with open calls."""
        for provider in self._retired.values():
            await provider.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def _start_closing(self, provider: Provider) -> None:
        task = asyncio.get_running_loop().create_task(provider.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
