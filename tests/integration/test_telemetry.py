"""Telemetry of a gateway: metrics, spans on a real collector's wire, readiness, and the dashboard file."""

import json
import re
from pathlib import Path

from aiohttp import ClientSession, web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.integration.conftest import Serve, open_app, write_pool

from ripieno.gateway import bind_socket, running
from ripieno.gateway.spans import VERSION
from ripieno.testing import Reply

ASK = {"model": "auto", "messages": [{"role": "user", "content": "What is the secret of 2 + 2?"}]}
DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana-dashboard.json"


async def test_a_decision_and_each_attempt_are_spans_under_the_callers_own(serve: Serve) -> None:
    received: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        received.append(await request.read())
        return web.Response()

    collector = web.Application()
    collector.router.add_post("/v1/traces", take)
    runner = web.AppRunner(collector)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    write_pool(
        serve([Reply(status=500)]), serve([Reply(text="four")]),
        extra=f'[gateway]\ntraces_url = "http://127.0.0.1:{port}/v1/traces"',
    )  # fmt: skip
    async with open_app() as app:
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener) as address, ClientSession() as client:
            parent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
            async with client.post(f"{address}/v1/chat/completions", json=ASK, headers=parent) as response:
                decision = response.headers["x-ripieno-decision"]
                request = response.headers["x-request-id"]
    await runner.cleanup()
    batch = ExportTraceServiceRequest.FromString(b"".join(received))
    spans = [span for resource in batch.resource_spans for scope in resource.scope_spans for span in scope.spans]
    by_name = {span.name: span for span in spans}
    assert set(by_name) == {"ripieno decide", "chat a", "chat b"}
    decided = by_name["ripieno decide"]
    facts = {a.key: a.value.string_value or a.value.int_value or a.value.double_value for a in decided.attributes}
    assert (facts["ripieno.decision.id"], facts["ripieno.request.id"]) == (decision, request)
    assert (facts["http.route"], facts["http.response.status_code"]) == ("POST /v1/chat/completions", 200)
    assert (facts["gen_ai.request.model"], facts["gen_ai.response.model"]) == ("a", "b")
    assert facts["ripieno.mapping.version"] == VERSION
    assert decided.parent_span_id.hex() == "b7ad6b7169203331"
    assert {by_name[name].parent_span_id for name in ("chat a", "chat b")} == {decided.span_id}
    failed = {a.key: a.value.string_value for a in by_name["chat a"].attributes}
    assert failed["error.type"] == "server_error"
    assert b"secret of" not in b"".join(received), "no text of a task leaves with a span"


async def test_metrics_count_what_happened_in_the_names_of_the_dashboard(serve: Serve) -> None:
    write_pool(serve([Reply(status=500)]), serve([Reply(text="four four")]))
    async with open_app() as app:
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener) as address, ClientSession() as client:
            for body in (ASK, ASK | {"stream": True}, ASK | {"model": "gone"}, ASK | {"model": "a"}):
                async with client.post(f"{address}/v1/chat/completions", json=body) as response:
                    await response.read()
            async with client.get(f"{address}/metrics") as response:
                assert response.content_type == "text/plain"
                text = await response.text()
            async with client.get(f"{address}/readyz") as response:
                assert await response.json() == {
                    "ready": True,
                    "draining": False,
                    "ledger": True,
                    "outbox": 0,
                    "workers": 1,
                }
            async with client.head(f"{address}/") as response:
                assert response.status == 200
    assert 'ripieno_requests_total{route="POST /v1/chat/completions",status="200"} 2.0' in text
    assert 'ripieno_requests_total{route="POST /v1/chat/completions",status="404"} 1.0' in text
    assert 'ripieno_refused_total{code="model_not_found"} 1.0' in text
    assert 'ripieno_calls_total{outcome="server_error",worker="a"}' in text
    assert 'ripieno_calls_total{outcome="ok",worker="b"} 2.0' in text
    assert 'ripieno_tokens_total{direction="out",worker="b"} 4.0' in text
    assert 'ripieno_cost_usd_total{worker="b"} 0.004' in text
    assert "ripieno_failovers_total 2.0" in text
    assert "ripieno_in_flight_requests 0.0" in text
    assert 'ripieno_calls_total{outcome="server_error",worker="a"} 3.0' in text, (
        "of the request that got no answer, too"
    )
    shown = json.loads(DASHBOARD.read_text())
    wanted = {name for p in shown["panels"] for t in p["targets"] for name in re.findall(r"ripieno_\w+", t["expr"])}
    assert wanted
    served = set(re.findall(r"^(ripieno_\w+)", text, flags=re.MULTILINE))
    assert wanted <= served, wanted - served
