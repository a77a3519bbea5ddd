"""Python callables as workers: solvers, searches, classifiers, and any other function from text to text."""

import asyncio
import importlib.util
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ripieno.domain import Answer, Task, Usage, Worker
from ripieno.domain.run import CHARACTERS_PER_TOKEN
from ripieno.errors import BadAnswer, ConfigError, ProviderTimeout
from ripieno.providers.base import stream_whole
from ripieno.wires.pieces import Piece

Result = TypeVar("Result")


class CallableOptions(BaseModel):
    """Options of `kind = "callable"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds until the call counts as failed. The thread cannot be stopped, and nothing waits for it."""
    needs: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Packages that a function imports when it is called, by `module:function`. Without them its worker is masked."""
    install: str = ""
    """Command that installs them, for the hint."""


class CallableProvider:
    """Calls the worker's model name, `module:function`, with the task's text, in a thread."""

    can_stream = False

    def __init__(self, options: CallableOptions) -> None:
        self.options = options
        self._targets: dict[str, Callable[[str], str]] = {}

    async def complete(self, worker: Worker, task: Task) -> Answer:
        """Call the function. Its cost is the CPU time of its thread."""
        target = self._load(worker)
        text = task.text
        try:
            async with asyncio.timeout(self.options.timeout_s):
                answer, cpu_s = await call_in_thread(partial(_call_metered, target, text), name="ripieno-callable")
        except TimeoutError as error:
            raise ProviderTimeout(f"{worker.id!r} took over {self.options.timeout_s} s", worker=worker.id) from error
        except ConfigError:  # a missing package is a fault of the setup
            raise
        except Exception as error:
            raise BadAnswer(f"{worker.id!r} raised {type(error).__name__}: {error}", worker=worker.id) from error
        if not isinstance(answer, str) or not answer:
            raise BadAnswer(f"{worker.id!r} returned {type(answer).__name__} instead of text", worker=worker.id)
        usage = Usage(
            input_tokens=1 + int(len(text) / CHARACTERS_PER_TOKEN),
            output_tokens=1 + int(len(answer) / CHARACTERS_PER_TOKEN),
            cpu_s=cpu_s,
        )
        return Answer(text=answer, usage=usage)

    async def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        """Yield the whole answer as one piece."""
        async for piece in stream_whole(await self.complete(worker, task)):
            yield piece

    def find_fault(self, worker: Worker) -> str | None:
        """Return which package the function lacks, without importing it."""
        name = worker.binding.model
        module = name.partition(":")[0].partition(".")[0]
        missing = [each for each in (module, *self.options.needs.get(name, ())) if not _is_installed(each)]
        if not missing:
            return None
        hint = f"; {self.options.install}" if self.options.install and missing[0] != module else ""
        return f"worker {worker.id!r}: the package {missing[0]!r} is not installed{hint}"

    async def check(self, worker: Worker) -> str:
        """Import the function and its packages.

        Raises:
            ConfigError: one of them cannot be imported.
        """
        self._load(worker)
        for package in self.options.needs.get(worker.binding.model, ()):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise ConfigError(
                    f"worker {worker.id!r} needs {package!r}, which cannot be imported: {error}",
                    key=f"workers.{worker.id}.model",
                    hint=self.options.install or None,
                ) from error
        return "importable"

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _load(self, worker: Worker) -> Callable[[str], str]:
        name = worker.binding.model
        if name not in self._targets:
            self._targets[name] = load_callable(name, worker=worker.id)
        return self._targets[name]


def load_callable(name: str, *, worker: str) -> Callable[[str], str]:
    """Import `module:function`.

    Raises:
        ConfigError: the module or function does not exist.
    """
    module, _, function = name.partition(":")
    try:
        target = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"worker {worker!r}: model {name!r} cannot be imported: {error}",
            key=f"workers.{worker}.model",
            hint="write model = 'package.module:function'",
        ) from error
    if not callable(target):
        raise ConfigError(f"worker {worker!r}: {name!r} is not callable", key=f"workers.{worker}.model")
    loaded: Callable[[str], str] = target
    return loaded


def _is_installed(package: str) -> bool:
    """Return whether a top-level package is installed, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # it was not imported from a file: `__main__`
        return True


async def call_in_thread(work: Callable[[], Result], *, name: str) -> Result:
    """Call in a daemon thread. A call that never returns blocks neither other calls nor the end of the process."""
    done: Future[Result] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001  # passed to the caller
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(done)


def _call_metered(target: Callable[[str], str], text: str) -> tuple[str, float]:
    start = time.thread_time()
    answer = target(text)
    return answer, time.thread_time() - start
