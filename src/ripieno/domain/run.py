"""Call, Verdict, Run and Outcome: the results of a task."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ripieno.domain.conversation import Native, Part, Reasoning, Text, ToolCall
from ripieno.domain.price import Usage, sum_costs
from ripieno.domain.worker import WorkerId

CHARACTERS_PER_TOKEN = 3.6
"""Mean token length of English text in o200k, for texts whose tokens were not counted."""


class Origin(StrEnum):
    """Source of a run."""

    TRAFFIC = "traffic"
    PROFILE = "profile"
    IMPORT = "import"


class Failure(StrEnum):
    """Kind of failure of a call."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    REJECTED = "rejected"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    BAD_ANSWER = "bad_answer"
    BUSY = "busy"
    """The call was not sent, because too many calls waited for the worker."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A worker's answer."""

    text: str
    usage: Usage = field(default_factory=Usage)
    finish_reason: str = "stop"
    """`stop`, `length`, `tool_calls` or `content_filter`; others are passed on."""
    content: tuple[Part, ...] = ()
    """All parts in order; empty if the answer is one text."""
    recorded_quality: float | None = None
    """Recorded quality of a replay worker's answer, in [0, 1]."""
    cost_usd: float | None = None
    """The provider's own price, if it is more exact than tokens times list price."""
    latency_s: float | None = None
    """Recorded latency of a replay worker's answer."""
    lost: tuple[str, ...] = ()
    """What of the request did not reach the worker."""
    authors: tuple[WorkerId, ...] = ()
    """Workers that wrote the answer one after the other, if several did."""
    native: Native | None = field(default=None, repr=False, compare=False)
    """The reply as received, for clients of the same wire format. Not recorded; None if it was repaired."""

    @classmethod
    def of(
        cls,
        parts: tuple[Part, ...],
        *,
        usage: Usage | None = None,
        finish_reason: str = "stop",
        native: Native | None = None,
    ) -> "Answer":
        """Make an answer of parts."""
        is_plain = not parts or (len(parts) == 1 and parts[0] == Text(text=getattr(parts[0], "text", "")))
        return cls(
            text="".join(part.text for part in parts if isinstance(part, Text)),
            usage=usage or Usage(),
            finish_reason=finish_reason,
            content=() if is_plain else parts,
            native=native,
        )

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return all parts in order."""
        return self.content or ((Text(text=self.text),) if self.text else ())

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Return the tool calls."""
        return tuple(part for part in self.content if isinstance(part, ToolCall))

    @property
    def reasoning(self) -> str:
        """Return the reasoning text."""
        return "".join(part.text for part in self.content if isinstance(part, Reasoning))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One exchange with a provider."""

    worker: WorkerId
    worker_version: str
    usage: Usage
    cost_usd: float | None
    """Price in US dollars; None if it is unknown."""
    latency_s: float | None
    """Time to the whole answer; None if an imported outcome has none."""
    first_token_s: float | None = None
    attempts: int = 1
    failure: Failure | None = None
    error: str | None = None
    step: str = ""
    """Name of the workflow's step; empty if there is only one."""

    @property
    def tokens(self) -> int:
        """Return the known tokens, in and out."""
        return (self.usage.input_tokens or 0) + (self.usage.output_tokens or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Position of a run in a measured set of tasks."""

    dataset: str
    """Name of the campaign or of the imported set."""
    item: str
    """Name of the task within the set."""
    split: str = "train"
    group: str = ""
    """Tasks of one group are always on the same side of a split; empty means that the task is a group of its own."""
    repeat: int = 0
    source: str = ""
    """Source of the graded task: a file, `embedded` or `gym:...`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One verifier's rating of one run."""

    verifier: str
    quality: float
    """In [0, 1]; 1 is accepted."""
    detail: str = ""
    found: float | None = None
    """The verifier's own rating, if `quality` was corrected for its accuracy."""
    edited: float | None = None
    """Share of the answer that a user changed, in [0, 1], if the user sent a corrected answer."""

    @property
    def is_void(self) -> bool:
        """Return whether the verifier failed, which earlier versions recorded as quality 0."""
        return self.verifier == "judge_failed" or self.detail.startswith("not checked: ")

    @property
    def own(self) -> float:
        """Return the verifier's own rating, in [0, 1]."""
        return self.quality if self.found is None else self.found

    def __post_init__(self) -> None:
        if not 0.0 <= self.quality <= 1.0:
            raise ValueError(f"quality must be in [0, 1], got {self.quality!r} from {self.verifier!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of a workflow's check of one of its own answers."""

    step: str
    author: WorkerId
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchecked:
    """An answer of unknown quality, because the workflow's check failed."""

    step: str
    author: WorkerId
    verifier: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything that one workflow did for one task."""

    id: str
    task: str
    """Digest of the task."""
    origin: Origin
    calls: tuple[Call, ...]
    answer: Answer | None
    """None when every call failed."""
    decision: str | None = None
    """Id of the decision, if there is one."""
    placement: Placement | None = None
    """Position in a measured set, if the run belongs to one."""
    key: str | None = None
    workflow: str = "solo"
    learned_workflow: WorkerId | None = None
    """Name of the learned workflow among the estimates, if the router chose it in place of a worker."""
    author: WorkerId | None = None
    """The worker that gave the answer, if it is not the worker of the last call."""
    findings: tuple[Finding, ...] = ()
    """Results of the workflow's own checks."""
    unchecked: tuple[Unchecked, ...] = ()
    """Answers whose check failed."""
    ended_early: str | None = None
    """Why the workflow stopped and returned its best answer so far."""
    wall_s: float | None = None
    """Time from first to last call if calls ran in parallel; None if they ran one after the other."""

    @property
    def worker(self) -> WorkerId:
        """Return the worker that answered, or the one of the last call."""
        return self.author or self.calls[-1].worker

    @property
    def is_solo(self) -> bool:
        """Return whether a single worker answered, so that the outcome is the worker's own."""
        return self.workflow == "solo"

    @property
    def cost_usd(self) -> float | None:
        """Return the cost of all calls, failed ones included; None if any is unknown."""
        return _sum_known([call.cost_usd for call in self.calls])

    @property
    def tokens(self) -> int:
        """Return the known tokens of all calls, in and out."""
        return sum(call.tokens for call in self.calls)

    @property
    def latency_s(self) -> float | None:
        """Return the time of all calls; None if any is unknown."""
        if self.wall_s is not None:
            return self.wall_s
        return _sum_known([call.latency_s for call in self.calls])


def _sum_known(values: Sequence[float | None]) -> float | None:
    known, unknown = sum_costs(values)
    return None if unknown else known


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Quality, cost and latency of one measured (task, worker) pair."""

    task: str
    worker: WorkerId
    quality: float
    cost_usd: float | None
    latency_s: float | None
    input_tokens: int | None = None
    output_tokens: int | None = None
