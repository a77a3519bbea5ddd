"""Workers behind an HTTP address, in any wire format: hosted, or a server of one's own."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import msgspec
from pydantic import ValidationError

from ripieno.domain import Answer, JsonValue, Task, Worker
from ripieno.errors import (
    BadAnswer,
    Cause,
    ConfigError,
    ProviderError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnreachable,
)
from ripieno.providers.base import Forwarded, stream_whole
from ripieno.providers.http import BadCertificate, HttpClient, HttpReply, ProxyFault, Timeouts, Unreachable
from ripieno.providers.listing import check_model
from ripieno.providers.options import EndpointOptions, WorkerOptions
from ripieno.providers.refusals import Profile, refuse_status
from ripieno.wires import ChatUpstream, Piece, Recipient, Upstream
from ripieno.wires.base import ReplyReader
from ripieno.wires.carries import list_lost
from ripieno.wires.sse import read_events

GRACE_S = 2.0
"""Seconds in which counts may follow a finish reason, from a server that does not end its stream."""
MOST_CARDS = 1000
"""Worker cards whose validated options are cached. The cache is cleared beyond this."""


class RemoteProvider:
    """Sends requests in one wire format over persistent HTTP connections.

    Args:
        options: address, key and limits.
        upstream: the wire format.
    """

    can_stream = True

    def __init__(self, options: EndpointOptions, upstream: Upstream | None = None) -> None:
        self.options = options
        self._upstream = upstream or ChatUpstream()
        self.wire = self._upstream.name
        timeouts = Timeouts(
            connect_s=options.connect_timeout_s,
            first_s=options.first_token_timeout_s,
            idle_s=options.idle_timeout_s,
            total_s=options.total_timeout_s,
        )
        headers = {"content-type": "application/json", **options.make_headers()}
        try:
            self._client = HttpClient(
                options.base_url, headers=headers, timeouts=timeouts, security=options.make_security()
            )
        except ValueError as error:
            raise ConfigError(str(error), key="providers.base_url", hint="write http://host:port/v1") from error
        self._options: dict[int, tuple[Worker, WorkerOptions]] = {}
        self._profiles: dict[tuple[str, str], Profile] = {}
        """What workers do not take, by worker and model."""

    async def complete(self, worker: Worker, task: Task) -> Answer:
        """Request a whole answer. If the worker samples, return the most frequent answer."""
        options = self._read_options(worker)
        body, path = self._write(worker, task, options, is_stream=False)
        while True:
            try:
                content = await self._fetch(worker, "POST", path, msgspec.json.encode(body))
                break
            except ProviderRejected as error:
                body = self._repair(worker, body, error)
        if isinstance(self._upstream, ChatUpstream):
            answer = self._upstream.read(content, worker=worker.id, is_sampled=options.samples > 1)
        else:
            answer = self._upstream.read(content, worker=worker.id)
        lost = self._list_lost(worker, task)
        return replace(answer, lost=lost) if lost else answer

    async def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        """Request an answer piece by piece."""
        options = self._read_options(worker)
        if options.samples > 1:
            async for piece in stream_whole(await self.complete(worker, task)):
                yield piece
            return
        body, path = self._write(worker, task, options, is_stream=True)
        has_begun = False
        while not has_begun:
            try:
                async with aclosing(self._stream_once(worker, path, body)) as pieces:
                    async for piece in pieces:
                        if not has_begun and (lost := self._list_lost(worker, task)):
                            yield Piece(lost=lost)
                        has_begun = True
                        yield piece
                return
            except ProviderRejected as error:
                if has_begun:
                    raise
                body = self._repair(worker, body, error)

    async def _stream_once(self, worker: Worker, path: str, body: Mapping[str, JsonValue]) -> AsyncGenerator[Piece]:
        reader = self._upstream.stream(worker=worker.id)
        try:
            sent = msgspec.json.encode(body)
            async with self._client.stream(
                "POST", self.options.add_query(path), sent, is_once=worker.has_effects
            ) as streaming:
                head = streaming.head
                if head.status != 200:
                    refuse_status(worker, head.status, head.headers, await streaming.read())
                if head.headers.get("content-type", "").startswith("application/json"):
                    async for piece in stream_whole(self._upstream.read(await streaming.read(), worker=worker.id)):
                        yield piece
                    return
                async with aclosing(read_events(streaming.parts(), worker=worker.id)) as events:
                    while (event := await _read_next(events, reader)) is not None:
                        for piece in reader.read(*event):
                            yield piece
        except OSError as error:
            if not reader.is_over:  # after its end, the answer is whole, however the connection ends
                raise _translate(worker, error) from error
        if not reader.is_over:
            raise BadAnswer(f"{worker.id!r} ended its stream before its answer", worker=worker.id)

    async def embed(self, worker: Worker, body: Mapping[str, JsonValue]) -> bytes:
        """Request embeddings. Return the reply as received."""
        asked = {**self._read_options(worker).params, **body, "model": worker.binding.model}
        return await self._fetch(worker, "POST", "/embeddings", msgspec.json.encode(asked))

    async def forward(self, worker: Worker, path: str, body: Mapping[str, JsonValue]) -> Forwarded:
        """Send a body to a path, with the worker's model, and return the reply."""
        sent = msgspec.json.encode({**body, "model": worker.binding.model})
        reply = await self._request(worker, "POST", path, sent)
        return Forwarded(reply.body, reply.headers.get("content-type", "application/octet-stream"))

    def find_fault(self, worker: Worker) -> str | None:
        """Check the worker's options. Nothing else can be missing on this machine.

        Raises:
            ConfigError: an option is unknown or wrong.
        """
        try:
            self._read_options(worker)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(("workers", worker.id, "options", *map(str, first["loc"])))
            raise ConfigError(
                f"{key}: {first['msg']}", key=key, hint=f"options here: {', '.join(WorkerOptions.model_fields)}"
            ) from error
        return None

    async def check(self, worker: Worker) -> str:
        """Check whether the server has the model.

        Raises:
            ProviderRejected: the server answers, and does not have the model.
        """
        return await check_model(worker, partial(self._fetch, worker, total_s=self.options.connect_timeout_s + 5.0))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _write(
        self, worker: Worker, task: Task, options: WorkerOptions, *, is_stream: bool
    ) -> tuple[dict[str, JsonValue], str]:
        """Write the body of a request as this worker takes it, and its path."""
        recipient = Recipient(
            worker=worker.id,
            model=worker.binding.model,
            most_output=worker.max_output_tokens,
            has_developer_role=options.has_developer_role,
            takes_effort=options.takes_effort,
        )
        asked = options.complete(task)
        body = self._upstream.write(asked, recipient, is_stream=is_stream)
        if options.samples > 1:
            body["n"] = options.samples
        _clamp(body, worker)
        self._find_profile(worker).apply(body)
        return body, self._upstream.path(recipient, is_stream=is_stream)

    def _repair(self, worker: Worker, body: dict[str, JsonValue], error: ProviderRejected) -> dict[str, JsonValue]:
        """Learn from a refusal which field the worker does not take, and return the body without it.

        Raises:
            ProviderRejected: the refusal names no field of the body; it is the error given.
        """
        repaired = dict(body)
        if error.cause is not Cause.PARAMETER or not self._find_profile(worker).learn(error, repaired):
            raise error
        return repaired

    def _list_lost(self, worker: Worker, task: Task) -> tuple[str, ...]:
        """List what of a task the worker does not get: by its wire format, or because it has refused it before."""
        return (*map(str, list_lost(task, self.wire)), *self._find_profile(worker).list_dropped(task.params))

    def _find_profile(self, worker: Worker) -> Profile:
        return self._profiles.setdefault((worker.id, worker.binding.model), Profile())

    async def _fetch(
        self, worker: Worker, method: str, path: str, body: bytes = b"", *, total_s: float | None = None
    ) -> bytes:
        """Return the body of a successful reply. All others raise a provider error."""
        return (await self._request(worker, method, path, body, total_s=total_s)).body

    async def _request(
        self, worker: Worker, method: str, path: str, body: bytes = b"", *, total_s: float | None = None
    ) -> HttpReply:
        try:
            reply = await self._client.fetch(
                method, self.options.add_query(path), body, total_s=total_s, is_once=worker.has_effects
            )
        except OSError as error:
            raise _translate(worker, error) from error
        refuse_status(worker, reply.status, reply.headers, reply.body)
        return reply

    def _read_options(self, worker: Worker) -> WorkerOptions:
        """Return the worker's own options, validated once per card."""
        known = self._options.get(id(worker))
        if known is None or known[0] is not worker:
            if len(self._options) > MOST_CARDS:
                self._options.clear()
            known = self._options[id(worker)] = (worker, WorkerOptions.model_validate(dict(worker.binding.options)))
        return known[1]


