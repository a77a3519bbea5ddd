"""The ledger: durable, chained, idempotent, and honest about damage."""

import asyncio
import json
import sqlite3
import threading
from concurrent.futures import Future
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError
from tests.conftest import MakeWorker
from tests.unit.test_tasks import make_folder

from ripieno.domain import (
    Answer,
    Binding,
    Call,
    Configured,
    Decided,
    Decision,
    Entry,
    Executed,
    Judged,
    Learned,
    Mask,
    Objective,
    Origin,
    Placement,
    Pool,
    Promoted,
    Reason,
    RoutingSetup,
    Run,
    Solo,
    Task,
    Usage,
    Verdict,
    Why,
    WorkerId,
)
from ripieno.errors import ConfigError, LedgerCorrupt, LedgerError, LedgerTooNew, NotFound
from ripieno.ledger import Ledger, export_data, import_data
from ripieno.ledger.codec import decode_entry, encode_entry
from ripieno.ledger.database import translated_faults
from ripieno.tasks import read_folder
from ripieno.testing import FixedClock

W = WorkerId("w")


def make_decided(name: str, text: str = "hello") -> Decided:
    decision = Decision(
        id=name, workflow=Solo(worker=W), propensity=1.0, policy="utility", policy_facts={"exploration": 0.0},
        predictor="prior", objective=Objective(), mask=Mask(eligible=(W,), masked={WorkerId("x"): Why(
            reason=Reason.MUTED, detail="d")}), estimates=(), utilities={W: 0.5}, reasons=("best",), seed=2**52,
        decide_s=0.001,
    )  # fmt: skip
    return Decided(decision=decision, task=Task.from_text(text))


def make_executed(name: str, *, decision: str | None = None, dataset: str | None = None) -> Executed:
    call = Call(worker=W, worker_version="v1", usage=Usage(input_tokens=3), cost_usd=0.5, latency_s=None)
    placement = Placement(dataset=dataset, item=name, split="test", group="g") if dataset else None
    run = Run(
        id=name, task=Task.from_text("hello").digest, origin=Origin.TRAFFIC, calls=(call,),
        answer=Answer(text="hi"), decision=decision, placement=placement,
    )  # fmt: skip
    return Executed(run=run, task=Task.from_text("hello"))


def make_judged(run: str, quality: float, nth: int = 0) -> Judged:
    return Judged(run=run, verdict=Verdict(verifier="user", quality=quality), nth=nth)


ENTRIES: tuple[Entry, ...] = (
    make_decided("d1"),
    make_executed("r1", decision="d1"),
    make_judged("r1", 0.25),
    Learned(checkpoint="c", card={"a": [1, {"b": None}]}),
    Promoted(checkpoint="c", previous=None, reason="proof", nth=0),
)


async def test_another_process_reads_every_receipted_entry(ledger: Ledger) -> None:
    assert await ledger.append(*ENTRIES) == 5
    with Ledger(ledger.url) as other:
        assert tuple(stored.entry for stored in other.read()) == ENTRIES
        assert other.verify().entries == 5
        assert [stored.seq for stored in other.read(kinds=("judged", "learned"))] == [3, 4]
        assert [stored.seq for stored in other.read(kinds=("decided", "judged"), after=1)] == [3]
        assert other.count("decided") == 1


async def test_the_same_entry_is_recorded_once(ledger: Ledger) -> None:
    assert await ledger.append(*ENTRIES) == 5
    assert await ledger.append(*ENTRIES, make_executed("r2")) == 1
    assert ledger.append_now([make_judged("r9", 1.0), make_judged("r9", 1.0)]) == 1
    assert ledger.verify().entries == 7


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_any_prefix_appended_again_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    rows = [make_executed(name) for name in names]
    with Ledger(f"sqlite:///{folder}/l.db") as ledger:
        ledger.append_now(rows[:cut])
        ledger.append_now(rows)
        assert [s.entry.id for s in ledger.read()] == list(dict.fromkeys(row.id for row in rows))
        assert ledger.verify().entries == len(set(names))


