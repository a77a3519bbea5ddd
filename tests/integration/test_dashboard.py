"""The dashboard over HTTP: what pages show, who may read, who may change, and hostile text."""

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, CookieJar
from tests.integration.conftest import Serve, open_app, write_pool
from tests.integration.test_approvals import wait_for_end, write_careful

from ripieno.app import Installation
from ripieno.dashboard.page import ASSETS
from ripieno.domain import Judged, KeyLimits, Objective, Task, Verdict
from ripieno.domain.memory import NewItem
from ripieno.errors import RipienoError
from ripieno.gateway import bind_socket, running
from ripieno.testing import FixedClock, Reply

KEY = "let-me-in"
PAGES = (
    "",
    "live",
    "live/rows",
    "pool",
    "quality",
    "reports",
    "memory",
    "policies",
    "approvals",
    "playground",
    "enter",
)
HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)> {{ 7 * 7 }} </textarea><svg onload=alert(2)>"


class Browser:
    """A client with a cookie jar, that fills forms as a page holds them."""

    def __init__(self, client: ClientSession, address: str) -> None:
        self.client = client
        self.address = address

    async def get(self, path: str, *, status: int = 200) -> str:
        """The page of an address."""
        async with self.client.get(f"{self.address}/ui/{path}") as answer:
            assert answer.status == status, await answer.text()
            return await answer.text()

    async def post(self, path: str, *, origin: str | None = "", **fields: str) -> tuple[int, str]:
        """Send a form; gives status and page."""
        headers = {} if origin is None else {"origin": origin or self.address}
        async with self.client.post(f"{self.address}/ui/{path}", data=fields, headers=headers) as answer:
            return answer.status, await answer.text()

    async def enter(self, key: str = KEY) -> str:
        """Give a key; gives the token of forms."""
        status, page = await self.post("enter", key=key)
        assert status == 200, page
        found = re.search(r'name="token" value="(\w+)"', page)
        return found[1] if found else ""

    async def read(self, path: str) -> str:
        """A page whose views have been read."""
        page = await self.get(path)
        while "data-waiting" in page:
            page = await self.get(path)
        return page


@asynccontextmanager
async def browsing(app: Installation, **gateway: object) -> AsyncIterator[Browser]:
    listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0, **gateway}))
    jar = CookieJar(unsafe=True)
    async with running(app, listener, admin_key=KEY) as address, ClientSession(cookie_jar=jar) as client:
        yield Browser(client, address)


async def ask(app: Installation, text: str = "What is 2 + 2?", quality: float | None = None) -> str:
    decision, run = await app.runtime.orchestrator.run(Task.from_text(text))
    if quality is not None:
        await app.ledger.append(Judged(run=run.id, verdict=Verdict(verifier="user", quality=quality)))
    return decision.id


def list_muted(app: Installation) -> list[str]:
    return [worker.id for worker in app.runtime.pool if worker.is_muted]


def say_as(page: str) -> str:
    """The page's text as a reader sees it."""
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


async def test_every_page_of_an_empty_installation_has_its_security_headers(serve: Serve) -> None:
    write_pool(serve())
    async with open_app() as app, browsing(app) as browser:
        for name in PAGES:
            async with browser.client.get(f"{browser.address}/ui/{name}") as answer:
                assert answer.status == 200, name
                assert answer.headers["content-type"] == "text/html; charset=utf-8"
                policy = answer.headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
                assert answer.headers["cache-control"] == "no-store"
                page = await answer.text()
                assert " style=" not in page
                assert "<script>" not in page
        assert "No decision is recorded yet" in await browser.get("live")
        assert "no decision is recorded yet" in await browser.get("decision/last", status=404)
        assert "no task of traffic is recorded yet" in await browser.read("reports")
        assert "there is no page" in await browser.get("nothing", status=404)
        assert "there is no such file" in await browser.get("assets/page.py", status=404)
        async with browser.client.get(f"{browser.address}/") as answer:
            assert (await answer.json())["dashboard"] == "/ui"


async def test_own_assets_stay_small(serve: Serve) -> None:
    write_pool(serve())
    async with open_app() as app, browsing(app) as browser:
        sizes = [len(await browser.get(f"assets/{name}")) for name in ASSETS]
    assert sum(sizes) < 200_000


