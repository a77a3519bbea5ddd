"""A replay worker: answers from recorded outcomes, with their cost and latency."""

from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ripieno.domain import Answer, Task, Usage, Worker
from ripieno.errors import BadAnswer
from ripieno.providers.base import stream_whole
from ripieno.tasks import RoutingData, read_folder
from ripieno.wires.pieces import Piece


class ReplayOptions(BaseModel):
    """Options of `kind = "replay"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    """A routing-data folder. The worker's model name is a `model_id` in it."""


class ReplayProvider:
    """Finds a task by its text. Repeats of one pair are returned in turn."""

    can_stream = False

    def __init__(self, options: ReplayOptions) -> None:
        self._data: RoutingData | None = None
        self._folder = options.folder
        self._rows: dict[tuple[str, str], list[int]] = {}
        self._served: dict[tuple[str, str], int] = {}

    async def complete(self, worker: Worker, task: Task) -> Answer:
        """Return the recorded outcome of this task on this worker."""
        data = self._load()
        key = (worker.binding.model, task.text)
        rows = self._rows.get(key)
        if not rows:
            raise BadAnswer(f"no outcome of this task is recorded for {worker.id!r}", worker=worker.id)
        row = rows[self._served.get(key, 0) % len(rows)]
        self._served[key] = self._served.get(key, 0) + 1
        return Answer(
            text=f"[recorded outcome {data.prompts[data.prompt_index[row]].id} of {worker.binding.model}]",
            usage=Usage(input_tokens=_whole(data.input_tokens[row]), output_tokens=_whole(data.output_tokens[row])),
            recorded_quality=float(data.quality[row]),
            cost_usd=_known(data.cost_usd[row]),
            latency_s=_known(data.latency_s[row]),
        )

    async def stream(self, worker: Worker, task: Task) -> AsyncIterator[Piece]:
        """Yield the recorded outcome as one piece."""
        async for piece in stream_whole(await self.complete(worker, task)):
            yield piece

    async def check(self, worker: Worker) -> str:
        """Read the folder and find the model."""
        data = self._load()
        count = sum(model == worker.binding.model for model, _ in self._rows)
        if not count:
            raise BadAnswer(f"{worker.binding.model!r} is not in {data.name!r}", worker=worker.id)
        return f"{count} recorded prompts"

    async def close(self) -> None:
        """Drop the records."""
        self._data = None
        self._rows.clear()

    def _load(self) -> RoutingData:
        if self._data is None:
            data = read_folder(self._folder)
            for row in range(len(data.quality)):
                prompt, model = data.prompts[data.prompt_index[row]], data.models[data.model_index[row]]
                self._rows.setdefault((model.id, prompt.text), []).append(row)
            self._data = data
        return self._data


def _known(value: float) -> float | None:
    return None if value != value else float(value)


def _whole(value: float) -> int | None:
    return None if value != value else int(value)
