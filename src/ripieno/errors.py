"""Every error Ripieno raises, by what the caller can do about it.

RipienoError
├── InvalidTask            mend the input: the task itself cannot be carried
├── DataError              mend the input: a data folder, task file or import is broken (file, place)
├── ConfigError            mend the setup: configuration, keys, plugins, ports
│   ├── CheckpointError    mend the setup: the checkpoint is broken, newer, or belongs to another pool
│   ├── MissingExtra       mend the setup: a library that an extra of the package brings is not installed
│   └── PredictorError     mend the setup: the predictor of a checkpoint raised, or returned no estimate
├── NoEligibleWorker       mend the setup or the task: every worker is masked, each with its Why
├── Abstained              loosen the request: no answer was expected to be worth asking for
├── NotFound               mend the input: an id that the ledger does not hold
├── NotReplayable          give up: what a recorded decision depended on is gone, or was never recorded
├── RateLimited            wait: `retry_after_s` says how long
├── ProviderError          try elsewhere: one worker failed
│   ├── ProviderTimeout    it did not answer in time
│   ├── ProviderUnreachable  no connection to its address
│   ├── ProviderRejected   it refused the key or the request; a retry will not help
│   ├── WithheldTask       it was not asked: the task holds what may not travel that far
│   ├── WorkerBusy         it was not asked: too many calls wait for it
│   └── BadAnswer          it answered something that is not an answer
├── NoVerdict              judge again later: a verifier could not say what an answer is worth
├── LedgerError            mend the setup: the record cannot be read or written
│   ├── LedgerCorrupt      the file is damaged, or its chain of digests does not hold
│   ├── LedgerTooNew       written by a newer Ripieno
│   └── LedgerFull         no space left; nothing was half-written
├── MemoryUnavailable      wait, or mend the setup: the memory cannot be read or written
├── DeadlineExceeded       give up: the deadline passed before any worker answered
├── Overloaded             wait: this installation takes no further task now
├── Unauthorized           mend the request: its key is missing or wrong
├── Forbidden              mend the request, or the key: it may not do this
├── InvalidPlan            mend the input: a plan that cannot be carried out; nothing of it was begun
├── ApprovalPending        wait: a human must agree first; the run goes on when one does
├── ApprovalDenied         give up: a human, or the end of the time, said no
├── InDoubt                look yourself: a step that changes something was begun and its end is not known
├── UnknownPrice           mend the setup: there is a budget, and nobody knows what the worker costs
├── BudgetExhausted        give up: a ceiling of money, tokens, time or calls was reached
└── GateRefused            give up: a proof was asked for and did not hold
"""

from collections.abc import Mapping

__all__ = [
    "Abstained",
    "ApprovalDenied",
    "ApprovalPending",
    "BadAnswer",
    "BudgetExhausted",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DeadlineExceeded",
    "Forbidden",
    "GateRefused",
    "InDoubt",
    "InvalidPlan",
    "InvalidTask",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerFull",
    "LedgerTooNew",
    "MemoryUnavailable",
    "MissingExtra",
    "NoEligibleWorker",
    "NoVerdict",
    "NotFound",
    "NotReplayable",
    "Overloaded",
    "PredictorError",
    "ProviderError",
    "ProviderRejected",
    "ProviderTimeout",
    "ProviderUnreachable",
    "RateLimited",
    "RipienoError",
    "Unauthorized",
    "UnknownPrice",
    "WithheldTask",
    "WorkerBusy",
]


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
    """A file of data is broken; `path` and `place` (line, or column and row) say where."""

    def __init__(self, message: str, *, path: str, place: str | None = None, hint: str | None = None) -> None:
        where = path if place is None else f"{path}, {place}"
        super().__init__(f"{where}: {message}", hint=hint)
        self.path = path
        self.place = place


