"""One chain for every answer: the same headers, one id for a request, counted once and logged once."""

import asyncio
import json
import logging
import re

import pytest
from aiohttp import ClientSession
from tests.integration.conftest import ADMIN_KEY, Serve, open_app, open_gateway, write_pool
from tests.integration.walk import ALWAYS, CHAT, Said, ask, list_asks, send, write_workers

from ripieno.gateway import bind_socket, running
from ripieno.gateway.gate import Gate
from ripieno.gateway.keyring import Keyring
from ripieno.gateway.server import Gateway
from ripieno.gateway.visitors import Visitors
from ripieno.testing import Reply

PAGE = "https://chat.example.org"


async def test_every_answer_of_every_route_has_the_same_headers_and_an_id_of_its_own(serve: Serve) -> None:
    write_workers(serve)
    async with open_gateway() as (app, address, client):
        ids: list[str] = []
        for asked in await list_asks(app, client, address):
            answer = await send(client, address, asked)
            assert answer.status == asked.status, (asked, answer)
            missing = (ALWAYS | asked.has) - set(answer.headers)
            assert not missing, (asked, missing)
            others = {name for name in answer.headers if name.startswith("x-ripieno")} - asked.has
            assert not others, (asked, others)
            assert answer.id == answer.headers["request-id"]
            ids.append(answer.id)
        assert len(set(ids)) == len(ids)


async def test_the_walk_leaves_out_no_route(serve: Serve) -> None:
    write_workers(serve)
    async with open_gateway() as (app, address, client):
        keyring = Keyring(app.ledger.keys, admin=ADMIN_KEY, is_open=True, clock=app.clock)
        visitors = Visitors(key=ADMIN_KEY, viewer_key=None, is_open=True, clock=app.clock)
        gate = Gate(hosts=(), origins=(), is_loopback=True)
        served = {route.label for route in Gateway(app, gate=gate, keyring=keyring, visitors=visitors).routes}
        walked = {asked.route for asked in await list_asks(app, client, address)}
        assert walked == served | {"unknown"}


async def test_a_callers_own_id_is_kept_everywhere_if_it_is_short_and_plain(serve: Serve) -> None:
    write_workers(serve)
    async with open_gateway() as (app, address, client):
        for given in ("r-1", "Root=1-67891233-abcdef0", "x" * 128):
            for asked in await list_asks(app, client, address):
                answer = await send(client, address, asked, **{"X-Request-Id": given})
                assert answer.id == answer.headers["request-id"] == given, asked
                assert answer.headers.get("x-ripieno-decision") != given, "a caller cannot name a decision"
        made = set()
        for given in ("", "x" * 129, "a b", "caf\xe9", "a;b", '"', "<b>"):
            made.add((await send(client, address, ask("GET /healthz"), **{"X-Request-Id": given})).id)
        assert len(made) == 7
        assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)


async def speak(port: int, raw: bytes) -> Said:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    async with asyncio.timeout(60):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.transport.abort()
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Said(int(first.split(" ")[1]), headers, body.decode())


async def test_malformed_and_preflight_requests_get_the_same_headers(serve: Serve) -> None:
    write_pool(serve(), extra=f'[gateway]\nbody_bytes = 2000\nallowed_origins = ["{PAGE}"]')
    async with open_gateway() as (_, address, client):
        port = int(address.rpartition(":")[2])
        begins = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        answers = [
            (400, await speak(port, b"nonsense\r\n\r\n")),
            (400, await speak(port, begins + b"host: localhost\r\n\r\n")),
            (413, await speak(port, begins + b"content-length: 9999\r\n\r\n")),
            (413, await speak(port, begins + b"x-request-id: mine\r\ncontent-length: 9999\r\n\r\n")),
            (431, await speak(port, begins + b"x: " + b"y" * 70_000 + b"\r\n\r\n")),
        ]
        for status, answer in answers:
            assert answer.status == status
            assert set(answer.headers) >= ALWAYS | {"x-should-retry"}
            assert answer.said["request_id"] == answer.id == answer.headers["request-id"]
        assert answers[3][1].id == "mine"
        asks = {"origin": PAGE, "access-control-request-method": "POST"}
        async with client.options(f"{address}/v1/chat/completions", headers=asks) as preflight:
            assert preflight.status == 204
            assert {name.lower() for name in preflight.headers} >= ALWAYS
            ids = {preflight.headers["x-request-id"], *(answer.id for _, answer in answers)}
        assert len(ids) == 6


