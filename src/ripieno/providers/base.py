"""Provider: how a worker is called."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec

from ripieno.domain import Answer, JsonValue, Task, Usage, Worker, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One piece of a streamed answer."""

    delta: Mapping[str, JsonValue] = field(default_factory=dict)
    """The chat-completions delta as it came, content included."""
    finish_reason: str | None = None
    usage: Usage | None = None
    """Given once, at the end, where the provider counts."""
    chunk: Mapping[str, msgspec.Raw] | None = None
    """The whole completion chunk as it came, field by field, where the provider speaks that form."""

    @property
    def text(self) -> str:
        """The piece's own text."""
        content = self.delta.get("content")
        return content if isinstance(content, str) else ""


class Provider(Protocol):
    """Carries tasks to workers. Built-in and plugin providers fill the same role.

    Every method raises a `ProviderError` (or `RateLimited`) for a fault of the worker; nothing else may escape.
    """

    can_stream: bool
    """Whether a stream brings the answer as it is made, so that its first token can be timed."""

    async def complete(self, worker: Worker, task: Task) -> Answer:
        """Ask for a whole answer."""
        ...

    def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        """Ask for an answer piece by piece; closing the iterator cancels the call."""
        ...

    async def check(self, worker: Worker) -> str:
        """Find out whether the worker could answer now; a short word on what was seen."""
        ...

    async def close(self) -> None:
        """Release connections, threads and child processes."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """What a provider is too, where its workers make embeddings."""

    async def embed(self, worker: Worker, body: Mapping[str, JsonValue]) -> bytes:
        """Ask for embeddings, in OpenAI's form; the reply as it came."""
        ...


@runtime_checkable
class Inspectable(Protocol):
    """What a provider is too, where it can say without a call that a worker cannot be opened on this machine."""

    def find_fault(self, worker: Worker) -> str | None:
        """Find what is missing for the worker: a package, a model file, a key.

        Cheap and local: no network, no import of the worker's own code.

        Returns:
            What is missing and how to mend it; None where nothing is known to be missing.

        Raises:
            ConfigError: the worker's card is wrong; `key` names the setting.
        """
        ...


def find_fault(provider: Provider, worker: Worker) -> str | None:
    """Find what is missing for a worker; see `Inspectable`. None where the provider cannot say."""
    return provider.find_fault(worker) if isinstance(provider, Inspectable) else None


Ask: TypeAlias = Callable[[WorkerId, Task], Awaitable[Answer]]
"""Asks a worker on behalf of a check; raises a ProviderError where there is no answer."""


async def stream_whole(answer: Answer) -> AsyncIterator[Piece]:
    """Give a whole answer as a stream of one piece, for providers that cannot stream."""
    yield Piece(delta={"role": "assistant", "content": answer.text, **answer.message})
    yield Piece(finish_reason=answer.finish_reason, usage=answer.usage)