class ConfigError(RipienoError):
    """The setup is wrong; `key` names the setting, `path` the file it came from."""

    def __init__(
        self, message: str, *, key: str | None = None, path: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.key = key
        self.path = path


class CheckpointError(ConfigError):
    """A checkpoint cannot be loaded for this pool."""


class MissingExtra(ConfigError):
    """A library is not installed; `extra` names the extra of the package that brings it.

    Args:
        what: what needs the library, as the subject of the message.
        extra: the extra, as pip knows it.
        library: the module that could not be imported.
        key: the setting that asked for it, where one did.
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
    """A predictor raised, or returned what is no estimate; `predictor` and `checkpoint` name it.

    Args:
        problem: what it did.
        predictor: its name, as the entry point gives it.
        checkpoint: the checkpoint that it belongs to.
    """

    def __init__(self, problem: str, *, predictor: str, checkpoint: str) -> None:
        super().__init__(
            f"the predictor {predictor!r} of checkpoint {checkpoint!r} failed: {problem}",
            key="ripieno.predictors",
            hint=f"mend the plugin {predictor!r}, or `ripieno policy promote` another checkpoint",
        )
        self.predictor = predictor
        self.checkpoint = checkpoint


class NoEligibleWorker(RipienoError):
    """Every worker of the pool is masked; `whys` maps each worker to its reasons.

    `is_temporary` says whether one of them would be eligible, did it not have to rest.
    """

    def __init__(self, whys: Mapping[str, str], *, is_temporary: bool = False) -> None:
        listed = "; ".join(f"{worker}: {why}" for worker, why in whys.items()) or "the pool is empty"
        super().__init__(
            f"no worker may take this task ({listed})",
            hint="loosen the request, or mend the pool: `ripieno pool list`",
        )
        self.whys = dict(whys)
        self.is_temporary = is_temporary


class Abstained(RipienoError):
    """Nobody was asked: the best answer to be expected is worth less than none; `decision` is its id."""

    def __init__(self, why: str, *, decision: str) -> None:
        super().__init__(
            f"no worker was asked: {why}",
            hint="raise the price of no answer (route.abstain_price), or lower the mission criticality",
        )
        self.decision = decision


class NotFound(RipienoError):
    """Nothing is recorded under this id."""


class NotReplayable(RipienoError):
    """A recorded decision cannot be made again; `decision` is its id, and `missing` names what it lacks."""

    def __init__(self, decision: str, *, missing: str) -> None:
        super().__init__(
            f"decision {decision!r} cannot be replayed: {missing}", hint="`ripieno explain` still shows it"
        )
        self.decision = decision
        self.missing = missing


class RateLimited(RipienoError):
    """Too much at once; worth trying again after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, hint=f"try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class ProviderError(RipienoError):
    """One worker failed on one call.

    Args:
        worker: the worker that was called.
        retry_after_s: how long the provider asked to wait, where it said so.
        is_transient: whether the same call may succeed later.
    """

    is_transient = True
    is_unsent = False
    """Whether nothing of the call has reached the provider: then nothing was done."""
    status: int | None = None
    """The HTTP status that the provider answered with, where it did."""
    code: str | None = None
    """The provider's own code for what was wrong, where it gave one."""

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


class ProviderRejected(ProviderError):
    """The provider refused the key or the request itself; the same call will be refused again."""

    is_transient = False
    blames_worker = False
    """True where every task would be refused (key, address, model), not only this one."""


class BadAnswer(ProviderError):
    """The worker answered, but not with an answer: empty, cut, HTML, or not the protocol."""


class WithheldTask(ProviderError):
    """The task was not sent to this worker: it holds secrets or personal data, which may not travel that far."""

    is_transient = False
    is_unsent = True


class WorkerBusy(ProviderError):
    """As many calls as the worker can take are with it or wait for it."""

    is_unsent = True


class NoVerdict(RipienoError):
    """A verifier failed, so the worth of the answer stays unknown; `verifier` names it. This is never quality 0."""

    def __init__(self, message: str, *, verifier: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.verifier = verifier


class LedgerError(RipienoError):
    """The ledger cannot be read or written."""


class LedgerCorrupt(LedgerError):
    """The ledger file is damaged; `entry` is the first entry that does not hold, where known."""

    def __init__(self, message: str, *, entry: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.entry = entry


class LedgerTooNew(LedgerError):
    """The ledger was written by a newer Ripieno."""


class LedgerFull(LedgerError):
    """The disk or the quota is full; the entries of this write were not recorded."""


class InvalidPlan(RipienoError):
    """A plan is not one, or asks of a worker what it cannot do; `step` is the place, from 1, where one is at fault."""

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
    """A proposal was turned down by `by`; nothing was done."""

    def __init__(self, run: str, *, step: str, by: str, reason: str) -> None:
        super().__init__(f"run {run}: step {step!r} was denied by {by}" + (f": {reason}" if reason else ""))
        self.run = run
        self.step = step
        self.by = by


class InDoubt(RipienoError):
    """A step that changes something outside was begun, and failed or was cut off: whether it was done is not known."""

    def __init__(self, run: str, *, step: str, worker: str) -> None:
        super().__init__(
            f"run {run}: step {step!r} of {worker!r} was begun and its end is not known; it is not made again",
            hint="look whether it was done, then ask anew",
        )
        self.run = run
        self.step = step
        self.worker = worker


class BudgetExhausted(RipienoError):
    """A ceiling was reached; `spent` and `limit` are in the unit that `what` names.

    `is_temporary` says whether requests under way hold a part of it, so that waiting may help.
    """

    def __init__(self, what: str, *, spent: float, limit: float, is_temporary: bool = False) -> None:
        state = "is spent, or held by requests under way" if is_temporary else "is spent"
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
    """The memory cannot be read or written now; what was receipted is safe."""


class DeadlineExceeded(RipienoError):
    """The caller's deadline passed; `deadline_s` is counted from the task's arrival."""

    def __init__(self, deadline_s: float) -> None:
        super().__init__(
            f"no worker answered within the deadline of {deadline_s:.6g} s",
            hint="allow more time, or a faster preset: `auto:fast`",
        )
        self.deadline_s = deadline_s


class Overloaded(RateLimited):
    """More is under way than this installation takes at once."""


class Unauthorized(RipienoError):
    """The key is missing, unknown or revoked."""


class Forbidden(RipienoError):
    """The key is known, but may not do this."""


class GateRefused(RipienoError):
    """A gate was asked for a proof, and the proof did not hold."""
