"""Every error Ripieno raises, with what the caller can do about it.

RipienoError
├── InvalidTask            fix the input: the task cannot be carried out
├── DataError              fix the input: a data folder, task file or import is broken
├── ConfigError            fix the setup: configuration, keys, plugins, ports
│   ├── CheckpointError    fix the setup: the checkpoint is broken, too new, or belongs to another pool
│   ├── MissingExtra       fix the setup: a library of an optional extra is not installed
│   └── PredictorError     fix the setup: the predictor of a checkpoint raised or returned no estimate
├── NoEligibleWorker       fix the setup or the task: every worker is masked, each with its Why
├── Abstained              loosen the request: no answer is expected to be worth its risk
├── NotFound               fix the input: the ledger does not hold this id
├── NotReplayable          give up: an input of the recorded decision is gone or was never recorded
├── RateLimited            wait `retry_after_s` seconds
│   └── Overloaded         wait: this installation accepts no further task now
├── ProviderError          try elsewhere: one worker failed
│   ├── ProviderTimeout    no answer in time
│   ├── ProviderUnreachable  no connection to its address
│   ├── ProviderRejected   the provider refused the key or the request; a retry does not help
│   ├── WithheldTask       not sent: the task holds data that may not travel that far
│   ├── WorkerBusy         not sent: too many calls wait for this worker
│   └── BadAnswer          the response is not an answer
├── NoVerdict              judge again later: a verifier could not rate an answer
├── LedgerError            fix the setup: the ledger cannot be read or written
│   ├── LedgerCorrupt      the file is damaged, or its chain of digests is broken
│   ├── LedgerTooNew       a newer Ripieno wrote it
│   └── LedgerFull         no space is left; nothing was half-written
├── MemoryUnavailable      wait, or fix the setup: the memory cannot be read or written
├── DeadlineExceeded       give up: the deadline passed before any worker answered
├── Unauthorized           fix the request: its key is missing or wrong
├── Forbidden              fix the request or the key: the key may not do this
├── InvalidPlan            fix the input: the plan cannot be carried out, and no step of it ran
├── ApprovalPending        wait: a human must approve; the run then resumes
├── ApprovalDenied         give up: a human denied the step, or the proposal expired
├── InDoubt                check yourself: a step with effects was started, and its end is unknown
├── UnknownPrice           fix the setup: there is a budget, and the worker's price is unknown
├── BudgetExhausted        give up: a ceiling of money, tokens, time or calls was reached
└── GateRefused            give up: a required proof did not hold
"""

from collections.abc import Mapping
from enum import StrEnum


class RipienoError(Exception):
    """Root of the tree.

    Args:
        message: what happened, and to which value.
        hint: what to do about it, in one sentence.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidTask(RipienoError):
    """The task cannot be carried as it stands; `param` names the field at fault."""

    def __init__(self, message: str, *, param: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class DataError(RipienoError):
    """A data file is broken, at `path` and `place` (line, or column and row)."""

    def __init__(self, message: str, *, path: str, place: str | None = None, hint: str | None = None) -> None:
        where = path if place is None else f"{path}, {place}"
        super().__init__(f"{where}: {message}", hint=hint)
        self.path = path
        self.place = place


class ConfigError(RipienoError):
    """The setup is wrong; `key` is the setting, `path` its file."""

    def __init__(
        self, message: str, *, key: str | None = None, path: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.key = key
        self.path = path


class CheckpointError(ConfigError):
    """A checkpoint cannot be loaded for this pool."""


class MissingExtra(ConfigError):
    """A library is not installed; `extra` is the extra of the package that installs it.

    Args:
        what: the feature that needs the library, as the subject of the message.
        extra: the extra, as pip knows it.
        library: the module that could not be imported.
        key: the setting that requires it, if any.
    """

    def __init__(self, what: str, *, extra: str, library: str, key: str | None = None) -> None:
        super().__init__(
            f"{what} needs the package {library!r}, which is not installed",
            key=key,
            hint=f"pip install 'ripieno[{extra}]'",
        )
        self.extra = extra
        self.library = library


class PredictorError(ConfigError):
    """A predictor of a checkpoint raised, or returned no valid estimate; `predictor` is its entry point's name."""

    def __init__(self, problem: str, *, predictor: str, checkpoint: str) -> None:
        super().__init__(
            f"the predictor {predictor!r} of checkpoint {checkpoint!r} failed: {problem}",
            key="ripieno.predictors",
            hint=f"fix the plugin {predictor!r}, or `ripieno policy promote` another checkpoint",
        )
        self.predictor = predictor
        self.checkpoint = checkpoint