async def test_many_writers_keep_one_chain(ledger: Ledger) -> None:
    async def write(prefix: str) -> None:
        await asyncio.gather(*(ledger.append(make_executed(f"{prefix}{i}")) for i in range(50)))

    with Ledger(ledger.url) as other:
        rows = [make_executed(f"other{i}") for i in range(50)]
        thread = threading.Thread(target=lambda: [other.append_now([row]) for row in rows])
        thread.start()
        await asyncio.gather(write("a"), write("b"))
        thread.join()
    assert ledger.verify().entries == 150


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE tasks SET body = '{'",
        "UPDATE tasks SET body = '{\"messages\": 5}'",
        "UPDATE entries SET body = replace(body, '0.25', '0.75') WHERE kind = 'judged'",
        "DELETE FROM entries WHERE seq = 2",
        "UPDATE entries SET at = at + 1 WHERE seq = 1",
        "UPDATE entries SET task = NULL WHERE seq = 1",
        "UPDATE tasks SET body = replace(body, 'hello', 'hullo')",
        "DELETE FROM tasks",
    ],
)
async def test_a_changed_or_missing_row_is_found(ledger: Ledger, damage: str) -> None:
    await ledger.append(*ENTRIES)
    connection = sqlite3.connect(ledger.url.removeprefix("sqlite:///"))
    connection.execute(damage)
    connection.commit()
    connection.close()
    with pytest.raises(LedgerCorrupt) as caught:
        ledger.verify()
    assert caught.value.entry


async def test_a_changed_task_is_found_where_its_body_states_a_digest(ledger: Ledger) -> None:
    executed = make_executed("r")
    assert executed.task is not None
    assert executed.task.digest, "a digest that was asked for is recorded with the task"
    await ledger.append(executed)
    connection = sqlite3.connect(ledger.url.removeprefix("sqlite:///"))
    connection.execute("UPDATE tasks SET body = replace(body, 'hello', 'hullo')")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerCorrupt, match="was changed"):
        ledger.verify()


def test_a_body_that_is_not_its_kind_is_corrupt() -> None:
    with pytest.raises(LedgerCorrupt, match="cannot be read"):
        decode_entry("judged", "{}", entry="e")
    with pytest.raises(LedgerCorrupt, match="unknown kind"):
        decode_entry("guessed", "{}", entry="e")
    row = encode_entry(ENTRIES[1])
    assert decode_entry("executed", row.body, entry="e", task_body=row.task_body) == ENTRIES[1]


def test_a_damaged_foreign_or_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"this is not a database, it is a poem" * 50)
    before = damaged.read_bytes()
    with pytest.raises(LedgerCorrupt, match="damaged"):
        Ledger(f"sqlite:///{damaged}")
    assert damaged.read_bytes() == before

    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    with pytest.raises(LedgerCorrupt, match="not a ledger: its tables are recipes"):
        Ledger(f"sqlite:///{foreign}")

    newer = tmp_path / "newer.db"
    Ledger(f"sqlite:///{newer}").close()
    connection = sqlite3.connect(newer)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerTooNew, match="9999") as caught:
        Ledger(f"sqlite:///{newer}")
    assert "upgrade ripieno" in str(caught.value.hint)


def test_an_emptied_version_is_migrated_again(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    connection.commit()
    connection.close()
    with Ledger(f"sqlite:///{path}") as ledger:
        assert ledger.verify().entries == 0


def test_a_wrong_url_and_a_closed_ledger_say_so(tmp_path: Path) -> None:
    for url, told in (
        ("nonsense", "not a database URL"),
        ("oracle://host/x", "is not a supported database"),
        ("sqlite://", "names no file"),
    ):
        with pytest.raises(ConfigError, match=told):
            Ledger(url)
    with pytest.raises(LedgerError, match="odd"), translated_faults("x"):
        raise SQLAlchemyError("odd")
    with pytest.raises(LedgerError):
        Ledger(f"sqlite:///{tmp_path}")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LedgerError, match="the folder of ledger"):
        Ledger(f"sqlite:///{tmp_path}/file/l.db")
    ledger = Ledger(f"sqlite:///{tmp_path}/l.db")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        ledger.append_now([ENTRIES[0]])


