"""Runs and approvals over HTTP: how far a run has come, for who pays for it; what waits for a human, for the admin."""

import asyncio

import msgspec

from ripieno.app import App
from ripieno.domain import JsonValue
from ripieno.execute import Unfinished
from ripieno.gateway.admin import require_admin
from ripieno.gateway.bodies import read_form
from ripieno.gateway.dialects.base import encode
from ripieno.gateway.errors import hide_places
from ripieno.gateway.http import Request, Response
from ripieno.gateway.keyring import Grant
from ripieno.gateway.told import tell_run

RUNS = "/v1/runs/"
APPROVALS = "/admin/approvals"


class Answer(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of `POST /admin/approvals/{run}`."""

    approve: bool
    by: str
    reason: str = ""


class RunRoutes:
    """The routes of runs and approvals."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def show(self, request: Request, grant: Grant) -> Response:
        """How a run stands, and its answer once there is one; a key sees its own runs."""
        return Response(encode(await asyncio.to_thread(self._describe, request.path.removeprefix(RUNS), grant)))

    async def list_approvals(self, request: Request, grant: Grant) -> Response:
        """What waits for a human."""
        require_admin(grant)
        found = await asyncio.to_thread(self._app.runs.unfinished)
        waiting = [_describe_proposal(each) for each in found if each.proposal is not None]
        return Response(encode({"approvals": waiting}))

    async def answer(self, request: Request, grant: Grant) -> Response:
        """Agree or not; the gateway goes on with the run."""
        require_admin(grant)
        given = read_form(request, Answer)
        run = request.path.removeprefix(f"{APPROVALS}/")
        counts = await self._app.runs.resolve(run, is_approved=given.approve, by=given.by, reason=given.reason)
        await self._app.runs.sweep()
        body: JsonValue = {"run": counts.run, "approved": counts.is_approved, "by": counts.by, "reason": counts.reason}
        return Response(encode(body))

    def _describe(self, name: str, grant: Grant) -> dict[str, JsonValue]:
        if grant.is_admin:
            decided = self._app.ledger.decisions.find(name)
            ended, found = self._app.runs.look_up(decided.decision.id)
        else:
            decided, ended, found = self._app.runs.look_up_own(name, key=grant.id)
        answer = ended[-1].answer if ended else None
        error = next((call.error for run in ended for call in reversed(run.calls) if call.error), None)
        told = tell_run(ended[-1]) if ended else {"worker": None, "ended_early": None, "verdicts": []}
        return {
            "id": decided.decision.id,
            "object": "run",
            "status": ("done" if answer is not None else "failed") if ended else _name_status(found),
            "workflow": type(decided.decision.workflow).__name__.lower(),
            "answer": answer.text if answer is not None else None,
            "cost_usd": ended[-1].cost_usd if ended else None,
            "error": hide_places(error) if error is not None else None,
            **told,
        }


def _name_status(found: Unfinished | None) -> str:
    if found is not None and found.proposal is not None:
        return "waiting"
    return "running"


def _describe_proposal(found: Unfinished) -> dict[str, JsonValue]:
    assert found.proposal is not None
    return {name: getattr(found.proposal, name) for name in found.proposal.__dataclass_fields__}
