"""Provenance: how an answer came about, for response headers and the body's `ripieno` field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ripieno.domain import Decision, JsonValue, Run, Verdict
from ripieno.execute import Answered, Started

LONGEST_VALUE = 200
"""Characters of a header's value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How one answer came about.

    A stream's headers are sent before its first piece, so that only its last event can report how it ended.
    """

    headers: Mapping[str, str]
    body: Mapping[str, JsonValue]


def describe_answer(answered: Answered) -> Provenance:
    """Describe how an answer came about."""
    started, run = answered.started, answered.run
    decision, worker = started.decision, run.worker
    why = _find_why(started, worker)
    headers = (
        _make_headers(started, worker=worker, why=why)
        | _make_end_headers(answered)
        | _make_spend_headers(started)
        | _make_lost_header(answered.answer.lost)
    )
    body: dict[str, JsonValue] = {
        "decision": decision.id,
        "workflow": name_workflow(decision),
        "why": why,
        "cost_usd": started.recorder.price_usd,
        "attempts": _count_attempts(started),
        **describe_run(run),
    }
    if answered.answer.lost:
        body["lost"] = answered.answer.lost
    if answered.answer.authors:
        body["authors"] = answered.answer.authors
    return Provenance(headers=headers, body=body)


def describe_cached(original: Provenance) -> Provenance:
    """Describe an answer from the cache, which costs nothing, from its original provenance."""
    nothing = {"x-ripieno-cache": "hit", "x-ripieno-cost-usd": "0", "x-ripieno-attempts": "0"}
    why = f"{original.body['worker']} answered the same request before"
    return Provenance(
        headers={**original.headers, **nothing, "x-ripieno-why": make_header_value(why)},
        body={**original.body, "why": why, "cost_usd": 0.0, "attempts": 0, "cache": "hit"},
    )


def make_stream_headers(started: Started, *, lost: Sequence[str] = ()) -> dict[str, str]:
    """Make the headers of a stream, with what is known at its first piece.

    A checked answer arrives whole: then everything but its price is known.

    Args:
        started: the run.
        lost: what of the request does not reach the worker.
    """
    ended = started.recorder.ended
    worker = started.recorder.serving or started.decision.worker
    headers = _make_headers(started, worker=worker, why=_find_why(started, worker)) | _make_lost_header(lost)
    return headers | (_make_end_headers(ended) if isinstance(ended, Answered) else {})


def _make_headers(started: Started, *, worker: str, why: str) -> dict[str, str]:
    decision, limit = started.decision, started.recorder.limited_tokens
    headers = {
        "x-ripieno-decision": decision.id,
        "x-ripieno-worker": worker,
        "x-ripieno-workflow": name_workflow(decision),
        "x-ripieno-why": make_header_value(why),
    }
    return headers if limit is None else headers | {"x-ripieno-max-tokens": str(limit)}


def _make_end_headers(answered: Answered) -> dict[str, str]:
    """Make the headers for what the workflow itself found about its answer."""
    headers: dict[str, str] = {}
    if answered.run.ended_early is not None:
        headers["x-ripieno-ended-early"] = make_header_value(answered.run.ended_early)
    if answered.verdict is not None:
        headers["x-ripieno-verdict"] = make_header_value(_format_verdict(answered.verdict))
    return headers


def _make_lost_header(lost: Sequence[str]) -> dict[str, str]:
    """Make the header for what of a request did not reach the worker; none if all did."""
    return {"x-ripieno-lost": make_header_value(", ".join(lost))} if lost else {}


def make_failure_headers(started: Started) -> dict[str, str]:
    """Make the headers for a decision that led to no answer."""
    decision = started.decision
    named = {"x-ripieno-decision": decision.id, "x-ripieno-workflow": name_workflow(decision)}
    return named | _make_spend_headers(started)


def _make_spend_headers(started: Started) -> dict[str, str]:
    return make_cost_header(started.recorder.price_usd) | {"x-ripieno-attempts": str(_count_attempts(started))}


def _count_attempts(started: Started) -> int:
    recorder = started.recorder
    return sum(call.attempts for call in (*recorder.calls, *recorder.beside))


def make_cost_header(cost_usd: float | None) -> dict[str, str]:
    """Make the header for what a request cost, in US dollars."""
    return {"x-ripieno-cost-usd": "unknown" if cost_usd is None else f"{cost_usd:.10f}"}


def _find_why(started: Started, worker: str) -> str:
    """Return why this worker answers: the decision's reason, if it is about this worker."""
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
    """Return the name of a decision's workflow, in lower case."""
    return type(decision.workflow).__name__.lower()


def _format_verdict(verdict: Verdict) -> str:
    said = f"{verdict.verifier} {verdict.quality:.2f}"
    return f"{said}: {verdict.detail}" if verdict.detail else said


def describe_run(run: Run) -> dict[str, JsonValue]:
    """Describe a run that has ended."""
    verdicts: list[JsonValue] = [
        {
            "step": found.step,
            "worker": found.author,
            "verifier": found.verdict.verifier,
            "quality": found.verdict.quality,
            "detail": found.verdict.detail,
        }
        for found in run.findings
    ]
    worker = run.worker if run.answer is not None else None
    return {"worker": worker, "ended_early": run.ended_early, "verdicts": verdicts}


def make_header_value(text: str) -> str:
    """Make a header's value out of a text: ASCII, one line, at most `LONGEST_VALUE` characters."""
    return " ".join(text.encode("ascii", "replace").decode().split())[:LONGEST_VALUE]