async def test_pages_show_decisions_and_verdicts(serve: Serve) -> None:
    write_pool(serve([Reply(status=500)]), serve([Reply(text="fine")]))
    async with open_app() as app, browsing(app) as browser:
        for place in range(60):
            name = await ask(app, f"task number {place}", quality=float(place % 3 > 0))
        live = say_as(await browser.get("live"))
        assert "task number 59" in live
        assert "task number 9 " not in live, "fifty to a page"
        earlier = re.search(r"live\?before=(\d+)", await browser.get("live"))
        assert earlier is not None
        assert "task number 9 " in say_as(await browser.get(f"live?before={earlier[1]}"))
        assert "before must be a place" in await browser.get("live?before=x", status=400)
        page = say_as(await browser.get(f"decision/{name}"))
        for told in ("task number 59", "utility", "fine", "user: 1.00", "prompt tokens"[7:], "mission criticality"):
            assert told in page, told
        turned = await browser.get(f"decision/{name}?dial=0.1")
        assert "at 0.10" in turned
        assert "the dial goes from 0 to 1" in await browser.get(f"decision/{name}?dial=7", status=400)
        reports = say_as(await browser.read("reports"))
        assert "60 decisions, 60 judged" in reports
        assert "fell" not in reports
        pool = say_as(await browser.read("pool"))
        assert "resting" in pool, "the breaker of the failing worker is open"
        assert "$0.001 a call" in pool
        quality = await browser.read("quality")
        assert "No checkpoint decides yet" in quality
        assert 'aria-label="expected and met quality in traffic"' in quality
        assert "no worker is favoured" in quality