async def test_decisions_runs_and_verdicts_are_found(ledger: Ledger) -> None:
    assert ledger.decisions.last() is None
    await ledger.append(make_decided("abc1"), make_decided("abd2", "other"), make_executed("r1", decision="abc1"))
    await ledger.append(make_judged("r1", 0.0), make_judged("r1", 1.0, nth=1))
    assert ledger.decisions.find("abc").decision.id == "abc1"
    assert ledger.decisions.find("abc1", is_whole=True).decision.id == "abc1"
    with pytest.raises(NotFound, match="no decision"):
        ledger.decisions.find("abc", is_whole=True)
    assert ledger.decisions.last() == "abd2"
    assert [run.id for run in ledger.runs.of_decision("abc1")] == ["r1"]
    assert [judged.verdict.quality for judged in ledger.runs.verdicts_of("r1")] == [0.0, 1.0]
    assert [m.outcome.quality for m in ledger.outcomes.measured()] == [1.0], "the last finding counts"
    with pytest.raises(NotFound, match="more than one"):
        ledger.decisions.find("ab")
    with pytest.raises(NotFound, match="no decision"):
        ledger.decisions.find("%")


async def test_the_latest_decisions_are_read_page_by_page_with_their_results(ledger: Ledger) -> None:
    assert ledger.decisions.latest(3) == []
    assert ledger.decisions.find_start(1) == 0
    for number in range(5):
        await ledger.append(make_decided(f"d{number}"), make_executed(f"r{number}", decision=f"d{number}"))
    await ledger.append(make_judged("r4", 0.0), make_judged("r4", 1.0, nth=1))
    await ledger.append(make_executed("again", decision="d4"))
    first = ledger.decisions.latest(2)
    assert [stored.entry.id for stored in first] == ["decided:d4", "decided:d3"]
    then = ledger.decisions.latest(9, before=first[-1].seq)
    assert [stored.entry.id for stored in then] == ["decided:d2", "decided:d1", "decided:d0"]
    came = ledger.decisions.results_of(["d3", "d4", "nobody"])
    assert {name: run.id for name, (run, _) in came.items()} == {"d3": "r3", "d4": "again"}, "the latest run counts"
    assert came["d3"][1] == []
    assert ledger.decisions.find_start(2) == first[-1].seq - 1
    assert ledger.decisions.find_start(6) == 0
    assert ledger.digest_at(1) is not None
    assert ledger.digest_at(999) is None


async def test_pages_of_a_long_ledger_are_read_by_index(ledger: Ledger, tmp_path: Path) -> None:
    """The indexes are partial: a query that is not seen to fit one reads everything, and nobody notices before long."""
    await ledger.append(make_decided("d"), make_executed("r", decision="d"), make_judged("r", 1.0))
    asked: list[tuple[str, Any]] = []

    def listen(connection: object, cursor: object, statement: str, parameters: object, *rest: object) -> None:
        asked.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        ledger.decisions.latest(3, before=9)
        ledger.decisions.find_start(2)
        ledger.decisions.last()
        ledger.decisions.policy_steps(5)
        ledger.decisions.results_of(["d"])
        ledger.decisions.find("d")
        ledger.digest_at(1)
        ledger.runs.unfinished()
        list(ledger.outcomes.traffic(after=0))
    finally:
        event.remove(Engine, "before_cursor_execute", listen)
    database = sqlite3.connect(f"{tmp_path}/ledger.db")
    queries = [each for each in asked if each[0].startswith("SELECT")]
    assert len(queries) == 10
    for statement, values in queries:
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        assert not [step for step in plan if step.startswith("SCAN") and "INDEX" not in step], (statement, plan)
    database.close()


