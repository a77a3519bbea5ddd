"""Told: what a response says about how its answer came about, in headers and in the body's `ripieno` field."""

from collections.abc import Mapping
from dataclasses import dataclass

from ripieno.domain import Decision, Finding, JsonValue, Run, Verdict
from ripieno.execute import Answered, Started

LONGEST_WHY = 200
"""Characters of a header's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is said about one answer.

    A stream's headers go out with its first piece, and may know nothing of its end: its last event tells that.
    """

    headers: Mapping[str, str]
    body: Mapping[str, JsonValue]


def tell_answer(answered: Answered) -> Told:
    """Say how an answer came about."""
    started, run = answered.started, answered.run
    decision, worker = started.decision, run.worker
    why = _tell_why(started, worker)
    headers = _make_headers(started, worker=worker, why=why) | _tell_end(answered) | _tell_spent(started)
    body: dict[str, JsonValue] = {
        "decision": decision.id,
        "worker": worker,
        "workflow": name_workflow(decision),
        "why": why,
        "cost_usd": run.cost_usd,
        "attempts": _count_attempts(started),
        "ended_early": run.ended_early,
        "verdicts": tell_findings(run.findings),
    }
    return Told(headers=headers, body=body)


def tell_cached(told: Told) -> Told:
    """Tell of an answer that is given again: whose it was, and that nothing was paid for it now.

    Args:
        told: what was said about it the first time.
    """
    nothing = {"x-ripieno-cache": "hit", "x-ripieno-cost-usd": "0", "x-ripieno-attempts": "0"}
    why = f"{told.body['worker']} answered the same request before"
    return Told(
        headers={**told.headers, **nothing, "x-ripieno-why": plain(why)},
        body={**told.body, "why": why, "cost_usd": 0.0, "attempts": 0, "cache": "hit"},
    )


def tell_started(started: Started) -> dict[str, str]:
    """Say in headers what is known once the first piece of an answer is there.

    An answer that was checked comes whole: then all is known but its price.
    """
    ended = started.recorder.ended
    worker = started.recorder.serving or started.decision.worker
    headers = _make_headers(started, worker=worker, why=_tell_why(started, worker))
    return headers | (_tell_end(ended) if isinstance(ended, Answered) else {})


def _make_headers(started: Started, *, worker: str, why: str) -> dict[str, str]:
    decision, limit = started.decision, started.recorder.limited_tokens
    headers = {
        "x-ripieno-decision": decision.id,
        "x-ripieno-worker": worker,
        "x-ripieno-workflow": name_workflow(decision),
        "x-ripieno-why": plain(why),
    }
    return headers if limit is None else headers | {"x-ripieno-max-tokens": str(limit)}


def _tell_end(answered: Answered) -> dict[str, str]:
    """Say in headers what the workflow itself found about the answer that it gave."""
    headers: dict[str, str] = {}
    if answered.run.ended_early is not None:
        headers["x-ripieno-ended-early"] = plain(answered.run.ended_early)
    if answered.verdict is not None:
        headers["x-ripieno-verdict"] = plain(tell_verdict(answered.verdict))
    return headers


def tell_failure(started: Started) -> dict[str, str]:
    """Tell of a decision that led to no answer."""
    decision = started.decision
    named = {"x-ripieno-decision": decision.id, "x-ripieno-workflow": name_workflow(decision)}
    return named | _tell_spent(started)


def _tell_spent(started: Started) -> dict[str, str]:
    """Tell what a run has cost so far, in money and in attempts."""
    return tell_cost(started.recorder.price_usd) | {"x-ripieno-attempts": str(_count_attempts(started))}


def _count_attempts(started: Started) -> int:
    return sum(call.attempts for call in started.recorder.calls)


def tell_cost(cost_usd: float | None) -> dict[str, str]:
    """The header that tells what a request has cost."""
    return {"x-ripieno-cost-usd": "unknown" if cost_usd is None else f"{cost_usd:.10f}"}


def _tell_why(started: Started, worker: str) -> str:
    """Say why the worker that answers does: the decision's reason, if it is about that worker."""
    decision = started.decision
    reason = decision.reasons[0] if decision.reasons else ""
    if worker == decision.worker:
        return reason if worker in reason.replace(",", " ").split() else f"{worker} answered: {reason}"
    calls = started.recorder.calls
    failed = next((call for call in calls if call.worker == decision.worker and call.failure), None)
    if failed is not None:
        return f"{worker} answered in place of {decision.worker}, which failed: {failed.failure}"
    return f"{worker} answered, in a {name_workflow(decision)} that began with {decision.worker}"


def name_workflow(decision: Decision) -> str:
    """The kind of a decision's workflow."""
    return type(decision.workflow).__name__.lower()


def tell_verdict(verdict: Verdict) -> str:
    """A finding in a line: by which verifier, the quality in [0, 1], and what it says."""
    said = f"{verdict.verifier} {verdict.quality:.2f}"
    return f"{said}: {verdict.detail}" if verdict.detail else said


def tell_findings(findings: "tuple[Finding, ...] | list[Finding]") -> list[JsonValue]:
    """What a workflow's own checks found, in their order."""
    return [
        {
            "step": found.step,
            "worker": found.author,
            "verifier": found.verdict.verifier,
            "quality": found.verdict.quality,
            "detail": found.verdict.detail,
        }
        for found in findings
    ]


def tell_run(run: Run) -> dict[str, JsonValue]:
    """What a run that has ended says of itself."""
    return {
        "worker": run.worker if run.answer is not None else None,
        "ended_early": run.ended_early,
        "verdicts": tell_findings(run.findings),
    }


def plain(words: str) -> str:
    """Words as a header holds them: ASCII, one line, not too long."""
    return " ".join(words.encode("ascii", "replace").decode().split())[:LONGEST_WHY]
