"""Mask, Estimate and Decision: how a task finds its worker."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from ripieno.domain.grader import Check
from ripieno.domain.memory import MemoryRead
from ripieno.domain.task import JsonValue, Mode, Objective
from ripieno.domain.worker import Pool, WorkerId
from ripieno.domain.workflow import Workflow

DIGEST_CHARACTERS = 16


class Reason(StrEnum):
    """Why a worker may not take a task."""

    MUTED = "muted"
    UNAVAILABLE = "unavailable"
    """It cannot be opened on this machine: a package, a model file or a key is missing."""
    UNHEALTHY = "unhealthy"
    RATE_LIMITED = "rate_limited"
    OVER_BUDGET = "over_budget"
    UNKNOWN_PRICE = "unknown_price"
    """There is a budget, and nobody knows what the worker costs."""
    CONTEXT_TOO_SMALL = "context_too_small"
    LACKS_MODALITY = "lacks_modality"
    LACKS_TOOLS = "lacks_tools"
    LACKS_JSON = "lacks_json"
    PRIVACY = "privacy"
    NOT_ALLOWED = "not_allowed"
    DEPRECATED = "deprecated"
    NOT_NAMED = "not_named"
    """Its calls change something or need a human, and the request does not name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """One reason with its facts, in words."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Who may take the task, and why each other worker may not."""

    eligible: tuple[WorkerId, ...]
    masked: Mapping[WorkerId, Why] = field(default_factory=dict)