async def test_header_body_log_line_and_ledger_have_the_same_id(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ripieno.gateway")
    write_workers(serve)
    async with open_gateway() as (app, address, client):
        asks = await list_asks(app, client, address)
        caplog.clear()
        answers = [(asked, await send(client, address, asked)) for asked in asks]
        logged = {getattr(record, "request", None): record for record in caplog.records if hasattr(record, "route")}
        assert len(logged) == len(answers), "one line for each request"
        for asked, answer in answers:
            line = logged[answer.id]
            assert (line.__dict__["route"], line.__dict__["status"]) == (asked.route, answer.status)
            assert answer.id in line.getMessage()
            if "x-should-retry" in asked.has and not asked.path.startswith("/ui/"):
                assert answer.said["request_id"] == answer.id
            if "x-ripieno-cache" in asked.has:
                assert answer.id != answer.headers["x-ripieno-decision"]
            elif "x-ripieno-decision" in asked.has:
                assert answer.id == answer.headers["x-ripieno-decision"] == line.__dict__["decision"]
                assert app.ledger.decisions.find(answer.id, is_whole=True)


async def test_an_error_inside_a_stream_names_the_request(serve: Serve) -> None:
    write_pool(serve([Reply(text="one two three", cuts_after=2)]))
    async with open_gateway() as (_, address, client):
        for route, body in (
            ("POST /v1/chat/completions", CHAT),
            ("POST /v1/messages", CHAT),
            ("POST /v1/responses", {"model": "auto", "input": "x"}),
        ):
            answer = await send(client, address, ask(route, body=body | {"stream": True}))
            last = [line for line in answer.text.splitlines() if line.startswith("data: ")][-1]
            assert json.loads(last.removeprefix("data: "))["request_id"] == answer.id


def count(text: str, name: str) -> dict[str, float]:
    """The samples of a counter, by their labels."""
    found = re.findall(rf"^{name}_total\{{(.*)\}} (.*)$", text, flags=re.MULTILINE)
    return {labels: float(value) for labels, value in found}


async def test_each_request_is_counted_once_under_few_labels(serve: Serve) -> None:
    """A provider's own error code, which may be any text, was a label before."""
    script = [Reply(status=429, raw=json.dumps({"error": {"code": f"odd-{n}"}}).encode()) for n in range(60)]
    write_pool(serve(script))
    async with open_gateway() as (_, address, client):
        metrics = ask("GET /metrics")
        before = count((await send(client, address, metrics)).text, "ripieno_requests")
        assert sum(before.values()) == 0
        for nth in range(20):
            await send(client, address, ask("unknown", 404, path=f"/v9/{nth}"))
            await send(client, address, ask("GET /v1/models/{model}", 404, path=f"/v1/models/{nth}"))
            answer = await send(client, address, ask("POST /v1/chat/completions", 429, CHAT))
            assert answer.said["error"]["code"].startswith("odd-"), "the client gets the provider's own code"
        text = (await send(client, address, metrics)).text
        assert count(text, "ripieno_requests") == {
            'route="GET /metrics",status="200"': 1.0,
            'route="unknown",status="404"': 20.0,
            'route="GET /v1/models/{model}",status="404"': 20.0,
            'route="POST /v1/chat/completions",status="429"': 20.0,
        }
        refused = count(text, "ripieno_refused")
        assert sum(refused.values()) == 60
        assert not any("odd-" in labels for labels in refused)


async def test_a_client_that_leaves_before_its_answer_is_counted_too(serve: Serve) -> None:
    server = serve([Reply(hangs=True)])
    write_pool(server)
    async with open_app() as app:
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener, admin_key=ADMIN_KEY) as address, ClientSession() as client:
            asking = asyncio.create_task(send(client, address, ask("POST /v1/chat/completions", body=CHAT)))
            while not server.seen:
                await asyncio.wait({asking}, timeout=0.01)
            asking.cancel()
            await asyncio.wait({asking})
            label, counted = 'route="POST /v1/chat/completions",status="499"', dict[str, float]()
            async with asyncio.timeout(60):
                while label not in counted:
                    counted = count((await send(client, address, ask("GET /metrics"))).text, "ripieno_requests")
            assert counted[label] == 1.0
