"""A fast, steady stand-in for a provider, for benchmarks: chat completions, whole and streamed.

    python benchmarks/gateway/upstream.py PORT [--delay-ms 0] [--chunks 64] [--interval-ms 20] [--fault-percent 0]

With faults, that share of requests is refused, cut off, delayed, or answered with nonsense, each kind as often.
"""

import argparse
import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator

import uvloop

from ripieno.gateway.asgi import HttpApp
from ripieno.gateway.http import Request, Response, Stream
from ripieno.gateway.listening import HttpServer

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "the",
    "model",
    "writes",
    "plain",
    "words",
]


def make_body(words: int) -> bytes:
    text = " ".join(WORDS[index % len(WORDS)] for index in range(words))
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 300, "completion_tokens": words, "total_tokens": 300 + words}
    head = {"id": "chatcmpl-mock", "object": "chat.completion", "created": 1, "model": "mock"}
    return json.dumps(head | {"choices": [choice], "usage": usage}).encode()


def make_events(chunks: int) -> list[bytes]:
    head = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
    deltas: list[dict[str, object]] = [{"content": f"{WORDS[i % len(WORDS)]} "} for i in range(chunks)]
    deltas[0]["role"] = "assistant"
    choices = [[{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}] for delta in deltas]
    ended = [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    events = [json.dumps(head | {"choices": choice}) for choice in [*choices, ended]]
    usage = {"prompt_tokens": 300, "completion_tokens": chunks, "total_tokens": 300 + chunks}
    events.append(json.dumps(head | {"choices": [], "usage": usage}))
    return [f"data: {event}\n\n".encode() for event in [*events, "[DONE]"]]


class Upstream:
    """Answers every request alike, but for the share that meets a fault."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._body = make_body(48)
        self._events = make_events(options.chunks)
        self._rng = random.Random(7)

    async def answer(self, request: Request) -> Response | Stream:
        options = self._options
        if options.delay_ms:
            await asyncio.sleep(options.delay_ms / 1000.0)
        if options.fault_percent and self._rng.random() * 100 < options.fault_percent:
            return await self._misbehave()
        if b'"stream":true' in request.body or b'"stream": true' in request.body:
            return Stream(self._stream())
        return Response(self._body)

    async def _stream(self) -> AsyncIterator[bytes]:
        for event in self._events:
            yield event
            if self._options.interval_ms:
                await asyncio.sleep(self._options.interval_ms / 1000.0)

    async def _misbehave(self) -> Response | Stream:
        match self._rng.randrange(6):
            case 0:
                return Response(b"{}", status=500)
            case 1:
                return Response(b"{}", status=429, headers={"retry-after": "1"})
            case 2:
                return Response(b'{"choices": [')
            case 3:
                raise ConnectionError("a reset, on purpose")
            case 4:
                await asyncio.sleep(3600)
                raise AssertionError
            case _:
                return Response(b"<html>busy</html>", status=503, content_type="text/html")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--chunks", type=int, default=64)
    parser.add_argument("--interval-ms", type=float, default=20.0)
    parser.add_argument("--fault-percent", type=float, default=0.0)
    options = parser.parse_args()
    app = HttpApp(Upstream(options).answer, lambda status, said, _: Response(said.encode(), status=status))
    listener = socket.create_server(("127.0.0.1", options.port))
    listener.setblocking(False)
    await HttpServer(app).start(listener)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
