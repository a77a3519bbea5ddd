"""Pages of the dashboard on a ledger of real decisions: how long each takes over HTTP.

The ledger is made once, by the embedded pool under a router that is trained before: tasks of all families, answered and
graded. For `--rows` beyond that, the same entries are recorded again under new names.

    ripieno demo --home /tmp/dash
    python benchmarks/dashboard.py --home /tmp/dash --decisions 100000 --rows 1000000
"""

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx

from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.domain import Decided, Entry, Executed, Judged, Run, Task
from ripieno.domain.grader import GradedTask
from ripieno.embedded.families import generate_tasks
from ripieno.errors import RipienoError
from ripieno.gateway import bind_socket, running
from ripieno.ledger import Ledger
from ripieno.orchestrator import make_arrival

SLOW = ("smollm2-135m", "smollm2-135m-vote")
"""Workers that take seconds on this machine; they stay in the pool, and the tasks may not go to them."""
PRESETS = ("balanced", "best", "cheap", "fast")
AT_ONCE = 16
PAGES = ("", "/pool", "/quality", "/reports", "/memory", "/policies", "/approvals", "/playground")


async def make_decisions(app: Installation, count: int, *, seed: int = 5000) -> None:
    """Have tasks decided, answered and graded until the ledger holds so many decisions."""
    have = app.ledger.count("decided")
    fast = tuple(worker.id for worker in app.runtime.pool if worker.id not in SLOW)
    grading = app.runtime.grading()
    waiting = _draw_tasks(seed + have)
    started = time.monotonic()

    async def work() -> None:
        nonlocal have
        while have < count:
            have += 1
            graded = next(waiting)
            objective = replace(app.runtime.make_objective(PRESETS[have % len(PRESETS)]), workers=fast)
            task: Task = replace(graded.task, objective=objective)
            try:
                answered = await app.runtime.orchestrator.run_detailed(task, arrival=make_arrival(app.clock))
            except RipienoError:
                continue
            verdict = await grading.grade(graded.grader, task, answered.answer, author=answered.run.worker)
            await app.ledger.append(Judged(run=answered.run.id, verdict=verdict))
            if have % 5000 == 0:
                print(f"{have} decisions, {time.monotonic() - started:.0f} s", file=sys.stderr)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def _draw_tasks(seed: int) -> Iterator[GradedTask]:
    while True:
        tasks = generate_tasks(train=50, test=0, seed=seed)
        random.Random(seed).shuffle(tasks)
        yield from tasks
        seed += 1


def fill_up(ledger: Ledger, rows: int) -> None:
    """Record decisions with what came of them again, under new names, until the ledger holds so many entries."""
    recent = ledger.decisions.latest(2000)
    came = ledger.decisions.results_of(
        [stored.entry.decision.id for stored in recent if isinstance(stored.entry, Decided)]
    )
    while ledger.head() < rows:
        batch: list[Entry] = []
        for stored in recent:
            assert isinstance(stored.entry, Decided)
            batch.extend(_copy(stored.entry, came.get(stored.entry.decision.id)))
        ledger.append_now(batch)


def _copy(decided: Decided, came: tuple[Run, list[Judged]] | None) -> list[Entry]:
    name = uuid4().hex
    again: list[Entry] = [Decided(decision=replace(decided.decision, id=name), task=decided.task)]
    if came is not None:
        run, judged = came
        again.append(Executed(run=replace(run, id=name, decision=name)))
        again += [Judged(run=name, verdict=each.verdict) for each in judged]
    return again


async def measure(app: Installation, repeats: int) -> None:
    """Ask for each page again and again, one at a time."""
    last = app.ledger.decisions.last()
    with bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0})) as listener:
        async with running(app, listener) as address, httpx.AsyncClient(base_url=address, timeout=120) as client:
            print(f"{app.ledger.head():,} entries, {app.ledger.count('decided'):,} decisions")
            print(f"{'page':<14}{'p50 ms':>9}{'p95 ms':>9}{'kB':>8}   against /healthz")
            await client.get("/ui/reports")
            await client.get("/ui/quality")
            await wait_for_views(client)
            base = await _time(client, "/healthz", repeats)
            for page in (*PAGES, f"/decision/{last}"):
                took = await _time(client, f"/ui{page}", repeats)
                size = len((await client.get(f"/ui{page}", follow_redirects=True)).content)
                p50, p95 = statistics.median(took), statistics.quantiles(took, n=20)[-1]
                name = "/decision" if page.startswith("/decision") else page or "/"
                times = p50 / statistics.median(base)
                print(f"{name:<14}{p50 * 1e3:>9.1f}{p95 * 1e3:>9.1f}{size / 1e3:>8.1f}   {times:.0f}x")


async def wait_for_views(client: httpx.AsyncClient) -> None:
    """Until reports and quality have been read: they are made beside the pages, and take their time."""
    started = time.monotonic()
    for page in ("/ui/reports", "/ui/quality"):
        while "data-waiting" in (await client.get(page)).text:  # noqa: ASYNC110  # another process would look so, too
            await asyncio.sleep(0.2)
    print(f"reports and quality were read in {time.monotonic() - started:.1f} s beside the pages")


async def _time(client: httpx.AsyncClient, path: str, repeats: int) -> list[float]:
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = await client.get(path, follow_redirects=True)
        took.append(time.perf_counter() - began)
        found.raise_for_status()
    return took


def main() -> None:
    """Make the ledger and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="what `ripieno demo --home` has made")
    parser.add_argument("--decisions", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--only-make", action="store_true")
    given = parser.parse_args()

    async def work() -> None:
        async with Installation(load_settings(given.home / "ripieno.toml")) as app:
            await make_decisions(app, given.decisions)
            await asyncio.to_thread(fill_up, app.ledger, given.rows)
            if not given.only_make:
                await measure(app, given.repeats)

    asyncio.run(work())


if __name__ == "__main__":
    main()
