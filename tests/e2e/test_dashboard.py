"""The dashboard in a real browser: what a person sees, with and without scripts, by keyboard, dark, and on a phone."""

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect
from tests.e2e.conftest import open_browser
from tests.integration.conftest import Serve, serve, write_pool
from tests.integration.test_app import make_outcomes, save_checkpoint

from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.domain import Judged, Task, Verdict
from ripieno.domain.memory import NewItem
from ripieno.gateway import bind_socket, running
from ripieno.testing import Reply

KEY = "let-me-in"
WIDE, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)
PAGES = ("live", "decision/last", "pool", "quality", "reports", "memory", "policies", "approvals", "playground")
LONG = ("decision/last", "quality")
"""Pages whose pictures show them whole."""
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"

__all__ = ["serve"]  # a fixture, used by name


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with open_browser() as opened:
        yield opened


@pytest.fixture
def address(serve: Serve, tmp_path: Path) -> Iterator[str]:
    """A gateway with a trained router and some traffic, in a thread of its own."""
    write_pool(serve([Reply(text="no")]), serve([Reply(text=f"yes {HOSTILE}")]))
    ready, stopped = threading.Event(), threading.Event()
    told: list[str] = []

    async def work() -> None:
        async with Installation(load_settings()) as app:
            app.registry.promote(await save_checkpoint(app, make_outcomes(tmp_path / "set")))
            for place in range(60):
                text = HOSTILE if place == 59 else f"question {place} about rice"
                _, run = await app.runtime.orchestrator.run(Task.from_text(text))
                await app.ledger.append(Judged(run=run.id, verdict=Verdict(verifier="user", quality=float(place % 2))))
            await app.memory.remember([NewItem(text=f"The shop runs in Oslo. {HOSTILE}")])
            listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
            async with running(app, listener, admin_key=KEY) as where:
                told.append(where)
                ready.set()
                await asyncio.to_thread(stopped.wait)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        while not ready.wait(0.1):
            assert thread.is_alive(), "it did not start"
        yield told[0]
    finally:
        stopped.set()
        thread.join()


@contextmanager
def looking(context: BrowserContext) -> Iterator[Page]:
    """A page whose every complaint fails the test."""
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if "127.0.0.1" not in request.url else None)
    yield page
    assert said == [], "no script fails, nothing is blocked, nobody else is asked"
    context.close()


def enter(page: Page, address: str, key: str = KEY) -> None:
    page.goto(f"{address}/ui/enter")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("button", name="Give the key back")).to_be_visible()


def test_pages_are_read_in_light_and_dark_and_on_a_phone(browser: Browser, address: str) -> None:
    for scheme, size in (("light", WIDE), ("dark", WIDE), ("light", PHONE)):
        context = browser.new_context(color_scheme=scheme, viewport=size)  # type: ignore[arg-type]  # one of its names
        with looking(context) as page:
            for name in PAGES:
                page.goto(f"{address}/ui/{name}")
                expect(page.locator("h1")).to_be_visible()
                assert page.title().endswith("Ripieno")
                assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (
                    f"{name} scrolls sideways"
                )
                assert measure_contrast(page) >= 4.5, f"{name}, {scheme}"


def measure_contrast(page: Page) -> float:
    """Least contrast of text on the page's paper, as WCAG counts it."""
    return float(
        page.evaluate(
            """() => {
              const light = (colour) => {
                const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => {
                  const share = Number(part) / 255;
                  return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const paper = light(getComputedStyle(document.body).backgroundColor);
              const seen = [...document.querySelectorAll("h1, main :is(p, td, th, li, dt, small, a, .state)")];
              const rates = seen.map((element) => {
                const ink = light(getComputedStyle(element).color);
                return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
              });
              return Math.min(...rates);
            }"""
        )
    )


def test_hostile_text_does_nothing(browser: Browser, address: str) -> None:
    with looking(browser.new_context()) as page:
        for name in ("live", "decision/last", "memory?q=shop+oslo", "playground?of=last"):
            page.goto(f"{address}/ui/{name.replace('of=last', '')}")
            assert "owned" not in page.title()
            assert page.locator("main img, main script").count() == 0
        page.goto(f"{address}/ui/decision/last")
        assert HOSTILE in page.locator("blockquote").inner_text(), "it is shown as what it is"