async def _read_next(events: AsyncGenerator[tuple[str, bytes]], reader: ReplyReader) -> tuple[str, bytes] | None:
    """Read the next event; None at the end. After a finish reason little may follow, and not for long.

    Raises:
        TimeoutError: nothing followed, though the connection is open.
    """
    if reader.is_finished:
        return None
    async with asyncio.timeout(GRACE_S if reader.is_over else None):
        return await anext(events, None)


def _clamp(body: dict[str, JsonValue], worker: Worker) -> None:
    """Cut the requested answer length to the worker's limit: clients ask for the largest they know."""
    most = worker.max_output_tokens or worker.context_window
    if most is None:
        return
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        wanted = body.get(name)
        if isinstance(wanted, int) and wanted > most:
            body[name] = most


def _translate(worker: Worker, error: OSError) -> ProviderError:
    """Convert the client's faults into provider errors. Messages contain no header and no sent body."""
    match error:
        case TimeoutError():
            return ProviderTimeout(f"{worker.id!r} did not answer in time", worker=worker.id)
        case Unreachable():
            hint = "is its server running? `ripieno pool check`"
            unreachable = ProviderUnreachable(f"{worker.id!r} cannot be reached", worker=worker.id, hint=hint)
            unreachable.is_unsent = True
            return unreachable
        case BadCertificate() | ProxyFault():
            unreachable = ProviderUnreachable(f"{worker.id!r} cannot be reached: {error}", worker=worker.id)
            unreachable.is_unsent = isinstance(error, ProxyFault)
            return unreachable
        case _:
            return ProviderUnreachable(f"the connection to {worker.id!r} failed: {error}", worker=worker.id)
