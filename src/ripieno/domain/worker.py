"""Worker and Pool: the models, tools and humans that can take a task."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import NewType

from ripieno.domain.objective import Privacy
from ripieno.domain.price import UNKNOWN, Price

WorkerId = NewType("WorkerId", str)

_CANONICAL = re.compile(r"[a-z0-9][a-z0-9._:/@+-]*")


def parse_worker_id(text: str) -> WorkerId:
    """Check a canonical worker id: lower case, no spaces.

    Raises:
        ValueError: `text` is not canonical; the message suggests a canonical form.
    """
    if not _CANONICAL.fullmatch(text):
        suggestion = re.sub(r"[^a-z0-9._:/@+-]+", "-", text.strip().lower()).strip("._:/@+-") or "my-worker"
        raise ValueError(f"worker id {text!r} is not canonical; write {suggestion!r}")
    return WorkerId(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The provider of a worker, the provider's name of the model, and options."""

    provider: str
    model: str
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker card: the facts that are known before a measurement."""

    id: WorkerId
    binding: Binding
    price: Price = UNKNOWN
    """Unknown until it is stated or found in the price list."""
    context_window: int | None = None
    """Tokens of prompt and answer together; None if unknown."""
    max_output_tokens: int | None = None
    """Limit of the output tokens; higher limits of a request are reduced to it."""
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
    """Model family. Agreement within a family is weak evidence. Default: the id up to its first separator."""
    is_tool: bool = False
    """True for a solver that is no model. It gets the bare input of a step, without instructions."""
    can_run: bool = False
    """True if the worker executes its input. Only such a worker may take a `run` step of a plan."""
    has_effects: bool = False
    """True if a call has effects outside. It is then made at most once, and has no fallback."""
    needs_approval: bool = False
    """True if a human must approve each call."""
    _version: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, got {self.max_concurrency!r} for {self.id!r}")
        if self.context_window is not None and self.context_window < 1:
            raise ValueError(f"context_window must be positive, got {self.context_window!r} for {self.id!r}")

    @property
    def is_restricted(self) -> bool:
        """Return whether calls have effects or need approval. Such a worker is never a fallback."""
        return self.has_effects or self.needs_approval

    @property
    def model_family(self) -> str:
        """Return the stated family, or the id up to its first separator."""
        return self.family or re.split(r"[-/:@]", self.id, maxsplit=1)[0]

    @property
    def version(self) -> str:
        """Return a short digest of everything that can change the answers. Outcomes count for their version only."""
        if not self._version:
            seen = {"id": self.id, **asdict(self.binding)}
            version = hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode()).hexdigest()[:12]
            object.__setattr__(self, "_version", version)  # computed once
        return self._version

    def without_options(self) -> "Worker":
        """Return the card as the ledger stores it: with the same version, without options, which may be private."""
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
                raise ValueError(f"worker id {worker.id!r} is in the pool twice")
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
        """Return the workers' ids, in order."""
        return tuple(worker.id for worker in self.workers)
