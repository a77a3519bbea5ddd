"""The gate before every route: Host, Origin, Content-Type and keys, on real sockets."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.conftest import ADMIN_KEY, Serve, open_app, write_pool

from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.domain import Key, KeyLimits
from ripieno.errors import ConfigError, LedgerError, Overloaded, RateLimited
from ripieno.gateway import bind_socket, load_admin_key, running
from ripieno.gateway.backoff import FREE, MOST_CLIENTS, Backoff
from ripieno.gateway.lookup import MOST_MISSING, MOST_WAITING, Lookup
from ripieno.ledger import Ledger, digest_secret
from ripieno.testing import FixedClock, ScriptedServer

ASK = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}).encode()
PAGE = "https://chat.example.org"
GETS = (
    *("/", "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/auto", "/v1/runs/x", "/v1/memory/status"),
    *("/admin/keys", "/admin/report", "/admin/approvals", "/ui", "/ui/live", "/ui/assets/style.css", "/nothing"),
)
POSTS = (
    *("/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens", "/v1/responses", "/v1/embeddings"),
    *("/v1/feedback", "/v1/memory", "/v1/memory/recall", "/admin/keys", "/admin/approvals/x"),
)


@dataclass(frozen=True)
class Said:
    """One response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> object:
        error = json.loads(self.body)["error"]
        return error.get("code") or error["type"]


@dataclass(frozen=True)
class Wire:
    """Speaks to a gateway byte by byte, so that each header is as a test wants it."""

    app: Installation
    port: int
    server: ScriptedServer

    async def send(self, raw: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        async with asyncio.timeout(60):
            said = await reader.read()
        writer.transport.abort()
        return said

    async def ask(
        self, path: str, body: bytes = b"", /, *, method: str = "GET", host: str | None = "localhost", **headers: str
    ) -> Said:
        """One request; an underscore in a header's name stands for a hyphen."""
        lines = [f"{method} {path} HTTP/1.1", "connection: close", f"content-length: {len(body)}"]
        lines += [f"host: {host}"] if host is not None else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return read_said(await self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body))

    async def chat(self, **headers: str) -> Said:
        return await self.ask(
            "/v1/chat/completions", ASK, method="POST", **{"content_type": "application/json"} | headers
        )

    def assert_untouched(self) -> None:
        """Nothing was asked, spent, planted or made."""
        assert self.server.seen == []
        assert self.app.ledger.count("decided") == 0
        assert self.app.ledger.keys.all() == {}


def read_said(raw: bytes) -> Said:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Said(int(first.split(" ")[1]), headers, body)


@asynccontextmanager
async def open_gate(serve: Serve, *, admin_key: str | None = ADMIN_KEY, **gateway: object) -> AsyncIterator[Wire]:
    server = serve()
    write_pool(server)
    async with open_app() as app:
        app.runtime.settings.gateway.__dict__.update(gateway)
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        port = listener.getsockname()[1]
        async with running(app, listener, admin_key=admin_key):
            yield Wire(app, port, server)


# Host


@pytest.mark.parametrize(
    ("host", "status", "code"),
    [
        (None, 400, "bad_host"),
        ("", 400, "bad_host"),
        ("x" * 10_000, 400, "bad_host"),
        ("127.0.0.1:http", 400, "bad_host"),
        ("user@localhost", 400, "bad_host"),
        ("localhost/x", 400, "bad_host"),
        ("localhost, evil.test", 400, "bad_host"),
        ("evil.test", 403, "host_not_allowed"),
        ("evil.test:4141", 403, "host_not_allowed"),
        ("localhost.evil.test", 403, "host_not_allowed"),
        ("127.0.0.1.evil.test", 403, "host_not_allowed"),
        ("0.0.0.0", 403, "host_not_allowed"),
        ("192.168.1.5:4141", 403, "host_not_allowed"),
        ("[fe80::1]", 403, "host_not_allowed"),
    ],
)
async def test_a_host_that_is_not_the_gateways_reaches_no_route(
    serve: Serve, host: str | None, status: int, code: str
) -> None:
    async with open_gate(serve) as wire:
        for path in GETS:
            said = await wire.ask(path, host=host, x_api_key=ADMIN_KEY)
            assert (said.status, said.code if path != "/v1/messages" else code) == (status, code), path
        for path in POSTS:
            said = await wire.ask(
                path, ASK, method="POST", host=host, x_api_key=ADMIN_KEY, content_type="application/json"
            )
            assert said.status == status, path
            assert b"secret" not in said.body
        wire.assert_untouched()


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1:65535", "127.8.9.10", "[::1]:4141", "[::1]"]
)
async def test_loopback_names_with_any_port_are_answered(serve: Serve, host: str) -> None:
    async with open_gate(serve) as wire:
        assert (await wire.ask("/healthz", host=host)).status == 200
        assert (await wire.ask("/ui/live", host=host)).status == 200
        assert (await wire.chat(host=host)).status == 200


