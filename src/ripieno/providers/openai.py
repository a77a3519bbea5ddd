"""Any OpenAI-compatible base URL: hosted, vLLM, Ollama, llama.cpp."""

import difflib
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlsplit

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from ripieno.domain import Answer, JsonValue, Task, Worker
from ripieno.errors import (
    BadAnswer,
    ConfigError,
    ProviderError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnreachable,
)
from ripieno.providers.base import Piece
from ripieno.providers.completions import read_code, read_completion, read_error, read_events, read_piece
from ripieno.providers.http import HttpClient, Timeouts, Unreachable

NO_ROUTE = (404, 405, 501)
"""Statuses of a server without a list of models."""
NOT_VERIFIED = "reachable, model not verified: the server has no list of models"
MOST_CARDS = 1000
"""Worker cards whose validated options are cached. The cache is cleared beyond this."""


class OpenAIOptions(BaseModel):
    """Options of `kind = "openai"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    """Address up to and including `/v1`."""
    api_key: SecretStr | None = None
    """Set by RIPIENO_PROVIDERS__NAME__API_KEY, never in the file."""
    api_key_env: str | None = None
    """Name of another environment variable that holds the key."""
    needs_key: bool = False
    """Whether a missing key is an error at once."""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    first_token_timeout_s: float = Field(default=60.0, gt=0)
    idle_timeout_s: float = Field(default=30.0, gt=0)
    total_timeout_s: float = Field(default=300.0, gt=0)

    @field_validator("base_url")
    @classmethod
    def _check_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or parts.hostname is None or parts.port == 0:
            raise ValueError(f"{value!r} is not an http or https address; write http://host:port/v1")
        return value


class WorkerOptions(BaseModel):
    """Options of one worker behind an OpenAI-compatible provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str | None = None
    """A system message for tasks without one."""
    has_developer_role: bool = False
    """Whether the server accepts the role `developer`. If not, it is sent as `system`."""
    params: dict[str, object] = Field(default_factory=dict)
    """Request fields for tasks that do not state them."""
    samples: int = Field(default=1, ge=1, le=64)
    """Answers to sample; above 1, the most frequent is taken."""


class OpenAIProvider:
    """Sends chat completions over persistent HTTP connections."""

    can_stream = True

    def __init__(self, options: OpenAIOptions) -> None:
        self.options = options
        headers = {"content-type": "application/json"}
        if options.api_key is not None:
            headers["authorization"] = f"Bearer {options.api_key.get_secret_value()}"
        timeouts = Timeouts(
            connect_s=options.connect_timeout_s,
            first_s=options.first_token_timeout_s,
            idle_s=options.idle_timeout_s,
            total_s=options.total_timeout_s,
        )
        try:
            self._client = HttpClient(options.base_url, headers=headers, timeouts=timeouts)
        except ValueError as error:
            raise ConfigError(str(error), key="providers.base_url", hint="write http://host:port/v1") from error
        self._options: dict[int, tuple[Worker, WorkerOptions]] = {}

    async def complete(self, worker: Worker, task: Task) -> Answer:
        """Request a whole answer. If the worker samples, return the most frequent answer."""
        options = self._read_options(worker)
        body = msgspec.json.encode(_make_body(worker, task, options))
        content = await self._fetch(worker, "POST", "/chat/completions", body)
        return read_completion(worker, content, is_sampled=options.samples > 1)

    async def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        """Request an answer piece by piece."""
        options = self._read_options(worker)
        if options.samples > 1:
            answer = await self.complete(worker, task)
            yield Piece(delta={"role": "assistant", "content": answer.text})
            yield Piece(finish_reason=answer.finish_reason, usage=answer.usage)
            return
        asked = _make_body(worker, task, options) | {"stream": True, "stream_options": {"include_usage": True}}
        body, is_once = msgspec.json.encode(asked), worker.has_effects
        try:
            async with self._client.stream("POST", "/chat/completions", body, is_once=is_once) as streaming:
                if streaming.head.status != 200:
                    _refuse_status(worker, streaming.head.status, streaming.head.headers, await streaming.read())
                async for data in read_events(streaming.parts(), worker=worker.id):
                    yield read_piece(worker, data)
        except OSError as error:
            raise _translate(worker, error) from error

    async def embed(self, worker: Worker, body: Mapping[str, JsonValue]) -> bytes:
        """Request embeddings. Return the reply as received."""
        asked = {**self._read_options(worker).params, **body, "model": worker.binding.model}
        return await self._fetch(worker, "POST", "/embeddings", msgspec.json.encode(asked))

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
        names = await self._list_models(worker)
        if names is None:
            return NOT_VERIFIED
        name = worker.binding.model
        if name in names or f"{name}:latest" in names or await self._has_model(worker):
            return "reachable, model listed"
        near = difflib.get_close_matches(name, names, n=3)
        listed = ", ".join(near or sorted(names)[:5]) or "none"
        raise ProviderRejected(
            f"{worker.id!r}: the server does not list the model {name!r} among its {len(names)}",
            worker=worker.id,
            hint=f"{'nearest' if near else 'some of them'}: {listed}; set `model` of [workers.{worker.id}]",
        )

    async def _list_models(self, worker: Worker) -> set[str] | None:
        """List the models of the server; None if it has no such list."""
        try:
            content = await self._fetch(worker, "GET", "/models", total_s=self.options.connect_timeout_s + 5.0)
        except ProviderError as error:
            if error.status in NO_ROUTE:
                return None
            raise
        try:
            return {str(item["id"]) for item in msgspec.json.decode(content)["data"]}
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            raise BadAnswer(f"{worker.id!r}: /models is not a list of models", worker=worker.id) from error

    async def _has_model(self, worker: Worker) -> bool:
        """Return whether the server has one model by name: long lists have pages, and omit aliases."""
        path = f"/models/{quote(worker.binding.model, safe='/:')}"
        try:
            content = await self._fetch(worker, "GET", path, total_s=self.options.connect_timeout_s + 5.0)
            found = msgspec.json.decode(content)
            return isinstance(found["id"], str) and found.get("object", "model") == "model"
        except (ProviderError, msgspec.MsgspecError, KeyError, TypeError, AttributeError):
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _fetch(
        self, worker: Worker, method: str, path: str, body: bytes = b"", *, total_s: float | None = None
    ) -> bytes:
        """Return the body of a successful reply. All others raise a provider error."""
        try:
            reply = await self._client.fetch(method, path, body, total_s=total_s, is_once=worker.has_effects)
        except OSError as error:
            raise _translate(worker, error) from error
        _refuse_status(worker, reply.status, reply.headers, reply.body)
        return reply.body

    def _read_options(self, worker: Worker) -> WorkerOptions:
        """Return the worker's own options, validated once per card."""
        known = self._options.get(id(worker))
        if known is None or known[0] is not worker:
            if len(self._options) > MOST_CARDS:
                self._options.clear()
            known = self._options[id(worker)] = (worker, WorkerOptions.model_validate(dict(worker.binding.options)))
        return known[1]


