"""Unfinished runs of several steps: lists them, records approvals, and resumes them."""

import asyncio
import logging
from collections.abc import Callable

from ripieno.domain import Clock, Decided, Resolved, Run
from ripieno.errors import ApprovalDenied, ApprovalPending, ConfigError, NotFound, RipienoError
from ripieno.execute import Answered, Journals, Unfinished
from ripieno.ledger import Ledger
from ripieno.orchestrator import Orchestrator

log = logging.getLogger(__name__)


class Runs:
    """Finds, approves and resumes unfinished runs."""

    def __init__(
        self, orchestrator: Callable[[], Orchestrator], journals: Journals | None, ledger: Ledger, clock: Clock
    ) -> None:
        self._orchestrator = orchestrator
        self._journals = journals
        self._ledger = ledger
        self._clock = clock
        self._floor = 0
        """Place in the ledger before which every run is finished."""
        self._under_way: set[asyncio.Task[None]] = set()

    def unfinished(self) -> list[Unfinished]:
        """List the unfinished runs, oldest first."""
        if self._journals is None:
            return []
        head = self._ledger.head()
        found = self._ledger.runs.unfinished(after=self._floor)
        self._floor = min((seq for _, seq in found), default=head + 1) - 1
        looked = (self._journals.find(run) for run, _ in found)
        return [each for each in looked if each is not None]

    def find(self, beginning: str) -> Unfinished:
        """Find one unfinished run by the beginning of its id.

        Raises:
            NotFound: there is none, or more than one.
        """
        found = [each for each in self.unfinished() if each.claim.run.startswith(beginning)]
        if len(found) != 1:
            problem = "no unfinished run" if not found else "more than one unfinished run"
            raise NotFound(f"{problem} begins with {beginning!r}", hint="`ripieno runs list` shows them")
        return found[0]

    def look_up(self, decision: str) -> tuple[list[Run], Unfinished | None]:
        """Return the finished runs of a decision or, if there are none, its unfinished run.

        Raises:
            NotFound: it has neither.
        """
        ended = self._ledger.runs.of_decision(decision)
        if ended:
            return ended, None
        try:
            return [], self.find(decision)
        except NotFound:
            ended = self._ledger.runs.of_decision(decision)  # it may have ended meanwhile
            if not ended:
                raise
            return ended, None

    def look_up_own(self, decision: str, *, key: str | None) -> tuple[Decided, list[Run], Unfinished | None]:
        """Find a decision of one payer by its whole id; see `look_up`.

        Args:
            decision: the whole id. A beginning would reveal decisions of others.
            key: id of the virtual key that pays; None is the installation.

        Raises:
            NotFound: the decision does not exist, or has another payer. The error is the same for both.
        """
        try:
            decided = self._ledger.decisions.find(decision, is_whole=True)
            ended, found = self.look_up(decided.decision.id)
        except NotFound as error:
            raise _unknown(decision) from error
        payer = ended[-1].key if ended else found.claim.key if found is not None else None
        if payer != key:
            raise _unknown(decision)
        return decided, ended, found

    async def resolve(self, run: str, *, is_approved: bool, by: str, reason: str = "") -> Resolved:
        """Approve or deny a step of a run. Return the answer that counts, which is the first.

        Raises:
            NotFound: the run waits for no approval.
            ApprovalDenied: the time is over, so the answer is no.
        """
        found = await asyncio.to_thread(self.find, run)
        proposal = found.proposal
        if proposal is None:
            raise NotFound(f"run {found.claim.run} waits for no approval")
        is_late = self._clock.now() >= proposal.expires_at
        said = proposal.resolve(is_approved=is_approved, by=by, reason=reason)
        answer = proposal.expire() if is_late else said
        if await self._ledger.append(answer) == 0:
            recorded = await asyncio.to_thread(lambda: list(self._ledger.runs.entries_of(proposal.run)))
            answer = next(s.entry for s in recorded if isinstance(s.entry, Resolved) and s.entry.id == answer.id)
        if is_late:
            raise ApprovalDenied(proposal.run, step=proposal.step, by=answer.by, reason=answer.reason)
        return answer

    async def resume(self, found: Unfinished) -> Answered | None:
        """Resume a run; None if another process does that.

        Raises:
            ConfigError: a living process owns the run.
            RipienoError: the run fails. Its end is recorded.
        """
        if found.is_owned:
            raise ConfigError(f"run {found.claim.run} belongs to {found.claim.owner}, which is alive")
        return await self._orchestrator().resume(found)

    async def sweep(self) -> int:
        """Start to resume every run without an owner that waits for no approval. Return their number."""
        now = self._clock.now()
        found = await asyncio.to_thread(self.unfinished)
        free = [
            each for each in found if not each.is_owned and (each.proposal is None or now >= each.proposal.expires_at)
        ]
        for each in free:
            task = asyncio.create_task(self._finish(each))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return len(free)

    async def close(self) -> None:
        """Stop. The next process resumes the runs."""
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _finish(self, found: Unfinished) -> None:
        try:
            answered = await self.resume(found)
        except ApprovalPending:
            return
        except RipienoError as error:
            log.warning("run %s was resumed and failed: %s", found.claim.run, error.message)
            return
        if answered is not None:
            log.warning("run %s was interrupted, and is now finished", found.claim.run)


def _unknown(decision: str) -> NotFound:
    hint = "use the whole id of the header X-Ripieno-Decision"
    return NotFound(f"no decision {decision[:100]!r} of this key is recorded", hint=hint)
