"""Metrics for Prometheus: base units, `_total`, and labels with few values only."""

import os
import time
from collections.abc import Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from ripieno.analyze import Analyzer
from ripieno.app import Installation
from ripieno.domain import Call
from ripieno.encoders import CachedEncoder
from ripieno.execute import Answered, Started
from ripieno.gateway.errors import find_label
from ripieno.gateway.facts import Facts
from ripieno.loops import Loops

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
DECISION_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)


class Metrics:
    """The counters of one gateway process."""

    def __init__(self, app: Installation, loops: Loops) -> None:
        self.registry = registry = CollectorRegistry()
        count = partial(Counter, registry=registry)
        measure = partial(Histogram, registry=registry)
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livesum")
        self._requests = count("ripieno_requests", "Requests by route and status, each once", ("route", "status"))
        self._request_s = measure(
            "ripieno_request_seconds", "From a request to its whole answer", ("route",), buckets=SECONDS
        )
        self._known: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._decision_s = measure("ripieno_decision_seconds", "Time of a decision", buckets=DECISION_SECONDS)
        self._failovers = count("ripieno_failovers", "Tasks that another worker than the chosen one answered")
        self._refused = count("ripieno_refused", "Requests without a whole answer", ("code",))
        self._cached = count("ripieno_cache_requests", "Look-ups in a cache", ("cache", "outcome"))
        self.in_flight = gauge("ripieno_in_flight_requests", "Running requests")
        self.open_streams = gauge("ripieno_open_streams", "Running streams")
        self._by_worker = _WorkerCounters(registry)
        self._present = _Present(app, loops)
        registry.register(self._present)

    def count(self, facts: Facts) -> None:
        """Count one finished request."""
        known = self._known.get((facts.route, facts.status))
        if known is None:
            known = (self._requests.labels(facts.route, facts.status), self._request_s.labels(facts.route))
            self._known[facts.route, facts.status] = known
        known[0].inc()
        if facts.error is not None:
            self._refused.labels(find_label(facts.error)).inc()
        elif facts.status < 400:
            known[1].observe(time.perf_counter() - facts.began)
        if facts.is_cached is not None:
            self._cached.labels("answers", "hit" if facts.is_cached else "miss").inc()
        if facts.started is not None:
            self._count_run(facts.started)

    def _count_run(self, started: Started) -> None:
        """Count the decision and the calls of one run."""
        self._decision_s.observe(started.decision.decide_s)
        calls = started.recorder.calls
        for call in calls:
            self._by_worker.count(call)
        if len(calls) > 1 and isinstance(started.recorder.ended, Answered):
            self._failovers.inc()

    def render(self) -> bytes:
        """Render all counters in the text format; if several processes serve, those of all processes."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # registers itself
        together.register(self._present)
        return generate_latest(together)


class _WorkerCounters:
    """Counters of calls. They are kept for each worker, because looking up a label is slow."""

    def __init__(self, registry: CollectorRegistry) -> None:
        count = partial(Counter, registry=registry)
        measure = partial(Histogram, registry=registry, labelnames=("worker",), buckets=SECONDS)
        self._calls = count("ripieno_calls", "Calls of workers", ("worker", "outcome"))
        self._call_s = measure("ripieno_call_seconds", "From a call to its whole answer")
        self._first_s = measure("ripieno_first_token_seconds", "From a call to its first token")
        self._tokens = count("ripieno_tokens", "Tokens of calls", ("worker", "direction"))
        self._cost = count("ripieno_cost_usd", "Known price of calls in US dollars", ("worker",))
        self._unknown = count("ripieno_calls_of_unknown_cost", "Calls that ripieno_cost_usd leaves out", ("worker",))
        self._known: dict[str, tuple[Counter, Histogram, Counter, Counter]] = {}

    def count(self, call: Call) -> None:
        """Count one call."""
        ok, seconds, read, written = self._find(call.worker)
        if call.failure is None:
            ok.inc()
        else:
            self._calls.labels(call.worker, call.failure).inc()
        if call.latency_s is not None:
            seconds.observe(call.latency_s)
        if call.first_token_s is not None:
            self._first_s.labels(call.worker).observe(call.first_token_s)
        if call.usage.input_tokens:
            read.inc(call.usage.input_tokens)
        if call.usage.output_tokens:
            written.inc(call.usage.output_tokens)
        if call.cost_usd is None:
            self._unknown.labels(call.worker).inc()
        else:
            self._cost.labels(call.worker).inc(call.cost_usd)

    def _find(self, worker: str) -> tuple[Counter, Histogram, Counter, Counter]:
        known = self._known.get(worker)
        if known is None:
            known = self._known[worker] = (
                self._calls.labels(worker, "ok"),
                self._call_s.labels(worker),
                self._tokens.labels(worker, "in"),
                self._tokens.labels(worker, "out"),
            )
        return known


class _Present(Collector):
    """Metrics that are read when Prometheus asks for them."""

    def __init__(self, app: Installation, loops: Loops) -> None:
        self._app = app
        self._loops = loops

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        able = self._app.runtime.availability.able()
        healthy = GaugeMetricFamily("ripieno_worker_healthy", "Whether a worker takes calls", labels=["worker"])
        for worker in self._app.runtime.pool.ids:
            healthy.add_metric([worker], float(worker in able))
        yield healthy
        analyzer, encoder = self._app.analyzer, self._app.analyzer.encoder
        yield _count_lookups("ripieno_features", "Tasks by whether their features were known", analyzer)
        if isinstance(encoder, CachedEncoder):
            yield _count_lookups("ripieno_embeddings", "Texts by whether they were known", encoder)
        waiting = GaugeMetricFamily("ripieno_outbox_entries", "Entries that wait for the ledger")
        waiting.add_metric([], float(self._app.ledger.aside.waiting))
        yield waiting
        reload = GaugeMetricFamily("ripieno_config_is_current", "Whether the latest change of a file was taken")
        reload.add_metric([], 0.0 if self._app.reload_fault else 1.0)
        yield reload
        yield from _count_loops(self._loops)


def _count_loops(loops: Loops) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
    runs = CounterMetricFamily("ripieno_loop_runs", "Runs of background loops", labels=["loop", "outcome"])
    well = GaugeMetricFamily(
        "ripieno_loop_healthy", "Whether a loop runs, and does not fail repeatedly", labels=["loop"]
    )
    at = GaugeMetricFamily("ripieno_loop_last_success_timestamp_seconds", "When a run ended well", labels=["loop"])
    for loop in loops:
        runs.add_metric([loop.name, "ok"], float(loop.runs))
        runs.add_metric([loop.name, "failed"], float(loop.failures))
        well.add_metric([loop.name], 0.0 if loop.is_degraded else 1.0)
        if loop.succeeded_at is not None:
            at.add_metric([loop.name], loop.succeeded_at)
    yield from (runs, well, at)


def _count_lookups(name: str, description: str, cache: Analyzer | CachedEncoder) -> CounterMetricFamily:
    """Count the hits and misses of a cache."""
    lookups = CounterMetricFamily(name, description, labels=["outcome"])
    lookups.add_metric(["hit"], float(cache.hits))
    lookups.add_metric(["miss"], float(cache.misses))
    return lookups
