"""No database is read on the event loop: not for a route, a page, a form, or a background loop."""

import asyncio
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Engine, event
from tests.integration.conftest import Serve, open_gateway
from tests.integration.test_app import make_outcomes
from tests.integration.walk import ask, list_asks, send, write_workers

from ripieno.app import Installation
from ripieno.app.feedback import record_feedback
from ripieno.dashboard.dashboard import PAGES
from ripieno.domain import Task, Verdict
from ripieno.gateway.actions import Actions
from ripieno.learn import Recipe, analyze_prompts, train
from ripieno.learn.promotion import start_canary
from ripieno.ledger import import_data
from ripieno.tasks import read_folder


@contextmanager
def watching() -> Iterator[list[str]]:
    """Note every statement that a database gets from this thread, and where it comes from."""
    here, seen = threading.get_ident(), list[str]()

    def note(*given: object) -> None:
        if threading.get_ident() == here:
            ours = [frame for frame in traceback.extract_stack() if "/ripieno/" in frame.filename]
            seen.append(" < ".join(f"{Path(frame.filename).stem}.{frame.name}" for frame in reversed(ours)))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def test_no_route_and_no_page_reads_a_database_on_the_event_loop(serve: Serve) -> None:
    write_workers(serve)
    async with open_gateway() as (app, address, client):
        asks = await list_asks(app, client, address)
        decision = app.ledger.decisions.last()
        asks += [ask("GET /ui/{page}", path=f"/ui/{name}") for name in PAGES if name != "decision"]
        asks += [ask("GET /ui/{page}", path=f"/ui/decision/{decision}"), ask("GET /ui/{page}", path="/ui/live/rows")]
        with watching() as seen:
            for asked in asks:
                assert (await send(client, address, asked)).status == asked.status
        assert seen == []


async def test_no_form_and_no_loop_reads_a_database_on_the_event_loop(serve: Serve, tmp_path: Path) -> None:
    write_workers(serve)
    async with open_gateway() as (app, _, _client):
        first, second = await save_checkpoints(app, tmp_path)
        app.registry.promote(first)
        await app.memory.beat()  # it is opened now
        actions, decisions = Actions(app), []
        with watching() as seen:
            for nth in range(4):
                task = Task.from_text(f"question {nth} about rice")
                decision, _ = await app.runtime.orchestrator.run(replace(task, objective=app.runtime.make_objective()))
                await record_feedback(app, decision.id, Verdict(verifier="user", quality=1.0))
                decisions.append(decision.id)
            forms: list[tuple[str, dict[str, str]]] = [
                ("feedback", {"decision": decisions[0], "quality": "0.5"}),
                ("playground/ask", {"text": "What is 2 + 2?", "dial": "0.5"}),
                ("policies/shadow", {"checkpoint": second}),
                ("pool/probe", {"worker": "a", "budget": "5"}),
                ("policies/promote", {"checkpoint": second}),
                ("policies/rollback", {}),
                ("memory/beat", {}),
            ]
            for name, fields in forms:
                await actions.do(name, fields)
                while any(job.state == "running" for job in actions.jobs.list()):  # noqa: ASYNC110  # sets no event
                    await asyncio.sleep(0)
        assert seen == []
        ends = {job.name: job.detail for job in actions.jobs.list()}
        assert ends == dict.fromkeys(("probe", "shadow"), "the source of the tasks of 'set' is not recorded")
        start_canary(app.registry, app.ledger, second)
        with watching() as seen:
            for name in decisions:
                await record_feedback(app, name, Verdict(verifier="other", quality=1.0))
            await app.catch_up()
            assert await app.runs.sweep() == 0
        assert seen == []


async def save_checkpoints(app: Installation, folder: Path) -> tuple[str, str]:
    """Save a checkpoint that learned the opposite of the outcomes in the ledger, and one that learned them."""
    data = read_folder(make_outcomes(folder / "set"))
    import_data(app.ledger, data)
    features = await analyze_prompts(app.analyzer, data)
    saved = []
    for learned in (replace(data, quality=1.0 - data.quality), data):
        trained = train(learned, features, recipe=Recipe(), schema=app.analyzer.schema, clock=app.clock)
        saved.append(app.registry.save(trained.checkpoint, trained.card))
    return saved[0], saved[1]
