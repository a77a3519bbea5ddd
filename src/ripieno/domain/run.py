"""Call, Verdict, Run and Outcome: what happened, and what it was worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ripieno.domain.price import Usage
from ripieno.domain.task import JsonValue
from ripieno.domain.worker import WorkerId

CHARACTERS_PER_TOKEN = 3.6
"""Of English text under the o200k vocabulary: how long a token is where nobody counted."""


class Origin(StrEnum):
    """Where a run comes from."""

    TRAFFIC = "traffic"
    PROFILE = "profile"
    IMPORT = "import"


class Failure(StrEnum):
    """How a call failed."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    REJECTED = "rejected"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    BAD_ANSWER = "bad_answer"
    BUSY = "busy"
    """It was not asked: too many calls waited for it."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a worker said."""

    text: str
    usage: Usage = field(default_factory=Usage)
    finish_reason: str = "stop"
    message: Mapping[str, JsonValue] = field(default_factory=dict)
    """Further fields of the assistant's message (tool_calls, reasoning, ...), passed on untouched."""
    recorded_quality: float | None = None
    """The quality a replay worker has on record, in [0, 1]."""
    cost_usd: float | None = None
    """The price, where the provider knows it better than tokens times list price does."""
    latency_s: float | None = None
    """The time it took when it was recorded, for a replay worker."""
    wire: bytes = b""
    """The reply as it came, where it is a chat completion: passed on to clients of that form, never recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One exchange with a provider."""

    worker: WorkerId
    worker_version: str
    usage: Usage
    cost_usd: float | None
    """Price in US dollars; None where it is unknown."""
    latency_s: float | None
    """Time to the whole answer; None where an imported outcome does not tell."""
    first_token_s: float | None = None
    attempts: int = 1
    failure: Failure | None = None
    error: str | None = None
    step: str = ""
    """Name of the workflow's step that it belongs to; empty where there is only one."""

    @property
    def tokens(self) -> int:
        """Tokens in and out, as far as they are known."""
        return (self.usage.input_tokens or 0) + (self.usage.output_tokens or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a run stands in a measured set of tasks."""

    dataset: str
    """Name of the campaign or of the imported set."""
    item: str
    """Name of the task within the set."""
    split: str = "train"
    group: str = ""
    """Tasks of one group never stand on both sides of a split; empty means the task alone."""
    repeat: int = 0
    source: str = ""
    """Where the graded task can be read again: a file, `embedded` or `gym:...`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One verifier's finding about one run."""

    verifier: str
    quality: float
    """In [0, 1]; 1 is accepted."""
    detail: str = ""
    found: float | None = None
    """What the verifier gave, where `quality` is what its findings have been worth."""
    edited: float | None = None
    """Share of the answer that somebody changed, where they gave their own, in [0, 1]."""

    @property
    def is_void(self) -> bool:
        """Whether a verifier failed, which earlier versions recorded as quality 0: nothing is known of the answer."""
        return self.verifier == "judge_failed" or self.detail.startswith("not checked: ")

    @property
    def own(self) -> float:
        """What the verifier itself gave, in [0, 1]."""
        return self.quality if self.found is None else self.found

    def __post_init__(self) -> None:
        if not 0.0 <= self.quality <= 1.0:
            raise ValueError(f"quality must be in [0, 1], got {self.quality!r} from {self.verifier!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a workflow found about one of its own answers, on its way."""

    step: str
    """Name of the step that was checked."""
    author: WorkerId
    """Whose answer it was."""
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchecked:
    """An answer that a workflow could not check, because what checks it failed: nothing is known of its worth."""

    step: str
    """Name of the step that was to be checked."""
    author: WorkerId
    """Whose answer it was."""
    verifier: str
    """What failed."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that one workflow did for one task."""

    id: str
    task: str
    """Digest of the task."""
    origin: Origin
    calls: tuple[Call, ...]
    answer: Answer | None
    """None when every call failed."""
    decision: str | None = None
    """Id of the decision, where one was made."""
    placement: Placement | None = None
    """Its place in a measured set, where it belongs to one."""
    key: str | None = None
    """Id of the virtual key that pays for it."""
    workflow: str = "solo"
    """Kind of the workflow."""
    learned_workflow: WorkerId | None = None
    """Name of the workflow among the estimates, where the router chose it by itself."""
    author: WorkerId | None = None
    """Whose answer was given, where that is not the last call's worker."""
    findings: tuple[Finding, ...] = ()
    """What the workflow's own checks found."""
    unchecked: tuple[Unchecked, ...] = ()
    """What the workflow's own checks could not find out."""
    ended_early: str | None = None
    """Why the workflow was not carried through, where it gave the best that it had."""
    wall_s: float | None = None
    """Time from first to last call, where calls ran side by side; None where they followed one another."""

    @property
    def worker(self) -> WorkerId:
        """The worker that answered, if any did."""
        return self.author or self.calls[-1].worker

    @property
    def is_solo(self) -> bool:
        """Whether its outcome says what its worker is worth: what a workflow picked or mended does not."""
        return self.workflow == "solo"

    @property
    def cost_usd(self) -> float | None:
        """Price of all calls, failed ones included; None where any is unknown."""
        return _sum_known([call.cost_usd for call in self.calls])

    @property
    def tokens(self) -> int:
        """Tokens in and out of all calls, as far as they are known."""
        return sum(call.tokens for call in self.calls)

    @property
    def latency_s(self) -> float | None:
        """Time of all calls; None where any is unknown."""
        if self.wall_s is not None:
            return self.wall_s
        return _sum_known([call.latency_s for call in self.calls])


def sum_costs(costs: Sequence[float | None]) -> tuple[float, int]:
    """Sum of the known costs, in US dollars, and how many are unknown: where any is, the sum is a least amount."""
    known = [cost for cost in costs if cost is not None]
    return sum(known), len(costs) - len(known)


def _sum_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One measured (task, worker) pair: the reward, with cost and latency."""

    task: str
    worker: WorkerId
    quality: float
    cost_usd: float | None
    latency_s: float | None
    input_tokens: int | None = None
    output_tokens: int | None = None