class NoEligibleWorker(RipienoError):
    """Every worker of the pool is masked; `whys` maps each worker to its reason.

    `is_temporary` is True if a worker is masked only by a rate limit.
    """

    def __init__(self, whys: Mapping[str, str], *, is_temporary: bool = False) -> None:
        listed = "; ".join(f"{worker}: {why}" for worker, why in whys.items()) or "the pool is empty"
        super().__init__(
            f"no worker may take this task ({listed})",
            hint="loosen the request, or fix the pool: `ripieno pool list`",
        )
        self.whys = dict(whys)
        self.is_temporary = is_temporary


class Abstained(RipienoError):
    """No worker was called: the best expected answer is worth less than no answer; `decision` is the decision's id."""

    def __init__(self, why: str, *, decision: str) -> None:
        super().__init__(
            f"no worker was asked: {why}",
            hint="raise the price of no answer (route.abstain_price), or lower the mission criticality",
        )
        self.decision = decision


class NotFound(RipienoError):
    """Nothing is recorded under this id."""


class NotReplayable(RipienoError):
    """A recorded decision cannot be replayed; `decision` is its id, `missing` the input that is not recorded."""

    def __init__(self, decision: str, *, missing: str) -> None:
        super().__init__(
            f"decision {decision!r} cannot be replayed: {missing}", hint="`ripieno explain` still shows it"
        )
        self.decision = decision
        self.missing = missing