async def test_names_of_the_settings_are_answered_and_no_others(serve: Serve) -> None:
    async with open_gate(serve, allowed_hosts=("router.example.org", "*.lan", "10.0.0.7")) as wire:
        statuses = {
            host: (await wire.ask("/healthz", host=host)).status
            for host in ("Router.Example.Org:8080", "a.lan", "b.a.lan", "10.0.0.7", "lan", "xlan", "example.org")
        }
        assert list(statuses.values()) == [200, 200, 200, 200, 403, 403, 403], statuses
        for number in range(600):  # more names than verdicts are kept
            assert (await wire.ask("/healthz", host=f"n{number}.lan")).status == 200


async def test_off_loopback_the_gate_accepts_addresses_and_the_names_in_the_settings(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", "the-long-master-key")
    async with open_gate(serve, host="0.0.0.0") as wire:
        for host in ("10.1.2.3:4141", "any.name", "localhost", "[fe80::1]"):
            assert (await wire.ask("/readyz", host=host)).status == 200, "probes send an address"
            assert (await wire.chat(host=host)).status == 401
    async with open_gate(serve, host="0.0.0.0", allowed_hosts=("router.example.org",)) as wire:
        for host, status in (("router.example.org", 200), ("10.1.2.3", 200), ("localhost", 200), ("any.name", 403)):
            assert (await wire.ask("/readyz", host=host)).status == status


async def test_a_repeated_header_is_refused(serve: Serve) -> None:
    async with open_gate(serve) as wire:
        for name, first, second in (
            ("Host", "localhost", "evil.test"),
            ("host", "localhost", "localhost"),
            ("origin", "null", f"http://localhost:{wire.port}"),
            ("content-type", "text/plain", "application/json"),
            ("authorization", "Bearer a", "Bearer b"),
            ("sec-fetch-site", "cross-site", "none"),
        ):
            host = "" if name.lower() == "host" else "host: localhost\r\n"
            head = f"GET /healthz HTTP/1.1\r\n{host}{name}: {first}\r\n{name.lower()}: {second}\r\n\r\n"
            said = read_said(await wire.send(head.encode()))
            assert (said.status, said.code) == (400, "bad_request")
            assert name.lower() in said.body.decode()
        good = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
        bad = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: evil.test\r\n\r\n"
        said_all = await wire.send(good + good + bad + good)
        assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", said_all)] == [200, 200, 400]
        wire.assert_untouched()


async def test_the_gate_checks_targets_that_are_whole_urls(serve: Serve) -> None:
    async with open_gate(serve) as wire:
        for target, status in (
            ("http://localhost/healthz", 200),
            ("http://evil.test/healthz", 400),
            ("http://localhost:1/healthz", 400),
            ("http://user@localhost/healthz", 400),
            ("evil.test:443", 400),
            ("*", 400),
        ):
            assert (await wire.ask(target)).status == status, target
        assert (await wire.ask("http://evil.test/healthz", host="evil.test")).status == 403
        assert (await wire.ask("evil.test:443", method="CONNECT", host="evil.test")).status == 400


# Origin


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "file://"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "script"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"},
    ],
)
async def test_a_page_of_another_site_reaches_no_route(serve: Serve, headers: dict[str, str]) -> None:
    async with open_gate(serve) as wire:
        for path in GETS:
            said = await wire.ask(path, x_api_key=ADMIN_KEY, **headers)
            assert (said.status, said.code) == (403, "origin_not_allowed"), path
            assert not any(name.startswith("access-control") for name in said.headers)
        for path in (*POSTS, "/ui/enter", "/ui/pool/mute"):
            for kind in ("text/plain", "application/json", "application/x-www-form-urlencoded"):
                said = await wire.ask(path, ASK, method="POST", content_type=kind, x_api_key=ADMIN_KEY, **headers)
                assert said.status == 403, path
            asks = {"access_control_request_method": "POST", "access_control_request_headers": "content-type"}
            said = await wire.ask(path, method="OPTIONS", **asks, **headers)
            assert said.status == 403
            assert not any(name.startswith("access-control") for name in said.headers)
        wire.assert_untouched()
        assert (await wire.app.memory.health()).items == 0