async def test_a_data_set_goes_in_and_comes_out_the_same(ledger: Ledger, tmp_path: Path) -> None:
    data = read_folder(make_folder(tmp_path / "set"))
    assert import_data(ledger, data) == 4
    assert import_data(ledger, data) == 0
    assert ledger.campaigns.datasets() == {"set": 4}
    assert len(ledger.campaigns.run_ids("set")) == 4
    out = export_data(ledger, "set")
    assert {p.id: (p.text, p.split) for p in out.prompts} == {p.id: (p.text, p.split) for p in data.prompts}
    assert sorted(m.id for m in out.models) == ["m1", "m2"]
    assert next(m for m in out.models if m.id == "m2").context_window == 4096
    np.testing.assert_allclose(out.matrix(out.quality), data.matrix(data.quality))
    np.testing.assert_allclose(out.matrix(out.cost_usd), data.matrix(data.cost_usd))
    with pytest.raises(NotFound, match="'other'"):
        export_data(ledger, "other")


async def test_only_outcomes_of_the_present_version_are_gathered(ledger: Ledger) -> None:
    await ledger.append(make_executed("r1", dataset="s"), make_judged("r1", 1.0))
    assert len(export_data(ledger, "s", versions={"w": "v1"}).quality) == 1
    with pytest.raises(NotFound):
        export_data(ledger, "s", versions={"w": "v2"})
    await ledger.append(make_executed("r2"), make_judged("r2", 1.0))
    traffic = export_data(ledger, "traffic")
    assert len(traffic.quality) == 1
    assert traffic.models[0].id == "w"


def test_a_broken_set_leaves_the_ledger_as_it_was(ledger: Ledger, tmp_path: Path) -> None:
    from ripieno.errors import DataError

    make_folder(tmp_path / "good")
    folder = make_folder(tmp_path / "bad", models={"model_id": ["m1"]})
    with pytest.raises(DataError, match="'m2' is not in models"):
        import_data(ledger, read_folder(folder))
    assert ledger.verify().entries == 0


def test_a_full_disk_is_an_error_and_nothing_is_half_written(tmp_path: Path) -> None:
    """A child process with a real limit on file size writes until the kernel refuses."""
    import subprocess
    import sys

    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from tests.unit.test_ledger import make_executed
from ripieno.ledger import Ledger
from ripieno.errors import LedgerFull
ledger = Ledger(f"sqlite:///{sys.argv[1]}/l.db")
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
done = 0
try:
    for index in range(10_000):
        ledger.append_now([make_executed(f"r{index}-{'x' * 500}")])
        done += 1
except LedgerFull as error:
    print(done, error.hint)
