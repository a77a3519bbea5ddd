"""Mask, Estimate and Decision: the values of routing."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from ripieno.domain.conversation import JsonValue
from ripieno.domain.grader import Check
from ripieno.domain.memory import MemoryRead
from ripieno.domain.objective import Mode, Objective
from ripieno.domain.worker import Pool, WorkerId
from ripieno.domain.workflow import Workflow

DIGEST_CHARACTERS = 16


class Reason(StrEnum):
    """Reason why a worker may not take a task."""

    MUTED = "muted"
    UNAVAILABLE = "unavailable"
    """The worker cannot be opened on this machine: a package, a model file or a key is missing."""
    UNHEALTHY = "unhealthy"
    RATE_LIMITED = "rate_limited"
    OVER_BUDGET = "over_budget"
    UNKNOWN_PRICE = "unknown_price"
    """There is a budget, and the worker's price is unknown."""
    CONTEXT_TOO_SMALL = "context_too_small"
    LACKS_MODALITY = "lacks_modality"
    LACKS_TOOLS = "lacks_tools"
    LACKS_JSON = "lacks_json"
    CANNOT_CARRY = "cannot_carry"
    """The wire format of the worker has no form for a part of the request, and that of another worker has."""
    PRIVACY = "privacy"
    NOT_ALLOWED = "not_allowed"
    DEPRECATED = "deprecated"
    NOT_NAMED = "not_named"
    """The worker's calls have effects or need approval, and the request does not name the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """A reason with its details in words."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """The eligible workers, and the reason for each other worker."""

    eligible: tuple[WorkerId, ...]
    masked: Mapping[WorkerId, Why] = field(default_factory=dict)


class Standing(StrEnum):
    """How far a worker may be used. A new worker rises from first to last as its outcomes come in."""

    MASKED = "masked"
    """It has no outcomes, and takes a task only if no other worker may."""
    SHADOW = "shadow"
    """It is estimated, and is the last fallback."""
    TRIAL = "trial"
    """It gets a small share of the tasks on which it may be the best."""
    FREE = "free"
    """It may take every task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The predictor's estimate of one worker on one task."""

    worker: WorkerId
    quality: float
    """Probability of an accepted answer, in [0, 1]."""
    quality_sd: float
    """Standard deviation of that probability, due to lack of data and not to chance."""
    cost_usd: float | None
    """Expected price of the call, in US dollars; None if it is unknown."""
    latency_s: float
    """Median time to the whole answer, in seconds."""
    latency_log_sd: float = 0.5
    """Standard deviation of log latency."""
    is_measured: bool = True
    """False if the worker has no outcomes and the estimate is a prior."""
    mean_quality: float | None = None
    """Mean quality over all known tasks, if the predictor has one. It determines the guard's incumbent."""
    output_tokens: float | None = None
    """Expected output tokens, if lengths were measured."""
    first_token_s: float | None = None
    """Expected time to the first token, in seconds, if the worker's streams were timed."""
    score: float | None = None
    """The predictor's raw score, if it has one: a logit of the heads."""
    standing: Standing = Standing.FREE

    def __post_init__(self) -> None:
        if not 0.0 <= self.quality <= 1.0:
            raise ValueError(f"quality must be in [0, 1], got {self.quality!r} for {self.worker!r}")
        cost = 0.0 if self.cost_usd is None else self.cost_usd
        if self.quality_sd >= 0.0 and cost >= 0.0 and self.latency_s >= 0.0 and self.latency_log_sd >= 0.0:
            return
        names = ("quality_sd", "cost_usd", "latency_s", "latency_log_sd")
        name = next(name for name in names if getattr(self, name) is not None and not getattr(self, name) >= 0.0)
        raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r} for {self.worker!r}")

    @property
    def tokens_per_s(self) -> float | None:
        """Return the expected rate after the first token; None if length or first token are unknown."""
        if self.output_tokens is None or self.first_token_s is None or self.latency_s <= self.first_token_s:
            return None
        return self.output_tokens / (self.latency_s - self.first_token_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A policy's order of the workers, with its propensity and reasons."""

    order: tuple[WorkerId, ...]
    """Eligible workers: the chosen one, then the fallbacks."""
    propensity: float
    """Probability that the policy chooses `order[0]` on this task, in (0, 1]."""
    utilities: Mapping[WorkerId, float]
    reasons: tuple[str, ...]
    abstains: bool = False
    """True if no answer is worth more than the best expected answer."""

    def __post_init__(self) -> None:
        if not self.order:
            raise ValueError("a choice needs at least one worker")
        if not 0.0 < self.propensity <= 1.0:
            raise ValueError(f"propensity must be in (0, 1], got {self.propensity!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSetup:
    """The inputs that many decisions share. The ledger holds each setup once, under its digest."""

    pool: Pool
    policy: str = "utility"
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    rules: str = ""
    """Text of the rules file, if the policy has one."""
    modes: frozenset[Mode] = frozenset(Mode)
    """Workflows that a request may name."""
    judge: WorkerId | None = None
    """The worker that judges answers if nothing else can check them."""
    chooses_workflows: bool = True
    """True if the policy may choose a learned workflow although the request names none."""
    features: str = ""
    """Name of the features' schema; see `FeatureSchema`."""
    _digest: str = field(default="", init=False, repr=False, compare=False)

    @property
    def digest(self) -> str:
        """Return the short SHA-256 of the setup. The options of a worker count through the worker's version."""
        if not self._digest:
            bare = replace(self, pool=self._bare_pool())
            packed = json.dumps(asdict(bare), sort_keys=True, default=_order)
            digest = hashlib.sha256(packed.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_CHARACTERS]
            object.__setattr__(self, "_digest", digest)  # computed once
        return self._digest

    def without_options(self) -> "RoutingSetup":
        """Return the setup as the ledger stores it, with the same digest; see `Worker.without_options`."""
        bare = replace(self, pool=self._bare_pool())
        object.__setattr__(bare, "_digest", self.digest)
        return bare

    def _bare_pool(self) -> Pool:
        return Pool(tuple(worker.without_options() for worker in self.pool))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedInputs:
    """Inputs of a decision that are no fields of it. A replay reads both."""

    setup: str
    """Digest of the `RoutingSetup`."""
    kind: str | None = None
    """Kind of the task, if the caller stated it."""
    sensitivity: frozenset[str] = frozenset()
    """Kinds of sensitive data in the text."""
    is_encoded: bool = True
    """False if the features hold no vector of the text: it is empty or may not travel to the encoder."""
    check: Check | None = None
    """The check of the request, if the decision depended on it."""
    is_given: bool = False
    """True if the request stated the workflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The chosen workflow, and everything that a replay and an explanation need."""

    id: str
    workflow: Workflow
    propensity: float
    policy: str
    policy_facts: Mapping[str, JsonValue]
    """Parameters of the policy, for a replay."""
    predictor: str
    """Version of the checkpoint, or the name of an untrained predictor."""
    objective: Objective
    mask: Mask
    estimates: tuple[Estimate, ...]
    utilities: Mapping[WorkerId, float]
    reasons: tuple[str, ...]
    seed: int
    kind: str | None = None
    load: Mapping[WorkerId, float] = field(default_factory=dict)
    """Running and waiting calls of each full worker, divided by its concurrency limit."""
    incumbent: WorkerId | None = None
    """The worker that answered the earlier turns of the conversation."""
    learned_workflow: WorkerId | None = None
    """Name of the learned workflow among the estimates, if it was chosen in place of a worker."""
    advice: Mapping[str, float] = field(default_factory=dict)
    """Further outputs of the predictor in [0, 1]: cascade, verify, abstain."""
    memory: MemoryRead | None = None
    """The memory that was read; None if memory is off."""
    project: str = ""
    """Project of the task and its memory."""
    abstains: bool = False
    """True if no worker is called, because the best expected answer is worth less than no answer."""
    inputs: RecordedInputs | None = None
    """Further inputs; None if an older version recorded the decision."""
    decide_s: float = 0.0
    """Time from the task's arrival to this decision, in seconds."""

    @property
    def worker(self) -> WorkerId:
        """Return the first worker of the workflow."""
        return self.workflow.worker

    @property
    def choice(self) -> WorkerId:
        """Return the chosen one of the estimates: a worker, or the name of a learned workflow."""
        return self.learned_workflow or self.worker


def _order(value: object) -> object:
    """Convert a set or an unknown value for JSON."""
    return sorted(value) if isinstance(value, frozenset) else str(value)
