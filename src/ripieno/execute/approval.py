"""Approval: a human's answer to a proposed call, or about an answer. A run without one waits for it."""

import hashlib

from ripieno.domain import Answer, Proposed, Resolved, Task, Verdict, Worker
from ripieno.domain.entry import EXPIRY
from ripieno.domain.grader import Human
from ripieno.errors import ApprovalDenied, ApprovalPending, ConfigError, NoVerdict
from ripieno.execute.journal import APPROVAL_S, Journal


class Approvals:
    """Asks a human about the calls and answers of one run. The run's journal keeps questions and answers."""

    def __init__(self, run: str, task: Task, journal: Journal | None) -> None:
        self._run = run
        self._task = task
        self._journal = journal

    async def require(self, step: str, worker: Worker, asked: Task) -> None:
        """Return if a human approved exactly this call.

        Raises:
            ApprovalPending: a human must approve first.
            ApprovalDenied: a human did not approve.
            ConfigError: runs are not durable, so the run cannot wait.
        """
        question = f"May {worker.id} be called with this?"
        resolved = await self._ask(step, worker, asked, question=question)
        if not resolved.is_approved:
            raise ApprovalDenied(self._run, step=step, by=resolved.by, reason=resolved.reason)

    async def judge(self, step: str, check: Human, answer: Answer, *, author: Worker) -> Verdict:
        """Return a human's verdict on an answer.

        Raises:
            ApprovalPending: a human must decide first.
            NoVerdict: no human decided in time.
            ConfigError: runs are not durable, so the run cannot wait.
        """
        resolved = await self._ask(step, author, Task.from_text(answer.text), question=check.question)
        if resolved.by == EXPIRY:
            raise NoVerdict(f"no human answered within {APPROVAL_S / 3600:.0f} h", verifier="human")
        detail = resolved.reason or "looked at"
        return Verdict(verifier=f"human:{resolved.by}", quality=float(resolved.is_approved), detail=detail)

    async def _ask(self, step: str, worker: Worker, asked: Task, *, question: str) -> Resolved:
        """Return the human's answer. Suspend the run if there is none yet."""
        journal = self._journal
        if journal is None:
            raise ConfigError(
                f"{worker.id!r} needs approval, which needs durable runs",
                key="ledger.durable_runs",
                hint="set it to true",
            )
        digest = digest_proposal(worker, asked, self._task)
        resolved = journal.find_resolution(step, digest)
        if resolved is not None:
            return resolved
        proposed = await journal.propose(
            Proposed(
                run=self._run,
                step=step,
                digest=digest,
                worker=worker.id,
                arguments=asked.text,
                question=question,
                expires_at=journal.now() + APPROVAL_S,
            )
        )
        if journal.now() < proposed.expires_at:
            raise ApprovalPending(self._run, step=step, worker=worker.id, expires_at=proposed.expires_at)
        return await journal.resolve(proposed.expire())


def digest_proposal(worker: Worker, asked: Task, whole: Task) -> str:
    """Digest what a human approves: the worker with its version, its input, and the whole task."""
    packed = f"{worker.id}\x1f{worker.version}\x1f{asked.digest}\x1f{whole.digest}"
    return hashlib.sha256(packed.encode()).hexdigest()