async def test_a_clicked_link_opens_the_dashboard_and_nothing_else(serve: Serve) -> None:
    clicked = {
        "sec_fetch_site": "cross-site",
        "sec_fetch_mode": "navigate",
        "sec_fetch_dest": "document",
        "sec_fetch_user": "?1",
    }
    async with open_gate(serve) as wire:
        for path, status in (("/ui/live", 200), ("/", 200), ("/metrics", 403), ("/v1/models", 403)):
            assert (await wire.ask(path, **clicked)).status == status
        assert (await wire.ask("/ui/live", sec_fetch_site="none")).status == 200
        assert (await wire.ask("/ui/live", sec_fetch_site="same-origin")).status == 200
        assert (await wire.ask("/ui/live", origin="http://localhost", sec_fetch_site="same-origin")).status == 200


async def test_an_allowed_origin_may_ask_and_read_but_not_administer(serve: Serve) -> None:
    async with open_gate(serve, allowed_origins=(PAGE,)) as wire:
        asked = "authorization, content-type, x-stainless-lang, anthropic-version"
        said = await wire.ask(
            "/v1/chat/completions",
            method="OPTIONS",
            origin=PAGE,
            access_control_request_method="POST",
            access_control_request_headers=asked,
            access_control_request_private_network="true",
        )
        assert (said.status, said.body) == (204, b"")
        assert "content-length" not in said.headers
        assert said.headers["access-control-allow-origin"] == PAGE
        assert said.headers["access-control-allow-headers"] == asked
        assert said.headers["access-control-allow-methods"] == "GET, POST, DELETE"
        assert said.headers["access-control-max-age"] == "600"
        assert said.headers["access-control-allow-private-network"] == "true"
        assert "Origin" in said.headers["vary"]
        assert "access-control-allow-credentials" not in said.headers
        for wrong in ("a b", "x\x7f", "a,,b", "a" * 5000):
            said = await wire.ask(
                "/v1/models",
                method="OPTIONS",
                origin=PAGE,
                access_control_request_method="GET",
                access_control_request_headers=wrong,
            )
            assert "access-control-allow-headers" not in said.headers
        said = await wire.chat(origin=PAGE, sec_fetch_site="cross-site")
        assert said.status == 200
        assert said.headers["access-control-allow-origin"] == PAGE
        assert said.headers["access-control-expose-headers"] == "*"
        assert said.headers["vary"] == "Origin"
        streamed = ASK.replace(b'{"model"', b'{"stream": true, "model"')
        said = await wire.ask(
            "/v1/chat/completions", streamed, method="POST", origin=PAGE, content_type="application/json"
        )
        assert (said.status, said.headers["access-control-allow-origin"]) == (200, PAGE)
        assert b"[DONE]" in said.body
        said = await wire.chat(origin=PAGE, content_type="text/plain")
        assert (said.status, said.headers["access-control-allow-origin"]) == (415, PAGE), "its page may read why"
        for path in ("/admin/keys", "/ui/live", "/ui"):
            said = await wire.ask(path, origin=PAGE, x_api_key=ADMIN_KEY)
            assert said.status == 403
            assert "access-control-allow-origin" not in said.headers
        said = await wire.ask("/v1/models", origin="https://chat.example.org.evil.test")
        assert said.status == 403
        assert (await wire.ask("/v1/models")).headers["vary"] == "Origin", "a cache keeps them apart"


