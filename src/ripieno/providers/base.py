"""Provider: the interface for calls to workers."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec

from ripieno.domain import Answer, JsonValue, Task, Usage, Worker, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One piece of a streamed answer."""

    delta: Mapping[str, JsonValue] = field(default_factory=dict)
    """The chat-completions delta as received, including the content."""
    finish_reason: str | None = None
    usage: Usage | None = None
    """Set once, at the end, if the provider counts tokens."""
    chunk: Mapping[str, msgspec.Raw] | None = None
    """The whole completion chunk as received, field by field, if the provider uses that form."""

    @property
    def text(self) -> str:
        """Return the piece's own text."""
        content = self.delta.get("content")
        return content if isinstance(content, str) else ""


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


def find_fault(provider: Provider, worker: Worker) -> str | None:
    """Find what is missing for a worker, or None if the provider cannot say. See `Inspectable`."""
    return provider.find_fault(worker) if isinstance(provider, Inspectable) else None


Ask: TypeAlias = Callable[[WorkerId, Task], Awaitable[Answer]]
"""Calls a worker on behalf of a check. Raises a ProviderError if there is no answer."""


async def stream_whole(answer: Answer) -> AsyncIterator[Piece]:
    """Yield a whole answer as a stream, for providers that cannot stream."""
    yield Piece(delta={"role": "assistant", "content": answer.text, **answer.message})
    yield Piece(finish_reason=answer.finish_reason, usage=answer.usage)
