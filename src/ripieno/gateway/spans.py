"""Spans: one for each decision, one for each call of a worker, in OpenTelemetry's names for generative AI.

The names stand in one table, whose version is told with each span: the conventions still change.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ripieno.domain import Call
from ripieno.execute import Failed, Started
from ripieno.gateway.facts import Facts
from ripieno.plugins import needs_extra

if TYPE_CHECKING:
    from opentelemetry.trace import Span

MAPPING_VERSION = "gen-ai 1.38 / ripieno 2"
MAPPING: Mapping[str, str] = {
    "operation": "gen_ai.operation.name",
    "worker": "gen_ai.request.model",
    "served": "gen_ai.response.model",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "failure": "error.type",
    "conversation": "gen_ai.conversation.id",
    "version": "ripieno.mapping.version",
    "request": "ripieno.request.id",
    "route": "http.route",
    "status": "http.response.status_code",
    "decision": "ripieno.decision.id",
    "policy": "ripieno.policy",
    "predictor": "ripieno.predictor",
    "propensity": "ripieno.propensity",
    "workflow": "ripieno.workflow",
    "preset": "ripieno.preset",
    "eligible": "ripieno.workers.eligible",
    "masked": "ripieno.workers.masked",
    "cost_usd": "ripieno.cost.usd",
    "attempts": "ripieno.attempts",
    "first_token_s": "ripieno.first_token.duration",
}
"""What we know, and what OpenTelemetry calls it; text of tasks and answers is never among it."""

NANOSECONDS = 1_000_000_000


class Spans:
    """Sends spans to a collector.

    Args:
        endpoint: where traces go over HTTP, such as `http://127.0.0.1:4318/v1/traces`.
    """

    def __init__(self, endpoint: str) -> None:
        with needs_extra("otel", "sending spans", key="gateway.traces_url"):
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        self._provider: TracerProvider = TracerProvider(resource=Resource.create({"service.name": "ripieno"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
        self._tracer = self._provider.get_tracer("ripieno", MAPPING_VERSION)

    def send(self, facts: Facts, started: Started) -> None:
        """Send the spans of one request that is over; a W3C `traceparent` among its headers becomes their parent.

        Args:
            facts: what is known of the request.
            started: what was decided and called for it.
        """
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        now = time.time_ns()
        start = now - int((time.perf_counter() - facts.began) * NANOSECONDS)
        parent = TraceContextTextMapPropagator().extract(facts.request.headers)
        span = self._tracer.start_span(
            "ripieno decide", context=parent, start_time=start, attributes=_describe(facts, started)
        )
        at = start + int(started.decision.decide_s * NANOSECONDS)
        within = trace.set_span_in_context(span)
        for call in started.recorder.calls:
            ends = at + int((call.latency_s or 0.0) * NANOSECONDS)
            attempt = self._tracer.start_span(
                f"chat {call.worker}",
                context=within,
                kind=trace.SpanKind.CLIENT,
                start_time=at,
                attributes=_describe_call(call),
            )
            _end(attempt, ends, call.failure)
            at = ends
        ended = started.recorder.ended
        error = facts.error or (ended.error if isinstance(ended, Failed) else None)
        _end(span, now, type(error).__name__ if error is not None else None)

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()


def _describe(facts: Facts, started: Started) -> dict[str, str | int | float]:
    decision, calls = started.decision, started.recorder.calls
    return _name(
        operation=facts.dialect,
        request=facts.id,
        route=facts.route,
        status=facts.status,
        worker=decision.worker,
        served=calls[-1].worker if calls else None,
        version=MAPPING_VERSION,
        decision=decision.id,
        policy=decision.policy,
        predictor=decision.predictor,
        propensity=decision.propensity,
        workflow=type(decision.workflow).__name__.lower(),
        preset=decision.objective.preset,
        eligible=len(decision.mask.eligible),
        masked=len(decision.mask.masked),
    )


def _describe_call(call: Call) -> dict[str, str | int | float]:
    return _name(
        operation="chat",
        worker=call.worker,
        input_tokens=call.usage.input_tokens,
        output_tokens=call.usage.output_tokens,
        cost_usd=call.cost_usd,
        attempts=call.attempts,
        first_token_s=call.first_token_s,
        failure=call.failure,
        version=MAPPING_VERSION,
    )


def _name(**facts: str | float | None) -> dict[str, str | int | float]:
    return {MAPPING[name]: value for name, value in facts.items() if value is not None}


def _end(span: "Span", at: int, failure: str | None) -> None:
    if failure is not None:
        from opentelemetry.trace import Status, StatusCode

        span.set_status(Status(StatusCode.ERROR, str(failure)))
    span.end(end_time=at)