async def test_a_websocket_upgrade_is_checked_like_its_page(serve: Serve) -> None:
    async with open_gate(serve) as wire:
        said = await wire.ask(
            "/v1/chat/completions", origin="http://evil.test", upgrade="websocket", sec_websocket_key="eA=="
        )
        assert said.status == 403
        wire.assert_untouched()


# Content-Type


@pytest.mark.parametrize(
    "kind",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json",
     "application/json-seq", "application/json; charset=utf-16", "text/plain, application/json"],
)  # fmt: skip
async def test_json_routes_take_json_only(serve: Serve, kind: str | None) -> None:
    async with open_gate(serve) as wire:
        given = {"content_type": kind} if kind is not None else {}
        for path in POSTS:
            said = await wire.ask(path, ASK, method="POST", x_api_key=ADMIN_KEY, **given)
            assert said.status == 415, path
            assert b"Content-Type: application/json" in said.body
            code = "invalid_request_error" if path.startswith("/v1/messages") else "unsupported_media_type"
            assert said.code == code
        wire.assert_untouched()
        assert (await wire.app.memory.health()).items == 0


@pytest.mark.parametrize(
    "kind", ["Application/JSON", "application/json; charset=UTF-8", 'application/json;charset="utf8"']
)
async def test_the_json_media_type_is_accepted_in_any_spelling(serve: Serve, kind: str) -> None:
    async with open_gate(serve) as wire:
        assert (await wire.chat(content_type=kind)).status == 200


async def test_forms_of_pages_are_forms(serve: Serve) -> None:
    async with open_gate(serve) as wire:
        for kind, status in (
            ("text/plain", 415),
            ("application/json", 415),
            ("application/x-www-form-urlencoded", 401),
        ):
            said = await wire.ask("/ui/enter", b"key=x", method="POST", content_type=kind, origin="http://localhost")
            assert said.status == status


# keys


async def test_admin_routes_need_the_admin_key_on_loopback_too(serve: Serve) -> None:
    async with open_gate(serve) as wire:
        _, virtual = wire.app.ledger.keys.create("team", KeyLimits())
        calls = [("GET", "/admin/keys"), ("POST", "/admin/keys"), ("DELETE", "/admin/keys/x"), ("GET", "/admin/report"),
                 ("GET", "/admin/approvals"), ("POST", "/admin/approvals/x")]  # fmt: skip
        for method, path in calls:
            body = b'{"name": "x"}' if path == "/admin/keys" else b'{"approve": true, "by": "x"}'
            given = {"content_type": "application/json"} if method == "POST" else {}
            for key, status in ((None, 401), ("none", 401), (virtual, 403), ("rp-admin-wrong", 401)):
                keyed = {"authorization": f"Bearer {key}"} if key is not None else {}
                said = await wire.ask(path, body, method=method, **given, **keyed)
                assert said.status == status, (method, path, key)
            said = await wire.ask(path, body, method=method, x_api_key=ADMIN_KEY, **given)
            assert said.status not in (401, 403), (method, path)
        assert len(wire.app.ledger.keys.all()) == 2


async def test_without_an_admin_key_all_admin_routes_refuse(serve: Serve) -> None:
    async with open_gate(serve, admin_key=None) as wire:
        assert (await wire.ask("/admin/keys", x_api_key="")).status == 401
        assert (await wire.chat()).status == 200


async def test_a_new_key_works_at_once_and_an_unknown_key_is_refused(serve: Serve) -> None:
    async with open_gate(serve) as wire:
        assert (await wire.chat()).status == 200
        for key in ("none", "sk-of-another-provider"):
            assert (await wire.chat(authorization=f"Bearer {key}")).status == 200, "clients send something"
        said = await wire.chat(authorization="Bearer rp-nobody-knows-this")
        assert (said.status, said.code) == (401, "invalid_api_key")
        said = await wire.chat(authorization="Bearer none", x_api_key="rp-nobody-knows-this")
        assert said.status == 401
        made, secret = wire.app.ledger.keys.create("new", KeyLimits(workers=("z",)))  # as another process makes it
        said = await wire.chat(authorization=f"Bearer {secret}")
        assert (said.status, said.code) == (403, "not_allowed") if said.status == 403 else (400, "no_eligible_worker")
        wire.app.ledger.keys.revoke(made.id)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR "])