"""
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    done, hint = found.stdout.split(" ", 1)
    assert "free space" in hint
    assert int(done) > 10
    with Ledger(f"sqlite:///{tmp_path}/l.db") as ledger:
        assert ledger.verify().entries == int(done), "every receipt is on disk, and nothing else"


def test_a_setup_is_read_back_under_its_digest_without_the_options_of_workers(
    ledger: Ledger, make_worker: MakeWorker
) -> None:
    binding = Binding(provider="p", model="m", options={"token": "private"})
    worker = make_worker("w", binding=binding, deprecated_on=date(2030, 1, 1))
    setup = RoutingSetup(pool=Pool((worker,)), options={"exploration": 0.1}, rules="[[rule]]", judge=W)
    ledger.append_now([Configured(setup=setup), Configured(setup=replace(setup))])
    assert ledger.count("configured") == 1
    (stored,) = ledger.read(kinds=("configured",))
    found = ledger.decisions.find_setup(setup.digest)
    assert stored.entry == Configured(setup=setup.without_options())
    assert found is not None
    assert (found.digest, found.pool["w"].version) == (setup.digest, worker.version)
    assert found.pool["w"].binding.options == {}
    other = replace(worker, binding=replace(binding, options={"token": "other"}))
    assert replace(setup, pool=Pool((other,))).digest != setup.digest, "another version of the worker"
    assert ledger.decisions.find_setup("none") is None


def test_a_setup_keeps_its_bytes_and_the_digest_that_decisions_name_though_it_gains_a_field(
    make_worker: MakeWorker,
) -> None:
    setup = RoutingSetup(pool=Pool((make_worker("w", modalities=frozenset({"text", "image", "audio"})),)), judge=None)
    row = encode_entry(Configured(setup=setup))
    assert encode_entry(decode_entry(row.kind, row.body, entry=row.id)) == row
    body = json.loads(row.body)
    assert body["setup"]["modes"] == sorted(body["setup"]["modes"]), "not in the order of a set"
    body["setup"]["policy"] = "as an earlier version named it"
    del body["setup"]["judge"]
    earlier = decode_entry(row.kind, json.dumps(body), entry=row.id)
    assert isinstance(earlier, Configured)
    assert earlier.id == row.id


def test_entries_are_plain_json(tmp_path: Path, ledger: Ledger) -> None:
    ledger.append_now(ENTRIES)
    rows = sqlite3.connect(f"{tmp_path}/ledger.db").execute("SELECT body FROM entries").fetchall()
    assert all(isinstance(json.loads(body), dict) for (body,) in rows)


async def test_a_cancelled_caller_loses_no_entries_and_does_not_stop_the_writer(ledger: Ledger) -> None:
    waiting = [asyncio.create_task(ledger.append(make_executed(f"r{i}"))) for i in range(40)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await ledger.append(make_executed("last")) == 1
    assert ledger.verify().entries == 41


async def test_a_batch_is_bounded_and_reads_are_translated(ledger: Ledger) -> None:
    from ripieno.ledger.batch import MOST_ROWS

    waiting = [ledger.append(*(make_executed(f"b{n}-{i}") for i in range(600))) for n in range(8)]
    assert sum(await asyncio.gather(*waiting)) == 4800
    assert MOST_ROWS < 4800
    await ledger.append(make_judged("nobody", 1.0))
    assert list(ledger.outcomes.measured()) == []
    connection = sqlite3.connect(ledger.url.removeprefix("sqlite:///"))
    connection.execute("UPDATE tasks SET body = '{'")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerCorrupt, match="cannot be read"):
        ledger.outcomes.tasks([Task.from_text("hello").digest])


def test_a_closing_ledger_writes_the_waiting_entries(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/l.db")
    waiting: list[Future[int]] = [Future() for _ in range(200)]
    for index, request in enumerate(waiting):
        ledger._submit([make_executed(f"r{index}")], request)
    ledger.close()
    assert sum(request.result() for request in waiting) == 200
    with Ledger(f"sqlite:///{tmp_path}/l.db") as again:
        assert again.verify().entries == 200


def test_verdicts_are_found_by_index(ledger: Ledger) -> None:
    """A gateway looks for new findings every two seconds, in a ledger of millions of runs."""
    from sqlalchemy import event

    asked: list[tuple[str, tuple[int, ...]]] = []
    event.listen(ledger._engine, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    assert list(ledger.outcomes.traffic(after=0)) == []
    statement, values = asked[-1]
    connection = sqlite3.connect(ledger.url.removeprefix("sqlite:///"))
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    connection.close()
    assert "entries_judged" in str(plan)
    assert "SCAN entries" not in str(plan)


async def test_a_clock_that_steps_back_breaks_no_chain(tmp_path: Path) -> None:
    clock = FixedClock()
    with Ledger(f"sqlite:///{tmp_path}/l.db", clock=clock) as stepped:
        for index, step in enumerate((0.0, -3600.0, 86_400.0)):
            clock.advance(step)
            await stepped.append(make_executed(f"r{index}"))
        assert stepped.verify().entries == 3
        assert [stored.seq for stored in stepped.read()] == [1, 2, 3]
