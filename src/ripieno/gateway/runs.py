"""Runs over HTTP: their state and feedback, for the key that pays; approvals, for the admin."""

import asyncio
from dataclasses import asdict

import msgspec

from ripieno.app import Installation
from ripieno.app.feedback import Payer, record_feedback
from ripieno.domain import JsonValue, Verdict
from ripieno.errors import InvalidTask
from ripieno.gateway.bodies import read_form, respond
from ripieno.gateway.errors import hide_places
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response
from ripieno.gateway.keyring import Grant
from ripieno.gateway.provenance import describe_run, name_workflow
from ripieno.gateway.routes import Access, Route


class Feedback(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of `POST /v1/feedback`."""

    decision: str
    quality: float | None = None
    detail: str = ""
    correction: str | None = None
    """What the answer should have been."""


class ApprovalAnswer(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of `POST /admin/approvals/{run}`."""

    approve: bool
    by: str
    reason: str = ""


class RunRoutes:
    """The routes of runs, feedback and approvals."""

    def __init__(self, app: Installation) -> None:
        self._app = app

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("GET", "/v1/runs/{run}", self.show),
            Route("POST", "/v1/feedback", self.add_feedback),
            Route("GET", "/admin/approvals", self.list_approvals, Access.ADMIN),
            Route("POST", "/admin/approvals/{run}", self.answer, Access.ADMIN),
        ]

    async def show(self, facts: Facts) -> Response:
        """Show the state of a run, and its answer if there is one; a key sees its own runs."""
        return respond(await asyncio.to_thread(self._describe, facts.parameter, facts.grant))

    async def add_feedback(self, facts: Facts) -> Response:
        """Record feedback on an answer; a key may judge its own decisions, the master key all."""
        given, verdict, grant = read_form(facts.request, Feedback), None, facts.grant
        if given.quality is not None:
            try:
                verdict = Verdict(verifier="user", quality=given.quality, detail=given.detail)
            except ValueError as error:
                raise InvalidTask(str(error), param="quality") from error
        payer = None if grant.is_admin else Payer(key=grant.id)
        judged = await record_feedback(self._app, given.decision, verdict, correction=given.correction, payer=payer)
        return respond({"recorded": judged.id})

    async def list_approvals(self, facts: Facts) -> Response:
        """List the steps that wait for approval."""
        found = await asyncio.to_thread(self._app.runs.unfinished)
        waiting = [asdict(each.proposal) for each in found if each.proposal is not None]
        return respond({"approvals": waiting})

    async def answer(self, facts: Facts) -> Response:
        """Approve or deny a step; the gateway continues the run."""
        given, run = read_form(facts.request, ApprovalAnswer), facts.parameter
        counts = await self._app.runs.resolve(run, is_approved=given.approve, by=given.by, reason=given.reason)
        await self._app.runs.sweep()
        return respond({"run": counts.run, "approved": counts.is_approved, "by": counts.by, "reason": counts.reason})

    def _describe(self, name: str, grant: Grant) -> dict[str, JsonValue]:
        if grant.is_admin:
            decided = self._app.ledger.decisions.find(name)
            ended, found = self._app.runs.look_up(decided.decision.id)
        else:
            decided, ended, found = self._app.runs.look_up_own(name, key=grant.id)
        is_waiting = found is not None and found.proposal is not None
        answer = ended[-1].answer if ended else None
        error = next((call.error for run in ended for call in reversed(run.calls) if call.error), None)
        described = describe_run(ended[-1]) if ended else {"worker": None, "ended_early": None, "verdicts": []}
        return {
            "id": decided.decision.id,
            "object": "run",
            "status": ("done" if answer is not None else "failed") if ended else "waiting" if is_waiting else "running",
            "workflow": name_workflow(decided.decision),
            "answer": answer.text if answer is not None else None,
            "cost_usd": ended[-1].cost_usd if ended else None,
            "error": hide_places(error) if error is not None else None,
            **described,
        }