def _make_body(worker: Worker, task: Task, options: WorkerOptions) -> dict[str, JsonValue]:
    role_of_developer = "developer" if options.has_developer_role else "system"
    messages: list[dict[str, JsonValue]] = [
        {
            "role": message.role if message.role != "developer" else role_of_developer,
            "content": message.content,
            **message.extra,
        }
        for message in task.messages
    ]
    if options.system and not any(message["role"] in ("system", "developer") for message in messages):
        messages.insert(0, {"role": "system", "content": options.system})
    body: dict[str, JsonValue] = {**options.params, **task.params, "model": worker.binding.model, "messages": messages}
    _clamp(body, worker)
    if task.tools:
        body["tools"] = list(task.tools)
    if options.samples > 1:
        body["n"] = options.samples
    return body


def _clamp(body: dict[str, JsonValue], worker: Worker) -> None:
    """Cut the requested answer length to the worker's limit: clients ask for the largest they know."""
    most = worker.max_output_tokens or worker.context_window
    if most is None:
        return
    for name in ("max_tokens", "max_completion_tokens"):
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
        case _:
            return ProviderUnreachable(f"the connection to {worker.id!r} failed: {error}", worker=worker.id)


def _refuse_status(worker: Worker, status: int, headers: Mapping[str, str], content: bytes) -> None:
    if status == 200:
        return
    said = read_error(content)
    message = f"{worker.id!r} answered {status}: {said}"
    error: ProviderError
    if status in (408, 409, 429) or status >= 500:
        error = ProviderError(message, worker=worker.id, retry_after_s=_read_retry_after(headers))
    else:
        hint = "check its API key" if status in (401, 403) else None
        error = ProviderRejected(message, worker=worker.id, hint=hint)
        error.blames_worker = status in (401, 403, 404) or status < 400
    error.status, error.code = status, read_code(content)
    raise error


def _read_retry_after(headers: Mapping[str, str]) -> float | None:
    in_ms = headers.get("retry-after-ms")
    raw = headers.get("retry-after")
    try:
        if in_ms is not None:
            return max(float(in_ms) / 1000.0, 0.0)
        if raw is None:
            return None
        is_number = raw.replace(".", "").isdigit()
        return max(float(raw) if is_number else parsedate_to_datetime(raw).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