class Standing(StrEnum):
    """How far a worker may be used; a new one climbs from first to last as outcomes come in."""

    MASKED = "masked"
    """Nothing is known of it: it takes no task while another worker may."""
    SHADOW = "shadow"
    """Scored, and the last to stand in for others."""
    TRIAL = "trial"
    """A small share of the tasks it may be best at."""
    FREE = "free"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the predictor expects of one worker on one task."""

    worker: WorkerId
    quality: float
    """Probability of an accepted answer, in [0, 1]."""
    quality_sd: float
    """Standard deviation of that probability, from how little is known, not from chance."""
    cost_usd: float | None
    """Expected price of the call, in US dollars; None where it is unknown."""
    latency_s: float
    """Median time to the whole answer, in seconds."""
    latency_log_sd: float = 0.5
    """Standard deviation of log latency."""
    is_measured: bool = True
    """False where the worker has no outcomes yet and a prior stands in."""
    mean_quality: float | None = None
    """The worker's quality over all known tasks, where the predictor tells; what the guard's incumbent is found by."""
    output_tokens: float | None = None
    """Expected length of the answer, in tokens, where lengths were measured."""
    first_token_s: float | None = None
    """Expected time to the first token, in seconds, where streams of the worker were timed."""
    score: float | None = None
    """The raw score, where the predictor makes one: a logit of the heads."""
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
        """Expected pace after the first token; None where length or first token are unknown."""
        if self.output_tokens is None or self.first_token_s is None or self.latency_s <= self.first_token_s:
            return None
        return self.output_tokens / (self.latency_s - self.first_token_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a policy made of the estimates: an order, how likely it was to start so, and why."""

    order: tuple[WorkerId, ...]
    """Eligible workers, the chosen one first, then the fallbacks."""
    propensity: float
    """Probability that the policy chooses `order[0]` on this task, in (0, 1]."""
    utilities: Mapping[WorkerId, float]
    reasons: tuple[str, ...]
    abstains: bool = False
    """Whether no answer is better than the best one to be expected."""

    def __post_init__(self) -> None:
        if not self.order:
            raise ValueError("a choice needs at least one worker")
        if not 0.0 < self.propensity <= 1.0:
            raise ValueError(f"propensity must be in (0, 1], got {self.propensity!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSetup:
    """What stays the same from one decision to the next; the ledger holds each setup once, under its digest."""

    pool: Pool
    policy: str = "utility"
    """Name of the policy plugin."""
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    """Options that the policy was made with."""
    rules: str = ""
    """Text of the rules file, where the policy has one."""
    modes: frozenset[Mode] = frozenset(Mode)
    """Workflows that a request may ask for."""
    judge: WorkerId | None = None
    """The worker that judges answers where nothing else can check them."""
    chooses_workflows: bool = True
    """Whether the policy may choose a workflow of the checkpoint unasked."""
    features: str = ""
    """Name of the features' schema; see `FeatureSchema`."""
    _digest: str = field(default="", init=False, repr=False, compare=False)

    @property
    def digest(self) -> str:
        """Short SHA-256 of the setup. A worker's options count through its version, as the record leaves them out."""
        if not self._digest:
            bare = replace(self, pool=self._bare_pool())
            packed = json.dumps(asdict(bare), sort_keys=True, default=_order)
            digest = hashlib.sha256(packed.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_CHARACTERS]
            object.__setattr__(self, "_digest", digest)  # the same whenever it is asked for
        return self._digest

    def without_options(self) -> "RoutingSetup":
        """Return the setup as the ledger keeps it: of the same digest; see `Worker.without_options`."""
        bare = replace(self, pool=self._bare_pool())
        object.__setattr__(bare, "_digest", self.digest)
        return bare

    def _bare_pool(self) -> Pool:
        return Pool(tuple(worker.without_options() for worker in self.pool))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedInputs:
    """What a decision depended on, beside what it holds anyway: a replay reads both."""

    setup: str
    """Digest of the `RoutingSetup`, which the ledger holds once."""
    kind: str | None = None
    """The kind of task as the caller stated it."""
    sensitivity: frozenset[str] = frozenset()
    """What was found in the text that should not travel far."""
    is_encoded: bool = True
    """False where the features hold no vector of the text, because it may not travel to the encoder, or is empty."""
    check: Check | None = None
    """The check as the request stated it, where the decision read it."""
    is_given: bool = False
    """Whether the caller wrote the workflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was chosen, and all that a replay and an explanation need."""

    id: str
    workflow: Workflow
    propensity: float
    policy: str
    """Name of the policy that chose."""
    policy_facts: Mapping[str, JsonValue]
    """The policy's own parameters, for a replay."""
    predictor: str
    """Version of the checkpoint that estimated, or the name of an untrained predictor."""
    objective: Objective
    mask: Mask
    estimates: tuple[Estimate, ...]
    utilities: Mapping[WorkerId, float]
    reasons: tuple[str, ...]
    seed: int
    kind: str | None = None
    """The kind of task, stated or inferred."""
    load: Mapping[WorkerId, float] = field(default_factory=dict)
    """How many calls stood before this one at the workers that were full, for each that they take at once."""
    incumbent: WorkerId | None = None
    """The worker that has answered the earlier turns of the same conversation."""
    learned_workflow: WorkerId | None = None
    """Name of the workflow among the estimates, where one was chosen in place of a worker."""
    advice: Mapping[str, float] = field(default_factory=dict)
    """Further shares that the predictor has a head for: cascade, verify, abstain."""
    memory: MemoryRead | None = None
    """What memory was read for it; None where it was not asked for."""
    project: str = ""
    """Whose memory it was, and whose the task is."""
    abstains: bool = False
    """Whether nobody is asked, as the best answer to be expected is worth less than none."""
    inputs: RecordedInputs | None = None
    """What the decision depended on beside the fields above; None where an older Ripieno recorded it."""
    decide_s: float = 0.0
    """Time from the task's arrival to this decision, in seconds."""

    @property
    def worker(self) -> WorkerId:
        """The worker that was chosen first."""
        return self.workflow.worker

    @property
    def choice(self) -> WorkerId:
        """What was chosen among the estimates: a worker, or a workflow by its name."""
        return self.learned_workflow or self.worker


def _order(value: object) -> object:
    """Give JSON a form for sets, and for what it does not know."""
    return sorted(value) if isinstance(value, frozenset) else str(value)