class RateLimited(RipienoError):
    """Too many requests; try again after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, hint=f"try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class ProviderError(RipienoError):
    """One worker failed on one call.

    Args:
        worker: the worker that was called.
        retry_after_s: the wait that the provider asked for, if any.
    """

    is_transient = True
    """True if the same call may succeed later."""
    is_unsent = False
    """True if nothing of the call reached the provider."""
    status: int | None = None
    """HTTP status of the provider's response, if any."""
    code: str | None = None
    """The provider's own error code, if any."""

    def __init__(
        self, message: str, *, worker: str, retry_after_s: float | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.worker = worker
        self.retry_after_s = retry_after_s


class ProviderTimeout(ProviderError):
    """The worker did not answer in time."""


class ProviderUnreachable(ProviderError):
    """No connection could be made, or it broke."""


class Cause(StrEnum):
    """Why a provider refused a request."""

    ACCOUNT = "account"
    """The key, or an account without money."""
    MODEL = "model"
    """The model or the address is not there."""
    CONTEXT = "context"
    """The request is too long for the model."""
    PARAMETER = "parameter"
    """The model does not take a field of the request."""
    FILTER = "filter"
    """The provider's filter refused the content."""
    REQUEST = "request"
    """The request is wrong, or the reason is unknown."""


class ProviderRejected(ProviderError):
    """The provider refused the key or the request; it will refuse the same call again."""

    is_transient = False
    blames_worker = False
    """True if the provider would refuse every task (key, address, model), not only this one."""
    cause = Cause.REQUEST
    param: str | None = None
    """The field of the request that the provider names."""


class BadAnswer(ProviderError):
    """The response is not an answer: empty, cut off, HTML, or not in the protocol."""


class WithheldTask(ProviderError):
    """The task was not sent: it holds secrets or personal data that may not travel to this worker."""

    is_transient = False
    is_unsent = True


class WorkerBusy(ProviderError):
    """The worker's concurrency limit and its queue are full."""

    is_unsent = True


class NoVerdict(RipienoError):
    """The verifier `verifier` failed, so the quality of the answer is unknown, and not 0."""

    def __init__(self, message: str, *, verifier: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.verifier = verifier


class LedgerError(RipienoError):
    """The ledger cannot be read or written."""


class LedgerCorrupt(LedgerError):
    """The ledger is damaged; `entry` is the first damaged entry, if known."""

    def __init__(self, message: str, *, entry: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.entry = entry


class LedgerTooNew(LedgerError):
    """A newer Ripieno wrote the ledger."""


class LedgerFull(LedgerError):
    """The disk or the quota is full; no entry of this write was recorded."""


class InvalidPlan(RipienoError):
    """A plan is malformed, or needs an ability that a worker lacks; `step` is the faulty step, from 1, if one is."""

    def __init__(self, message: str, *, step: int | None = None, hint: str | None = None) -> None:
        super().__init__(message if step is None else f"step {step}: {message}", hint=hint)
        self.step = step


class ApprovalPending(RipienoError):
    """The run `run` waits for a human at `step`, until `expires_at` (Unix time)."""

    def __init__(self, run: str, *, step: str, worker: str, expires_at: float) -> None:
        super().__init__(
            f"run {run} waits for approval of {worker!r} at step {step!r}",
            hint=f"`ripieno runs approve {run[:12]}`, or deny; then ask for the run again",
        )
        self.run = run
        self.step = step
        self.worker = worker
        self.expires_at = expires_at


class ApprovalDenied(RipienoError):
    """`by` denied a proposal; the step did not run."""

    def __init__(self, run: str, *, step: str, by: str, reason: str) -> None:
        super().__init__(f"run {run}: step {step!r} was denied by {by}" + (f": {reason}" if reason else ""))
        self.run = run
        self.step = step
        self.by = by


class InDoubt(RipienoError):
    """A step with effects was started, and its end is unknown. It is not repeated."""

    def __init__(self, run: str, *, step: str, worker: str) -> None:
        super().__init__(
            f"run {run}: step {step!r} of {worker!r} was started and its end is unknown; it is not repeated",
            hint="check whether it was done, then send a new request",
        )
        self.run = run
        self.step = step
        self.worker = worker


class BudgetExhausted(RipienoError):
    """A ceiling was reached; `spent` and `limit` are in the unit that `what` names.

    `is_temporary` is True if current requests hold a part of the budget, so that waiting may help.
    """

    def __init__(self, what: str, *, spent: float, limit: float, is_temporary: bool = False) -> None:
        state = "is spent, or held by running requests" if is_temporary else "is spent"
        hint = "try again when they have ended" if is_temporary else "raise the ceiling, or choose a cheaper pool"
        super().__init__(f"{what} budget {state}: {spent:.6g} of {limit:.6g}", hint=hint)
        self.is_temporary = is_temporary
        self.what = what
        self.spent = spent
        self.limit = limit


class UnknownPrice(RipienoError):
    """There is a budget in US dollars, and neither the configuration nor the price list knows the worker's price."""

    def __init__(self, worker: str) -> None:
        super().__init__(
            f"the price of {worker!r} is unknown, and there is a budget",
            hint=f'state its price in ripieno.toml under [workers.{worker}], or price = "free"',
        )
        self.worker = worker


class MemoryUnavailable(RipienoError):
    """The memory cannot be read or written now; no item with a receipt is lost."""


class DeadlineExceeded(RipienoError):
    """The caller's deadline passed; `deadline_s` counts from the task's arrival."""

    def __init__(self, deadline_s: float) -> None:
        super().__init__(
            f"no worker answered within the deadline of {deadline_s:.6g} s",
            hint="allow more time, or a faster preset: `auto:fast`",
        )
        self.deadline_s = deadline_s


class Overloaded(RateLimited):
    """The installation already runs as many tasks as it accepts at once."""


class Unauthorized(RipienoError):
    """The key is missing, unknown or revoked."""


class Forbidden(RipienoError):
    """The key is known, but may not do this."""


class GateRefused(RipienoError):
    """A gate required a proof, and the proof did not hold."""