async def test_the_name_of_the_scheme_is_read_in_any_case(serve: Serve, scheme: str) -> None:
    async with open_gate(serve) as wire:
        assert (await wire.ask("/admin/keys", authorization=f"{scheme} {ADMIN_KEY}")).status == 200
        assert (await wire.ask("/admin/keys", authorization=f"Basic {ADMIN_KEY}")).status == 401


async def test_ten_thousand_wrong_keys_are_few_queries_and_little_memory(ledger: Ledger) -> None:
    made, secret = ledger.keys.create("good", KeyLimits())
    queries: list[Sequence[str]] = []

    def read(digests: Sequence[str]) -> dict[str, Key]:
        queries.append(digests)
        return ledger.keys.find(digests)

    lookup = Lookup(read)
    for start in range(0, 10_000, 2500):
        wrong = [digest_secret(f"rp-{number}") for number in range(start, start + 2500)]
        found = await asyncio.gather(*map(lookup.find, wrong))
        assert found == [None] * len(wrong)
    found_now = await lookup.find(digest_secret(secret))
    assert found_now is not None
    assert found_now.id == made.id
    assert len(queries) <= 25, "a query reads 500 digests"
    assert len(lookup._missing) <= MOST_MISSING
    queries.clear()
    assert await lookup.find(digest_secret("rp-9999")) is None
    assert queries == [], "an unknown key is not looked up again"
    await lookup.close()


async def test_wrong_keys_delay_no_other_client(serve: Serve) -> None:
    async with open_gate(serve) as wire:
        _, secret = wire.app.ledger.keys.create("good", KeyLimits())
        knocks = [wire.chat(authorization=f"Bearer rp-wrong-{number}") for number in range(300)]
        *refused, served = await asyncio.gather(*knocks, wire.chat(authorization=f"Bearer {secret}"))
        assert {said.status for said in refused} == {401}
        assert served.status == 200
        assert len(wire.server.seen) == 1


async def test_an_unreadable_store_is_no_unknown_key(ledger: Ledger) -> None:
    lookup = Lookup(ledger.keys.find)
    ledger.keys._engine.dispose()
    wrong = digest_secret("rp-x")
    with ledger.keys._engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE keys RENAME TO keys_away")
    with pytest.raises(LedgerError):
        await lookup.find(wrong)
    with ledger.keys._engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE keys_away RENAME TO keys")
    assert await lookup.find(wrong) is None
    await lookup.close()


# /ui/enter


async def test_after_wrong_keys_a_client_waits_longer_each_time(serve: Serve) -> None:
    async with open_gate(serve) as wire:

        async def enter(key: str) -> Said:
            form = {"content_type": "application/x-www-form-urlencoded", "origin": "http://localhost"}
            return await wire.ask("/ui/enter", f"key={key}".encode(), method="POST", **form)

        assert [(await enter("wrong")).status for _ in range(FREE)] == [401] * FREE
        said = await enter(ADMIN_KEY)
        assert said.status == 429, "a right key is not tried either, or the answer would tell"
        assert 1 <= int(said.headers["retry-after"]) <= 2
        assert b"too many wrong keys" in said.body
        assert "set-cookie" not in said.headers


def test_the_wait_doubles_ends_and_is_kept_in_little_memory() -> None:
    clock = FixedClock()
    backoff = Backoff(clock)

    def wait_of(client: str) -> float:
        try:
            backoff.check(client)
        except RateLimited as error:
            return error.retry_after_s
        return 0.0

    waits = []
    for _ in range(10):
        backoff.note_wrong("a")
        waits.append(wait_of("a"))
    assert waits == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert wait_of("b") == 0.0
    clock.advance(60.0)
    assert wait_of("a") == 0.0
    clock.advance(1000.0)
    backoff.note_wrong("a")
    assert wait_of("a") == 0.0, "the count of a quiet client restarts"
    backoff.note_right("a")
    for number in range(3 * MOST_CLIENTS):
        backoff.note_wrong(f"c{number}")
    assert len(backoff._clients) == MOST_CLIENTS
    assert wait_of("new") > 60.0, "many clients together wait too"
    clock.advance(4 * MOST_CLIENTS)
    assert wait_of("new") == 0.0