def test_without_scripts_everything_is_read(browser: Browser, address: str) -> None:
    with looking(browser.new_context(java_script_enabled=False)) as page:
        page.goto(f"{address}/ui")
        expect(page.locator("tbody tr")).to_have_count(50)
        page.get_by_role("link", name="Earlier").click()
        expect(page.locator("tbody tr")).to_have_count(10)
        page.goto(f"{address}/ui/decision/last")
        page.get_by_role("button", name="Turn").click()
        expect(page).to_have_url(re.compile(r"dial="))
        assert page.locator("svg.chart").count() == 1


def test_the_keyboard_reaches_everything(browser: Browser, address: str) -> None:
    with looking(browser.new_context()) as page:
        page.goto(f"{address}/ui/pool")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.goto(f"{address}/ui/pool")
        reached = []
        for _ in range(12):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.textContent.trim()"))
        names = [
            name.capitalize() for name in ("live", "pool", "quality", "reports", "memory", "policies", "approvals")
        ]
        assert [name for name in reached if name in names] == names, "in the order in which they stand"
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", "where one is, is seen"


def test_new_decisions_appear_on_an_open_page(browser: Browser, address: str) -> None:
    with looking(browser.new_context()) as page, looking(browser.new_context()) as other:
        page.goto(f"{address}/ui/live")
        enter(other, address)
        other.goto(f"{address}/ui/playground")
        other.get_by_label("Task").fill("A question that is new")
        other.get_by_role("button", name="Ask").click()
        expect(page.get_by_text("A question that is new")).to_be_visible()
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("button", name="Continue")).to_be_visible()


def test_an_admin_mutes_workers_sends_tasks_and_gives_feedback(browser: Browser, address: str) -> None:
    with looking(browser.new_context()) as page:
        page.goto(f"{address}/ui/pool")
        assert page.get_by_role("button", name="Mute").count() == 0
        enter(page, address)
        page.goto(f"{address}/ui/pool")
        page.get_by_role("button", name="Mute").first.click()
        expect(page.get_by_text("a is muted.")).to_be_visible()
        expect(page.get_by_role("button", name="Unmute")).to_have_count(1)
        page.goto(f"{address}/ui/playground")
        page.get_by_label("Task").fill("Is there rice?")
        page.get_by_label("First worker").select_option("b")
        page.get_by_label("Second worker").select_option("auto")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".beside section")).to_have_count(2)
        page.get_by_role("button", name="Good answer").first.click()
        expect(page.get_by_text("user: 1.00")).to_be_visible()
        page.goto(f"{address}/ui/policies")
        expect(page.get_by_role("button", name="Roll back")).to_be_visible()
        page.get_by_role("button", name="Give the key back").click()
        page.goto(f"{address}/ui/pool")
        assert page.get_by_role("button", name="Unmute").count() == 0


def test_pictures_for_the_docs(browser: Browser) -> None:
    """Every page of a served dashboard, where the environment names it, its key, and a folder for the pictures."""
    names = ("DASHBOARD_PICTURES", "DASHBOARD_ADDRESS", "DASHBOARD_KEY")
    folder, served, key = (os.environ.get(name) for name in names)
    if not folder or not served or not key:
        pytest.skip(f"pictures are taken where {', '.join(names)} say so")
    take_pictures(browser, served, key, Path(folder))


def take_pictures(browser: Browser, served: str, key: str, folder: Path) -> None:
    """A picture of every page, and of one in the dark and on a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    for scheme, size, end, names in (("light", WIDE, "", PAGES), ("dark", WIDE, "-dark", ("quality",)),
                                     ("light", PHONE, "-phone", ("live",))):  # fmt: skip
        context = browser.new_context(color_scheme=scheme, viewport=size)  # type: ignore[arg-type]  # one of its names
        page = context.new_page()
        enter(page, served, key)
        for name in names:
            page.goto(f"{served}/ui/{name}")
            if name == "memory":
                page.get_by_label("Question").fill("Where do we keep the ledger?")
                page.get_by_label("Project").fill("web")
                page.get_by_role("button", name="Recall").click()
            if name == "playground":
                page.get_by_label("Task").fill("What is 12% of 250?")
                page.get_by_label("Second worker").select_option(index=2)
                page.get_by_role("button", name="Ask").click()
            while page.locator("[data-waiting]").count():
                page.reload()
            page.screenshot(path=folder / f"{name.partition('/')[0]}{end}.png", full_page=name in LONG)
        context.close()
