"""Worker and Pool: what can take a task, and at what price."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import NewType

from ripieno.domain.price import UNKNOWN, Price
from ripieno.domain.task import Privacy

WorkerId = NewType("WorkerId", str)

_CANONICAL = re.compile(r"[a-z0-9][a-z0-9._:/@+-]*")


def parse_worker_id(text: str) -> WorkerId:
    """Check a canonical worker id: lower case, no spaces.

    Raises:
        ValueError: `text` is not canonical; the message suggests a form that is.
    """
    if not _CANONICAL.fullmatch(text):
        suggestion = re.sub(r"[^a-z0-9._:/@+-]+", "-", text.strip().lower()).strip("._:/@+-") or "my-worker"
        raise ValueError(f"worker id {text!r} is not canonical; write {suggestion!r}")
    return WorkerId(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Where a worker really runs: the provider's name, its name for the model, and options of that provider."""

    provider: str
    model: str
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker card: what may be known of a worker before it is measured."""

    id: WorkerId
    binding: Binding
    price: Price = UNKNOWN
    """Unknown until it is stated or found in the price list."""
    context_window: int | None = None
    """Tokens of prompt and answer together; None when unknown."""
    max_output_tokens: int | None = None
    """Largest answer that may be asked for, in tokens; a request for more is cut down to it."""
    modalities: frozenset[str] = frozenset({"text"})
    """Kinds of input: text, image, audio."""
    has_tools: bool = True
    has_json_mode: bool = True
    privacy: Privacy = Privacy.PUBLIC
    region: str | None = None
    max_concurrency: int = 8
    deprecated_on: date | None = None
    is_muted: bool = False
    notes: str = ""
    family: str = ""
    """What it shares its faults with: two workers of one family that agree prove little. Empty takes the id's stem."""
    is_tool: bool = False
    """Whether it is a solver and no model: it is given the bare input of a step, without instructions."""
    can_run: bool = False
    """Whether it executes what it is given: only such a worker may take a plan's `run`."""
    has_effects: bool = False
    """Whether a call changes something outside: then it is made at most once, and nobody stands in for it."""
    needs_approval: bool = False
    """Whether a human must agree to each call."""
    _version: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, got {self.max_concurrency!r} for {self.id!r}")
        if self.context_window is not None and self.context_window < 1:
            raise ValueError(f"context_window must be positive, got {self.context_window!r} for {self.id!r}")

    @property
    def is_restricted(self) -> bool:
        """Whether a call of it is more than a question: it never stands in for another worker."""
        return self.has_effects or self.needs_approval

    @property
    def model_family(self) -> str:
        """The family, or the id up to its first separator."""
        return self.family or re.split(r"[-/:@]", self.id, maxsplit=1)[0]

    @property
    def version(self) -> str:
        """Short digest of what can change this worker's answers; outcomes of another version are not its own."""
        if not self._version:
            seen = {"id": self.id, **asdict(self.binding)}
            version = hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode()).hexdigest()[:12]
            object.__setattr__(self, "_version", version)  # the same whenever it is asked for
        return self._version

    def without_options(self) -> "Worker":
        """Return the card as the ledger keeps it: of the same version, without the options, which may be private."""
        bare = replace(self, binding=replace(self.binding, options={}))
        object.__setattr__(bare, "_version", self.version)
        return bare


@dataclass(frozen=True, slots=True)
class Pool:
    """An immutable set of workers, in the order of the configuration."""

    workers: tuple[Worker, ...]

    def __post_init__(self) -> None:
        seen: set[WorkerId] = set()
        for worker in self.workers:
            if worker.id in seen:
                raise ValueError(f"worker id {worker.id!r} stands twice in the pool")
            seen.add(worker.id)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self.workers)

    def __len__(self) -> int:
        return len(self.workers)

    def __contains__(self, worker_id: object) -> bool:
        return any(worker.id == worker_id for worker in self.workers)

    def __getitem__(self, worker_id: str) -> Worker:
        for worker in self.workers:
            if worker.id == worker_id:
                return worker
        raise KeyError(worker_id)

    @property
    def ids(self) -> tuple[WorkerId, ...]:
        """The workers' ids, in order."""
        return tuple(worker.id for worker in self.workers)