async def test_only_the_admin_gets_reports_over_http(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", "master-secret")
    write_pool(serve(), serve())
    async with open_app() as app, browsing(app) as browser:
        where, key = f"{browser.address}/admin/report", {"authorization": "Bearer master-secret"}
        async with browser.client.get(where, headers=key) as answer:
            assert answer.status == 404
            assert "no task of traffic is recorded yet" in (await answer.json())["error"]["message"]
        for _ in range(3):
            await ask(app, quality=1.0)
        _, secret = app.ledger.keys.create("team", KeyLimits())
        async with browser.client.get(f"{where}?last=2", headers=key) as answer:
            assert answer.status == 200
            found = await answer.json()
        assert (found["decisions"], found["judged"]) == (2, 2)
        assert found["thin"]["overqualified"] == "not enough evidence: 2 of 50 judged"
        async with browser.client.get(f"{where}?last=0", headers=key) as answer:
            assert answer.status == 400
        async with browser.client.get(where, headers={"authorization": f"Bearer {secret}"}) as answer:
            assert answer.status in (401, 403)


async def test_hostile_text_stays_text(serve: Serve) -> None:
    write_pool(serve([Reply(text=HOSTILE)]))
    async with open_app() as app, browsing(app) as browser:
        name = await ask(app, HOSTILE, quality=1.0)
        (receipt,) = await app.memory.remember([NewItem(text=HOSTILE, author=HOSTILE[:60])])
        token = await browser.enter()
        await browser.post("feedback", token=token, decision=name, quality="0", back="live")
        pages = [
            "live",
            "live/rows",
            f"decision/{name}",
            f"playground?of={name}",
            "memory?q=script+alert+img",
            f"memory/{receipt.id}",
            f"memory?q={HOSTILE}&project={HOSTILE}&user={HOSTILE}",
            f"playground?first={HOSTILE}&second={HOSTILE}",
        ]
        for path in pages:
            page = await browser.get(path)
            for raw in ("<script>", "<img", "<svg onload", "\"'>", "</textarea><svg"):
                assert raw not in page, path
        assert HOSTILE in html.unescape(await browser.get(f"decision/{name}")), "shown as it is"
        assert "<script>" not in await browser.get(f"{HOSTILE}", status=404)


async def test_a_visitor_without_a_key_reads_and_changes_nothing(serve: Serve) -> None:
    write_pool(serve(), serve())
    before = Path("ripieno.toml").read_text()
    async with open_app() as app, browsing(app) as browser:
        await ask(app)
        for name in ("pool", "policies", "approvals", "playground", "memory", "decision/last"):
            page = await browser.get(name)
            assert 'method="post"' not in page, name
        status, page = await browser.post("pool/mute", worker="a")
        assert status == 403
        assert "only the admin may change things" in page
        assert (await browser.post("enter", key="guess"))[0] == 401
        assert Path("ripieno.toml").read_text() == before


async def test_forms_of_other_pages_are_refused(serve: Serve) -> None:
    write_pool(serve(), serve())
    before = Path("ripieno.toml").read_text()
    async with open_app() as app, browsing(app) as browser:
        token = await browser.enter()
        for origin in ("http://evil.example", "null", None):
            status, page = await browser.post("pool/mute", origin=origin, token=token, worker="a")
            assert status == 403, origin
            assert ("own pages only" if origin is None else "origin_not_allowed") in page
        for wrong in ("", "0" * 64, token[:-1]):
            status, page = await browser.post("pool/mute", token=wrong, worker="a")
            assert status == 403
            assert "not from this page" in page
        assert (await browser.post("enter", origin="http://evil.example", key=KEY))[0] == 403
        assert Path("ripieno.toml").read_text() == before
        async with browser.client.put(f"{browser.address}/ui/pool") as answer:
            assert answer.status == 405
        headers = {"host": "evil.example"}
        async with browser.client.get(f"{browser.address}/ui/live", headers=headers) as answer:
            assert answer.status == 403, "a name of another site that leads here"


async def test_if_a_master_key_is_set_pages_need_a_key(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", "master-secret")
    monkeypatch.setenv("RIPIENO_GATEWAY__VIEWER_KEY", "viewer-secret")
    write_pool(serve(), serve())
    async with open_app() as app:
        await ask(app, "a private matter")
        async with browsing(app) as browser:
            for name in ("", "live", "live/rows", "decision/last", "memory", "playground", "nothing"):
                page = await browser.get(name, status=401)
                assert "Give a key" in page
                assert "private matter" not in page
            assert (await browser.post("enter", key=KEY))[0] == 401, "the key of the start does not count here"
            assert await browser.enter("viewer-secret") != ""
            assert "a private matter" in await browser.get("live")
            page = await browser.get("pool")
            assert "pool/mute" not in page
            token = re.search(r'name="token" value="(\w+)"', page)
            assert token is not None
            assert (await browser.post("pool/mute", token=token[1], worker="a"))[0] == 403
            status, page = await browser.post("leave", token=token[1])
            assert status == 401, "the key was given back"
            await browser.enter("master-secret")
            assert "pool/mute" in await browser.get("pool")
            for path in ("live", "pool", "playground"):
                page = await browser.get(path)
                assert "master-secret" not in page
                assert "viewer-secret" not in page


async def test_cookies_are_signed_and_expire(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", "master-secret")
    write_pool(serve())
    clock = FixedClock()
    async with Installation(clock=clock) as app, browsing(app) as browser:
        headers = {"origin": browser.address}
        where = f"{browser.address}/ui/enter"
        async with browser.client.post(
            where, data={"key": "master-secret"}, headers=headers, allow_redirects=False
        ) as answer:
            given = answer.headers["set-cookie"]
        assert "HttpOnly" in given
        assert "SameSite=Strict" in given
        cookie = given.partition(";")[0]

        async def look(with_cookie: str) -> int:
            jar = CookieJar(unsafe=True)
            async with (
                ClientSession(cookie_jar=jar) as other,
                other.get(f"{browser.address}/ui/live", headers={"cookie": with_cookie}) as answer,
            ):
                return answer.status

        assert await look(cookie) == 200
        for forged in (cookie[:-1], cookie.replace("admin.", "admin.9"), "ripieno_ui=admin.9999999999.", "x", ""):
            assert await look(forged) == 401, forged
        clock.advance(13 * 3600.0)
        assert await look(cookie) == 401, "it has ended"


async def test_a_worker_is_muted_unmuted_and_added(serve: Serve) -> None:
    write_pool(serve(), serve())
    async with open_app() as app, browsing(app) as browser:
        token = await browser.enter()
        status, page = await browser.post("pool/mute", token=token, worker="a")
        assert status == 200
        assert "a is muted." in page
        assert list_muted(app) == ["a"]
        assert "a is back." in (await browser.post("pool/unmute", token=token, worker="a"))[1]
        assert list_muted(app) == []
        new = {"worker": "c", "provider": "more", "base_url": serve().base_url, "privacy": "local", "price_in": "0.5"}
        assert "c is added" in (await browser.post("pool/add", token=token, **new))[1]
        assert app.runtime.pool["c"].price.input_usd_per_mtok == 0.5
        kept = Path("ripieno.toml").read_text()
        for wrong, told in (
            ({"worker": "c"}, "is in ripieno.toml already"),
            ({"worker": "Not Canonical"}, "not canonical"),
            ({"worker": "d", "price_in": "much"}, "price_in must be a number"),
            ({"worker": "d", "privacy": "secret"}, "privacy must be one of"),
            ({"worker": "", "provider": "more"}, "worker is missing"),
        ):
            status, page = await browser.post("pool/add", token=token, **new | wrong)
            assert status in (400, 500), wrong
            assert told in say_as(page), wrong
        assert Path("ripieno.toml").read_text() == kept
        status, page = await browser.post("pool/probe", token=token, worker="c", budget="5")
        assert status == 200
        assert "c is being probed." in page
        page = await browser.get("pool")
        while "probe of c: running" in page:
            page = await browser.get("pool")
        assert "probe of c: failed, no checkpoint decides yet" in page
        assert (await browser.post("pool/paint", token=token))[0] == 404


async def test_the_playground_sends_a_task_compares_answers_and_records_feedback(serve: Serve) -> None:
    write_pool(serve([Reply(text="four")]), serve([Reply(text="vier")]), serve([Reply(status=400)]))
    async with open_app() as app, browsing(app) as browser:
        token = await browser.enter()
        fields = {"text": "2 + 2?", "dial": "0.3", "first": "a", "second": "b", "mode": ""}
        status, page = await browser.post("playground/ask", token=token, **fields)
        assert status == 200
        assert "four" in page
        assert "vier" in page
        decision = app.ledger.decisions.last()
        assert decision is not None
        assert app.ledger.decisions.find(decision).decision.objective.preference == 0.3
        back = f"playground?of={decision}"
        status, page = await browser.post("feedback", token=token, decision=decision, quality="1", back=back)
        assert "user: 1.00" in page
        (verdict,) = app.ledger.runs.verdicts_of(app.ledger.runs.of_decision(decision)[0].id)
        assert verdict.verdict.quality == 1.0
        status, page = await browser.post("playground/ask", token=token, **fields | {"first": "c", "second": ""})
        assert "No answer" in page
        for wrong, told in (({"text": " "}, "text is missing"), ({"first": "zz"}, "no worker is called"),
                            ({"dial": "2"}, "dial must be a number")):  # fmt: skip
            status, page = await browser.post("playground/ask", token=token, **fields | wrong)
            assert status == 400
            assert told in say_as(page)
        away = await browser.post("feedback", token=token, decision=decision, quality="1", back="//evil.example")
        assert away[0] == 200
        assert "<h1>Live</h1>" in away[1], "nobody is led away"


async def test_an_approval_names_the_digest_of_its_step(serve: Serve) -> None:
    write_careful(serve)
    async with open_app() as app, browsing(app) as browser:
        with pytest.raises(RipienoError):
            await app.runtime.orchestrator.run_detailed(
                Task.from_text("Pay Ada 3 euros", objective=Objective(workers=("a",)))
            )
        token = await browser.enter()
        page = await browser.get("approvals")
        assert "Pay Ada 3 euros" in page
        run = re.search(r'name="run" value="(\w+)"', page)
        digest = re.search(r'name="digest" value="(\w+)"', page)
        assert run is not None
        assert digest is not None
        fields = {"token": token, "run": run[1], "digest": digest[1], "by": "ada", "answer": "approve"}
        stale = await browser.post("approvals/answer", **fields | {"digest": "0" * 64})
        assert stale[0] == 400
        assert "has changed since the page was loaded" in stale[1]
        assert (await browser.post("approvals/answer", **fields | {"by": ""}))[0] == 400
        assert "approved by ada" in (await browser.post("approvals/answer", **fields))[1]
        ended = await wait_for_end(browser.client, browser.address, run[1])
        assert ended["answer"] == "paid"


async def test_memory_is_searched_shown_and_erased(serve: Serve) -> None:
    write_pool(serve())
    async with open_app() as app, browsing(app) as browser:
        (old,) = await app.memory.remember([NewItem(text="The shop runs in Oslo.")])
        (new,) = await app.memory.remember([NewItem(text="The shop runs in Bergen.", supersedes=old.id)])
        page = await browser.get("memory?q=where+does+the+shop+run")
        assert "Bergen" in page
        assert "Oslo" not in page, "it was superseded"
        item = say_as(await browser.get(f"memory/{new.id}"))
        assert "Oslo" in item, "its history is shown"
        assert "no item" in say_as(await browser.get("memory/ffff", status=404))
        token = await browser.enter()
        assert "The canary came back." in (await browser.post("memory/beat", token=token))[1]
        assert "is erased" in (await browser.post("memory/forget", token=token, item=new.id))[1]
        assert "(erased)" in await browser.get(f"memory/{new.id}")


async def test_an_unavailable_memory_is_reported(serve: Serve) -> None:
    path = write_pool(serve(), extra="[memory]\nurl = 'sqlite:///away/memory.db'")
    Path("away").write_text("no folder")
    async with open_app() as app, browsing(app) as browser:
        page = say_as(await browser.get("memory?q=anything"))
        assert path.exists()
        assert page.count("unavailable") >= 2, "health and search"
