"""Provider: the interface for calls to workers."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from ripieno.domain import Answer, JsonValue, Task, Worker, WorkerId
from ripieno.wires.pieces import Piece, cut_answer


class Provider(Protocol):
    """Carries tasks to workers. Built-in and plugin providers have the same role.

    Every method raises a `ProviderError` (or `RateLimited`) for a fault of the worker, and no other error.
    """

    can_stream: bool
    """Whether a stream sends the answer while it is made, so that the first token can be timed."""

    async def complete(self, worker: Worker, task: Task) -> Answer:
        """Request a whole answer."""
        ...

    def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        """Request an answer piece by piece. Closing the iterator cancels the call."""
        ...

    async def check(self, worker: Worker) -> str:
        """Check whether the worker could answer now. Return a short description of the result."""
        ...

    async def close(self) -> None:
        """Release connections, threads and child processes.

        After a reload, an open run may call the provider once more. The provider then opens its resources again, and
        is closed again.
        """
        ...


@runtime_checkable
class Embedder(Protocol):
    """Additional interface of a provider whose workers make embeddings."""

    async def embed(self, worker: Worker, body: Mapping[str, JsonValue]) -> bytes:
        """Request embeddings in OpenAI's form. Return the reply as received."""
        ...


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A reply as received."""

    body: bytes
    content_type: str


@runtime_checkable
class Forwarder(Protocol):
    """Additional interface of a provider that passes on requests of further routes."""

    async def forward(self, worker: Worker, path: str, body: Mapping[str, JsonValue]) -> Forwarded:
        """Send a body to a path, with the worker's model, and return the reply."""
        ...


@runtime_checkable
class Inspectable(Protocol):
    """Additional interface of a provider that can find local faults of a worker without a call."""

    def find_fault(self, worker: Worker) -> str | None:
        """Find what is missing for the worker: a package, a model file, a key.

        Cheap and local: no network, no import of the worker's own code.

        Returns:
            What is missing and how to fix it; None if nothing is known to be missing.

        Raises:
            ConfigError: the worker's card is wrong; `key` names the setting.
        """
        ...


def find_wire(provider: Provider) -> str:
    """Return the wire format of a provider's requests; empty if it takes text alone."""
    wire = getattr(provider, "wire", "")
    return wire if isinstance(wire, str) else ""


def find_fault(provider: Provider, worker: Worker) -> str | None:
    """Find what is missing for a worker, or None if the provider cannot say. See `Inspectable`."""
    return provider.find_fault(worker) if isinstance(provider, Inspectable) else None


Ask: TypeAlias = Callable[[WorkerId, Task], Awaitable[Answer]]
"""Calls a worker on behalf of a check. Raises a ProviderError if there is no answer."""


async def stream_whole(answer: Answer) -> AsyncIterator[Piece]:
    """Yield a whole answer as a stream, for providers that cannot stream."""
    for piece in cut_answer(answer):
        yield piece
