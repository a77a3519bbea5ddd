"""Told: what a response says about how its answer came about, in headers and in the body's `ripieno` field."""

from collections.abc import Mapping
from dataclasses import dataclass

from ripieno.domain import Decision, Finding, JsonValue, Run, Verdict
from ripieno.execute import Execution

LONGEST_WHY = 200
"""Characters of a header's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is said about one answer.

    A stream's headers go out with its first piece, and may know nothing of its end: its last event tells that.
    """

    headers: Mapping[str, str]
    body: Mapping[str, JsonValue]


def tell_answer(execution: Execution) -> Told:
    """What is said about an answer that is there."""
    decision, worker = execution.decision, execution.author
    why = tell_why(execution, worker)
    headers = make_headers(execution, worker=worker, why=why)
    headers |= tell_spent(execution) | tell_limit(execution)
    body: dict[str, JsonValue] = {
        "decision": decision.id,
        "worker": worker,
        "workflow": name_workflow(decision),
        "why": why,
        "cost_usd": execution.price_usd,
        "attempts": _count_attempts(execution),
        "ended_early": execution.ended_early,
        "verdicts": tell_findings(execution.findings),
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


def make_headers(execution: Execution, *, worker: str, why: str) -> dict[str, str]:
    """What is known of an answer once its first piece is there: of one that comes whole, all but its price.

    Args:
        execution: what it came of.
        worker: whose answer it is.
        why: why that worker gave it.
    """
    decision, verdict = execution.decision, execution.verdict
    headers = {
        "x-ripieno-decision": decision.id,
        "x-ripieno-worker": worker,
        "x-ripieno-workflow": name_workflow(decision),
        "x-ripieno-why": plain(why),
    }
    if execution.ended_early is not None:
        headers["x-ripieno-ended-early"] = plain(execution.ended_early)
    if verdict is not None:
        headers["x-ripieno-verdict"] = plain(tell_verdict(verdict))
    return headers


def tell_failure(execution: Execution) -> dict[str, str]:
    """Tell of a decision that led to no answer."""
    decision = execution.decision
    named = {"x-ripieno-decision": decision.id, "x-ripieno-workflow": name_workflow(decision)}
    return named | tell_spent(execution)


def tell_spent(execution: Execution) -> dict[str, str]:
    """Tell what a workflow has cost so far, in money and in attempts."""
    return tell_cost(execution.price_usd) | {"x-ripieno-attempts": str(_count_attempts(execution))}


def tell_cost(cost_usd: float | None) -> dict[str, str]:
    """The header that tells what a request has cost."""
    return {"x-ripieno-cost-usd": "unknown" if cost_usd is None else f"{cost_usd:.10f}"}


def tell_limit(execution: Execution) -> dict[str, str]:
    """The header that tells a client that its budget has limited the answer."""
    limit = execution.limited_tokens
    return {} if limit is None else {"x-ripieno-max-tokens": str(limit)}


def tell_why(execution: Execution, worker: str) -> str:
    """Why the worker that answers does: the decision's reason, if it is about that worker."""
    decision = execution.decision
    reason = decision.reasons[0] if decision.reasons else ""
    if worker == decision.worker:
        return reason if worker in reason.replace(",", " ").split() else f"{worker} answered: {reason}"
    failed = next((call for call in execution.calls if call.worker == decision.worker and call.failure), None)
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


def _count_attempts(execution: Execution) -> int:
    return sum(call.attempts for call in execution.calls)
