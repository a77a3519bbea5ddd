"""Spans: one for each decision, one for each call of a worker, in OpenTelemetry's names for generative AI.

Spans never hold text of tasks or answers. Each carries `VERSION`, because the conventions for the names still change.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ripieno.domain import Call
from ripieno.execute import Failed, Started
from ripieno.gateway.facts import Facts
from ripieno.gateway.provenance import name_workflow
from ripieno.plugins import needs_extra

if TYPE_CHECKING:
    from opentelemetry.trace import Span

VERSION = "gen-ai 1.38 / ripieno 2"
"""Version of the attributes' names."""
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
        self._tracer = self._provider.get_tracer("ripieno", VERSION)

    def send(self, facts: Facts, started: Started) -> None:
        """Send the spans of one finished request; a W3C `traceparent` header becomes their parent."""
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
        """Send the waiting spans, and stop."""
        self._provider.shutdown()


Attributes = dict[str, str | int | float]


def _describe(facts: Facts, started: Started) -> Attributes:
    decision, calls = started.decision, started.recorder.calls
    return _drop_unknown(
        {
            "gen_ai.operation.name": facts.dialect,
            "ripieno.request.id": facts.id,
            "http.route": facts.route,
            "http.response.status_code": facts.status,
            "gen_ai.request.model": decision.worker,
            "gen_ai.response.model": calls[-1].worker if calls else None,
            "ripieno.mapping.version": VERSION,
            "ripieno.decision.id": decision.id,
            "ripieno.policy": decision.policy,
            "ripieno.predictor": decision.predictor,
            "ripieno.propensity": decision.propensity,
            "ripieno.workflow": name_workflow(decision),
            "ripieno.preset": decision.objective.preset,
            "ripieno.workers.eligible": len(decision.mask.eligible),
            "ripieno.workers.masked": len(decision.mask.masked),
        }
    )


def _describe_call(call: Call) -> Attributes:
    return _drop_unknown(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": call.worker,
            "gen_ai.usage.input_tokens": call.usage.input_tokens,
            "gen_ai.usage.output_tokens": call.usage.output_tokens,
            "ripieno.cost.usd": call.cost_usd,
            "ripieno.attempts": call.attempts,
            "ripieno.first_token.duration": call.first_token_s,
            "error.type": call.failure,
            "ripieno.mapping.version": VERSION,
        }
    )


def _drop_unknown(attributes: Mapping[str, str | float | None]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _end(span: "Span", at: int, failure: str | None) -> None:
    if failure is not None:
        from opentelemetry.trace import Status, StatusCode

        span.set_status(Status(StatusCode.ERROR, str(failure)))
    span.end(end_time=at)
