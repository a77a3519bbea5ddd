"""A server of chat completions that follows a script, on a real socket, with all kinds of broken answers."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Reply of the server to one request."""

    text: str = "ok"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """A body that replaces the chat completion."""
    content_type: str = "application/json"
    """Content type of the raw body."""
    hangs: bool = False
    """Never answer. The connection stays open until the client closes it."""
    drops: bool = False
    """Close the connection without an answer."""
    cuts_after: int | None = None
    """Abort a stream after this many words."""
    release: threading.Event | None = None
    """Event that a stream waits for after its first word."""
    message: Mapping[str, object] = field(default_factory=dict)
    """Further fields of the assistant's message."""
    finish_reason: str = "stop"


@dataclass(slots=True)
class ReceivedRequest:
    """One request to the server."""

    path: str
    headers: dict[str, str]
    body: dict[str, object]


class ScriptedServer:
    """Serves chat completions in its own thread.

    Args:
        script: replies in order, of which the last one repeats; or a function from request to reply.
        models: the models that `/v1/models` lists.
    """

    def __init__(
        self,
        script: Sequence[Reply] | Callable[[ReceivedRequest], Reply] = (Reply(),),
        *,
        models: Sequence[str] = ("scripted",),
    ) -> None:
        self.script = script
        self.models = list(models)
        self.seen: list[ReceivedRequest] = []
        self.came = threading.Event()
        """Set after each request."""
        self.left = threading.Event()
        """Set when a client closes its connection before the answer is complete."""
        self.idle = threading.Event()
        """Set while no connection is open."""
        self.idle.set()
        self._open = 0
        self.base_url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        port = self._server.sockets[0].getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        self.idle.clear()
        try:
            while (request := await _read_request(reader)) is not None:
                if not await self._answer(request, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        except asyncio.CancelledError:
            return
        finally:
            writer.close()
            self._open -= 1
            if not self._open:
                self.idle.set()

    async def _answer(
        self, request: ReceivedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request. Return whether the connection stays open."""
        if request.path.endswith("/models"):
            await _send(writer, 200, _pack({"object": "list", "data": [{"id": name} for name in self.models]}))
            return True
        self.seen.append(request)
        self.came.set()
        script = self.script
        reply = script(request) if callable(script) else script[min(len(self.seen), len(script)) - 1]
        if reply.hangs:
            await reader.read()
            self.left.set()
            return False
        if reply.drops:
            writer.transport.abort()
            return False
        if reply.raw is not None or reply.status != 200:
            body = reply.raw if reply.raw is not None else _pack({"error": {"message": reply.text}})
            await _send(writer, reply.status, body, headers=reply.headers, content_type=reply.content_type)
            return True
        model = str(request.body.get("model"))
        if request.body.get("stream"):
            return await _stream(writer, reply, model)
        count = request.body.get("n")
        body = _pack(make_completion(reply, model, count=count if isinstance(count, int) else 1))
        await _send(writer, 200, body, headers=reply.headers)
        return True


def make_completion(reply: Reply, model: str, *, count: int = 1) -> dict[str, object]:
    """Make a chat completion of `count` equal choices: 10 input tokens, and one output token per word."""
    words = len(reply.text.split())
    message = {"role": "assistant", "content": reply.text or None, **reply.message}
    choices = [
        {"index": i, "message": message, "finish_reason": reply.finish_reason, "logprobs": None} for i in range(count)
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": words * count, "total_tokens": 10 + words * count}
    head = {"id": "scripted", "object": "chat.completion", "created": 0, "model": model}
    return {**head, "choices": choices, "usage": usage}


async def _stream(writer: asyncio.StreamWriter, reply: Reply, model: str) -> bool:
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    shell = {"id": "scripted", "object": "chat.completion.chunk", "created": 0, "model": model}
    words = reply.text.split()
    deltas: list[dict[str, object]] = [{"content": f" {word}"} for word in words] or [{}]
    deltas[0] = {"role": "assistant", "content": words[0] if words else None}
    for number, delta in enumerate([*deltas, *_cut_message(reply.message), {}]):
        if number == 1 and reply.release is not None:
            await asyncio.to_thread(reply.release.wait)
        if reply.cuts_after == number:
            writer.transport.abort()
            return False
        finish = None if delta else reply.finish_reason
        await _send_event(writer, {**shell, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    usage = {"prompt_tokens": 10, "completion_tokens": len(words), "total_tokens": 10 + len(words)}
    await _send_event(writer, {**shell, "choices": [], "usage": usage})
    await _send_chunk(writer, b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _cut_message(message: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Yield the deltas of a message's further fields. The arguments of a tool call come in two parts."""
    calls = message.get("tool_calls")
    others = {name: value for name, value in message.items() if name != "tool_calls"}
    if others:
        yield others
    for index, call in enumerate(calls if isinstance(calls, list) else ()):
        function = call["function"]
        arguments, middle = function["arguments"], len(function["arguments"]) // 2
        begun = {"name": function["name"], "arguments": arguments[:middle]}
        yield {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": begun}]}
        yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[middle:]}}]}


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ReceivedRequest(path=first.split()[1], headers=headers, body=json.loads(body) if body else {})


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
) -> None:
    lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {content_type}", f"content-length: {len(body)}"]
    lines.extend(f"{name}: {value}" for name, value in (headers or {}).items())
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()


async def _send_event(writer: asyncio.StreamWriter, event: dict[str, object]) -> None:
    await _send_chunk(writer, b"data: " + _pack(event) + b"\n\n")


async def _send_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


def _pack(value: object) -> bytes:
    return json.dumps(value).encode()