# the admin key of a home folder


def test_an_admin_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    made = load_admin_key(home)
    assert made.is_new
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert len(made.secret) > 40
    again = load_admin_key(home)
    assert (again.secret, again.is_new) == (made.secret, False)
    made.path.chmod(0o644)
    assert load_admin_key(home).secret == made.secret
    assert made.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"short\n", b"two words in the file\n", b"\xff" * 40])
def test_a_file_without_a_key_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "admin.key"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_admin_key(tmp_path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert path.read_bytes() == content


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"admin\.key"):
        load_admin_key(tmp_path / "file" / "home")
    (tmp_path / "admin.key").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_admin_key(tmp_path)


# errors and headers


async def test_every_response_keeps_browsers_from_guessing_framing_and_sharing(serve: Serve) -> None:
    async with open_gate(serve) as wire:
        for path in (*GETS, "http://evil.test/"):
            said = await wire.ask(path)
            assert said.headers["x-content-type-options"] == "nosniff", path
            assert said.headers["x-frame-options"] == "DENY"
            assert said.headers["cross-origin-resource-policy"] == "same-origin"
            assert said.headers["referrer-policy"] == "same-origin"
            if path.startswith("/ui"):
                assert "frame-ancestors 'none'" in said.headers["content-security-policy"]
                assert "default-src 'none'" in said.headers["content-security-policy"]
                assert said.headers["cross-origin-opener-policy"] == "same-origin"


async def test_a_setup_error_hides_its_paths(serve: Serve, tmp_path: Path) -> None:
    async with open_gate(serve) as wire:
        Path("ripieno.toml").write_text("[gateway]\nprot = 1\n")
        await wire.chat()
        while wire.app.reload_fault is None:
            assert wire.app.runtime
        said = await wire.ask("/healthz")
        assert json.loads(said.body)["status"] == "degraded"
        assert b"ripieno.toml" not in said.body
        assert str(tmp_path).encode() not in said.body
        assert "ripieno.toml" in str(wire.app.reload_fault), "the log and the pool's page have it"


# settings


@pytest.mark.parametrize(
    ("key", "value"),
    [("allowed_origins", value) for value in ("*", "null", "https://x/", "https://*.x", "x.org", "https://a b", "")]
    + [("allowed_hosts", value) for value in ("*", "x:80", "a b", "*.*.x", "http://x", "", "x" * 300)],
)
def test_a_host_or_origin_that_cannot_be_one_is_refused_at_the_start(key: str, value: str) -> None:
    Path("ripieno.toml").write_text(f"[gateway]\n{key} = [{value!r}]\n")
    with pytest.raises(ConfigError, match=key):
        load_settings()


def test_hosts_and_origins_come_from_file_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ripieno.toml").write_text("[gateway]\nallowed_origins = ['tauri://localhost', 'http://[::1]:3000']\n")
    hosts = ["router.example.org", "*.lan", "::1", "10.0.0.7"]
    monkeypatch.setenv("RIPIENO_GATEWAY__ALLOWED_HOSTS", json.dumps(hosts))
    gateway = load_settings().settings.gateway
    assert gateway.allowed_hosts == tuple(hosts)
    assert gateway.allowed_origins == ("tauri://localhost", "http://[::1]:3000")


async def test_too_many_look_ups_are_refused_and_all_end_with_the_gateway() -> None:
    release = threading.Event()

    def read(digests: Sequence[str]) -> dict[str, Key]:
        release.wait(60)
        return {}

    lookup = Lookup(read)
    waiting = [asyncio.ensure_future(lookup.find(str(number))) for number in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await lookup.find("one more")
    await lookup.close()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in ended} == {asyncio.CancelledError}
    release.set()
