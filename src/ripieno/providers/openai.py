"""Any OpenAI-compatible base URL: hosted, vLLM, Ollama, llama.cpp."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ripieno.domain import Answer, JsonValue, Task, Usage, Worker
from ripieno.errors import (
    BadAnswer,
    ProviderError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnreachable,
)
from ripieno.providers.base import Piece

LONGEST_EVENT = 4 * 1024 * 1024
LONGEST_ERROR = 300


class OpenAIOptions(BaseModel):
    """Options of `kind = "openai"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    """Address up to and with `/v1`."""
    api_key: SecretStr | None = None
    """Comes from RIPIENO_PROVIDERS__NAME__API_KEY, never from the file."""
    api_key_env: str | None = None
    """Name of another environment variable that holds the key."""
    needs_key: bool = False
    """Whether a missing key is an error at once."""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    first_token_timeout_s: float = Field(default=60.0, gt=0)
    idle_timeout_s: float = Field(default=30.0, gt=0)
    total_timeout_s: float = Field(default=300.0, gt=0)


class WorkerOptions(BaseModel):
    """Options of one worker behind an OpenAI-compatible provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str | None = None
    """A system message for tasks that bring none."""
    params: dict[str, object] = Field(default_factory=dict)
    """Fields for the request, where the task does not state them."""
    samples: int = Field(default=1, ge=1, le=64)
    """Answers to draw; above 1 the most frequent one is taken."""


class OpenAIProvider:
    """Speaks chat completions over HTTP, on one pool of connections."""

    can_stream = True

    def __init__(self, options: OpenAIOptions) -> None:
        self.options = options
        self._base_url = options.base_url.rstrip("/")
        self._opened: aiohttp.ClientSession | None = None

    async def complete(self, worker: Worker, task: Task) -> Answer:
        """Ask for a whole answer; where the worker samples, the most frequent of its answers."""
        body = _make_body(worker, task, _parse_options(worker))
        with _translated(worker):
            async with self._post(body) as response:
                content = await response.read()
        _refuse_status(worker, response, content)
        return _read_answer(worker, content)

    async def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        """Ask for an answer piece by piece."""
        options = _parse_options(worker)
        if options.samples > 1:
            answer = await self.complete(worker, task)
            yield Piece(delta={"role": "assistant", "content": answer.text})
            yield Piece(finish_reason=answer.finish_reason, usage=answer.usage)
            return
        body = _make_body(worker, task, options) | {"stream": True, "stream_options": {"include_usage": True}}
        with _translated(worker):
            async with asyncio.timeout(self.options.first_token_timeout_s) as patience, self._post(body) as response:
                if response.status != 200:
                    _refuse_status(worker, response, await response.read())
                async for event in self._read_events(worker, response, patience):
                    yield _read_piece(worker, event)

    async def check(self, worker: Worker) -> str:
        """List the provider's models."""
        timeout = aiohttp.ClientTimeout(total=self.options.connect_timeout_s + 5.0)
        with _translated(worker):
            async with self._session().get(f"{self._base_url}/models", timeout=timeout) as response:
                content = await response.read()
        _refuse_status(worker, response, content)
        try:
            names = {item["id"] for item in msgspec.json.decode(content)["data"]}
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            raise BadAnswer(f"{worker.id!r}: /models is not a list of models", worker=worker.id) from error
        if worker.binding.model not in names:
            return f"reachable; {worker.binding.model!r} is not among its {len(names)} models"
        return "reachable"

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            options = self.options
            headers = {"content-type": "application/json"}
            if options.api_key is not None:
                headers["authorization"] = f"Bearer {options.api_key.get_secret_value()}"
            timeout = aiohttp.ClientTimeout(total=options.total_timeout_s, sock_connect=options.connect_timeout_s)
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0)
            self._opened = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)
        return self._opened

    def _post(self, body: dict[str, JsonValue]) -> "aiohttp.client._RequestContextManager":
        return self._session().post(f"{self._base_url}/chat/completions", data=msgspec.json.encode(body))

    async def _read_events(
        self, worker: Worker, response: aiohttp.ClientResponse, patience: asyncio.Timeout
    ) -> AsyncIterator[bytes]:
        """Cut the body into the data of server-sent events, until `[DONE]`; each chunk renews the patience."""
        buffer = b""
        loop = asyncio.get_running_loop()
        async for chunk in response.content.iter_any():
            patience.reschedule(loop.time() + self.options.idle_timeout_s)
            buffer += chunk
            *events, buffer = re.split(rb"\r?\n\r?\n", buffer)
            if len(buffer) > LONGEST_EVENT:
                raise BadAnswer(f"{worker.id!r} sent an event over {LONGEST_EVENT} bytes", worker=worker.id)
            for event in events:
                data = b"\n".join(re.findall(rb"(?m)^data: ?(.*?)\r?$", event))
                if data.strip() == b"[DONE]":
                    return
                if data:
                    yield data
        raise BadAnswer(f"{worker.id!r} ended its stream without [DONE]", worker=worker.id)


def vote(texts: Sequence[str]) -> int:
    """Index of the answer that agrees most with the others, apart from case and outer punctuation; first on ties."""
    keys = [re.sub(r"\W+", " ", text).strip().lower() for text in texts]
    counts = Counter(key for key in keys if key)
    if not counts:
        return 0
    return keys.index(counts.most_common(1)[0][0])


def _parse_options(worker: Worker) -> WorkerOptions:
    return WorkerOptions.model_validate(dict(worker.binding.options))


def _make_body(worker: Worker, task: Task, options: WorkerOptions) -> dict[str, JsonValue]:
    messages: list[dict[str, JsonValue]] = [
        {"role": message.role, "content": message.content, **message.extra} for message in task.messages
    ]
    if options.system and not any(message["role"] in ("system", "developer") for message in messages):
        messages.insert(0, {"role": "system", "content": options.system})
    body: dict[str, JsonValue] = {**options.params, **task.params, "model": worker.binding.model, "messages": messages}
    if task.tools:
        body["tools"] = list(task.tools)
    if options.samples > 1:
        body["n"] = options.samples
    return body


@contextmanager
def _translated(worker: Worker) -> Iterator[None]:
    """Turn the client's faults into provider errors; messages carry no header and no body that was sent."""
    try:
        yield
    except TimeoutError as error:
        raise ProviderTimeout(f"{worker.id!r} did not answer in time", worker=worker.id) from error
    except aiohttp.ClientConnectorError as error:
        raise ProviderUnreachable(
            f"{worker.id!r} cannot be reached", worker=worker.id, hint="is its server running? `ripieno pool check`"
        ) from error
    except (aiohttp.ClientError, ValueError) as error:
        raise ProviderUnreachable(
            f"the connection to {worker.id!r} broke ({type(error).__name__})", worker=worker.id
        ) from error


def _refuse_status(worker: Worker, response: aiohttp.ClientResponse, content: bytes) -> None:
    status = response.status
    if status == 200:
        return
    said = _read_error(content)
    message = f"{worker.id!r} answered {status}: {said}"
    if status in (408, 409, 429) or status >= 500:
        raise ProviderError(message, worker=worker.id, retry_after_s=_read_retry_after(response))
    hint = "check its API key" if status in (401, 403) else None
    error = ProviderRejected(message, worker=worker.id, hint=hint)
    error.blames_worker = status in (401, 403, 404)
    raise error


def _read_error(content: bytes) -> str:
    try:
        said = msgspec.json.decode(content)["error"]
        text = said["message"] if isinstance(said, Mapping) else said
    except (msgspec.MsgspecError, KeyError, TypeError):
        text = content.decode("utf-8", "replace")
    return " ".join(str(text).split())[:LONGEST_ERROR] or "nothing"


def _read_retry_after(response: aiohttp.ClientResponse) -> float | None:
    in_ms = response.headers.get("retry-after-ms")
    raw = response.headers.get("retry-after")
    try:
        if in_ms is not None:
            return max(float(in_ms) / 1000.0, 0.0)
        if raw is None:
            return None
        return max(float(raw), 0.0) if raw.replace(".", "").isdigit() else _seconds_until(raw)
    except ValueError:
        return None


def _seconds_until(date: str) -> float:
    return max(parsedate_to_datetime(date).timestamp() - time.time(), 0.0)


def _read_answer(worker: Worker, content: bytes) -> Answer:
    try:
        body = msgspec.json.decode(content)
        choices = body["choices"]
        index = vote([str(choice["message"].get("content") or "") for choice in choices])
        message = dict(choices[index]["message"])
        text = message.pop("content", None) or ""
        message.pop("role", None)
        finish = choices[index].get("finish_reason") or "stop"
    except (msgspec.MsgspecError, KeyError, TypeError, IndexError, AttributeError) as error:
        shown = content[:80].decode("utf-8", "replace")
        raise BadAnswer(f"{worker.id!r} answered no chat completion: {shown!r}", worker=worker.id) from error
    if not isinstance(text, str):
        raise BadAnswer(f"{worker.id!r} answered content of type {type(text).__name__}", worker=worker.id)
    if not text.strip() and not message.get("tool_calls") and not message.get("refusal"):
        raise BadAnswer(f"{worker.id!r} answered nothing", worker=worker.id)
    return replace(
        Answer(text=text, usage=_read_usage(body.get("usage")), finish_reason=str(finish)),
        message={name: value for name, value in message.items() if value is not None},
    )


def _read_piece(worker: Worker, data: bytes) -> Piece:
    try:
        event = msgspec.json.decode(data)
        if "error" in event:
            raise BadAnswer(f"{worker.id!r} broke off: {_read_error(data)}", worker=worker.id)
        choices = event["choices"]
        usage = _read_usage(event["usage"]) if event.get("usage") else None
        choice = choices[0] if choices else {}
        return Piece(delta=choice.get("delta") or {}, finish_reason=choice.get("finish_reason"), usage=usage)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
        raise BadAnswer(f"{worker.id!r} sent an event that is no completion chunk", worker=worker.id) from error


def _read_usage(usage: object) -> Usage:
    if not isinstance(usage, Mapping):
        return Usage()
    return Usage(input_tokens=_count(usage.get("prompt_tokens")), output_tokens=_count(usage.get("completion_tokens")))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
