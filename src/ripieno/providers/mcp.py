"""Tools of MCP servers as workers: each worker is one tool of a server."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ripieno.domain import Answer, JsonValue, Task, Usage, Worker
from ripieno.errors import BadAnswer, ConfigError, ProviderTimeout, ProviderUnreachable
from ripieno.plugins import require_extra
from ripieno.providers.base import stream_whole
from ripieno.wires.base import fields_of
from ripieno.wires.pieces import Piece

if TYPE_CHECKING:
    from mcp import Client


class McpOptions(BaseModel):
    """Options of `kind = "mcp"`: a command that is started, or the address of a server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str | None = None
    """Program that speaks the protocol on its standard input and output."""
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    """Variables of the program, beside a few that the SDK passes on."""
    url: str | None = None
    """Address of a server that speaks streamable HTTP."""
    start_timeout_s: float = Field(default=30.0, gt=0)
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds that a call may take."""

    @model_validator(mode="after")
    def _check_target(self) -> "McpOptions":
        if (self.command is None) == (self.url is None):
            raise ValueError("state either command or url")
        return self


class McpProvider:
    """Keeps one session with a server, and calls its tools. The session begins with the first call.

    A dead session ends all its calls with an error, and the next call begins another one.
    """

    can_stream = False

    def __init__(self, options: McpOptions) -> None:
        self.options = options
        self._session: _Session | None = None

    async def complete(self, worker: Worker, task: Task) -> Answer:
        """Call the tool that the worker's model names, with the task's text as its input."""
        session = await self._open(worker)
        schema = session.schema_of(worker)
        arguments = make_arguments(task.text, schema, worker=worker.id)
        try:
            async with asyncio.timeout(self.options.timeout_s):
                result = await session.call(worker, arguments)
        except TimeoutError as error:
            raise ProviderTimeout(f"{worker.id!r} took over {self.options.timeout_s} s", worker=worker.id) from error
        text = "\n".join(part.text for part in result.content if getattr(part, "type", "") == "text")
        if not text and result.structured_content is not None:
            text = msgspec.json.encode(result.structured_content).decode()
        if result.is_error:
            raise BadAnswer(f"{worker.id!r} failed: {text[:300] or 'without a reason'}", worker=worker.id)
        if not text:
            raise BadAnswer(f"{worker.id!r} returned no text", worker=worker.id)
        return Answer(text=text, usage=Usage(input_tokens=0, output_tokens=0))

    async def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        """Yield the whole result as one piece."""
        async for piece in stream_whole(await self.complete(worker, task)):
            yield piece

    def find_fault(self, worker: Worker) -> str | None:
        """Return that the SDK is missing, if it is."""
        try:
            _require_sdk()
        except ConfigError as error:
            return error.message if error.hint is None else f"{error.message}; {error.hint}"
        return None

    async def check(self, worker: Worker) -> str:
        """Begin a session, and find the tool."""
        session = await self._open(worker)
        session.schema_of(worker)
        return f"tool listed among {len(session.tools)}"

    async def close(self) -> None:
        """End the session, and the program behind it."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _open(self, worker: Worker) -> "_Session":
        _require_sdk()
        session = self._session
        if session is None or session.is_over:
            session = self._session = _Session(self.options)
        try:
            async with asyncio.timeout(self.options.start_timeout_s):
                await session.started(worker)
        except TimeoutError as error:
            await self.close()
            late = f"the MCP server of {worker.id!r} did not start in time"
            raise ProviderUnreachable(late, worker=worker.id) from error
        return session


class _Session:
    """One session in a task of its own, because the SDK's scopes must end where they began."""

    def __init__(self, options: McpOptions) -> None:
        self.tools: dict[str, Mapping[str, JsonValue]] = {}
        """Schemas of the tools' inputs, by name."""
        self._options = options
        self._client: Client | None = None
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._fault: BaseException | None = None
        self._task = asyncio.create_task(self._run())

    @property
    def is_over(self) -> bool:
        """Whether the session has ended, or is about to."""
        return self._task.done() or self._stop.is_set()

    async def started(self, worker: Worker) -> None:
        """Wait until the session has started.

        Raises:
            ProviderUnreachable: it did not start.
        """
        await self._ready.wait()
        if self._fault is not None:
            raise self._unreachable(worker, self._fault)

    def schema_of(self, worker: Worker) -> Mapping[str, JsonValue]:
        """Return the input schema of a worker's tool.

        Raises:
            ConfigError: the server has no such tool.
        """
        name = worker.binding.model
        if name not in self.tools:
            listed = ", ".join(sorted(self.tools)[:20]) or "none"
            raise ConfigError(
                f"the MCP server of {worker.id!r} has no tool {name!r}",
                key=f"workers.{worker.id}.model",
                hint=f"its tools: {listed}",
            )
        return self.tools[name]

    async def call(self, worker: Worker, arguments: dict[str, Any]) -> Any:
        """Call a tool.

        Raises:
            ProviderUnreachable: the server died.
        """
        assert self._client is not None
        calling = asyncio.ensure_future(self._client.call_tool(worker.binding.model, arguments))
        fault = self._fault
        try:
            await asyncio.wait({calling, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if calling.done():
                return calling.result()
        except Exception as error:  # noqa: BLE001  # the SDK raises errors of its transports
            fault = error
        finally:
            calling.cancel()
        self._stop.set()  # whatever state the session is in, the next call begins another one
        raise self._unreachable(worker, fault)

    async def close(self) -> None:
        """End the session. One that has not started is cancelled, because it waits for its server."""
        self._stop.set()
        if self._client is None:
            self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        from mcp import Client, StdioServerParameters

        options = self._options
        target: Any = options.url
        if options.command is not None:
            target = StdioServerParameters(command=options.command, args=list(options.args), env=options.env or None)
        try:
            async with Client(target) as client:
                listed = await client.list_tools()
                self.tools = {tool.name: fields_of(tool.input_schema) for tool in listed.tools}
                self._client = client
                self._ready.set()
                await self._stop.wait()
        except Exception as error:  # noqa: BLE001  # the SDK raises groups and errors of its transports
            self._fault = error
        finally:
            self._ready.set()

    def _unreachable(self, worker: Worker, error: BaseException | None) -> ProviderUnreachable:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        said = f"{type(error).__name__}: {error}" if error is not None else "it ended"
        return ProviderUnreachable(
            f"the MCP server of {worker.id!r} cannot be reached: {said[:300]}",
            worker=worker.id,
            hint="does its command run by itself?",
        )


def make_arguments(text: str, schema: Mapping[str, JsonValue], *, worker: str) -> dict[str, JsonValue]:
    """Make a tool's arguments of a text: a JSON object as it is, or the text as the only argument.

    Raises:
        BadAnswer: the tool wants several arguments, and the text is no JSON object.
    """
    properties = fields_of(schema.get("properties"))
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if isinstance(found, dict) and (not properties or set(found) <= set(properties)):
        return found
    if not properties:
        return {}
    required = schema.get("required")
    names = [str(name) for name in required] if isinstance(required, list) and required else list(properties)
    texts = [name for name in names if fields_of(properties.get(name)).get("type") in ("string", None)]
    if len(names) == 1 and texts:
        return {names[0]: text}
    raise BadAnswer(f"{worker!r} wants a JSON object with {', '.join(sorted(properties))[:200]}", worker=worker)


def _require_sdk() -> None:
    """Check that the SDK is installed, without importing it.

    Raises:
        ConfigError: it is not.
    """
    require_extra("mcp", "a tool of an MCP server", ["mcp"])
