"""The writer in a database's bad days: refused in time, told once, kept where nobody waits, and never twice."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine
from tests.conftest import HANG_S
from tests.unit.test_ledger import make_executed
from tests.unit.test_outbox import locked

from ripieno.domain import Executed
from ripieno.errors import LedgerCorrupt, LedgerError
from ripieno.ledger import Ledger, Outbox, aside, commit, writer
from ripieno.ledger.codec import EntryRow

PATIENCE_S = 0.05


def list_runs(ledger: Ledger) -> list[str]:
    return [stored.entry.run.id for stored in ledger.read() if isinstance(stored.entry, Executed)]


class SlowDriver:
    """A database that does not answer: a real cursor whose statements of one kind wait until they are let go."""

    def __init__(self, ledger: Ledger, beginning: str) -> None:
        self.came, self.goes_on = threading.Event(), threading.Event()
        self._beginning = beginning
        self._writer = ledger._writer
        original = ledger._engine.raw_connection

        def connect() -> object:
            return _SlowConnection(original(), self)

        self._writer._commits._engine = _Connecting(ledger._engine, connect)  # type: ignore[assignment]  # the edge to the driver

    def meet(self, statement: str) -> None:
        if statement.startswith(self._beginning) and not self.goes_on.is_set():
            self.came.set()
            assert self.goes_on.wait(HANG_S)


class _Connecting:
    def __init__(self, engine: Engine, connect: object) -> None:
        self.dialect = engine.dialect
        self.raw_connection = connect


class _SlowConnection:
    def __init__(self, inner: object, driver: SlowDriver) -> None:
        self._inner, self._driver = inner, driver

    def cursor(self) -> "_SlowCursor":
        return _SlowCursor(self._inner.cursor(), self._driver)  # type: ignore[attr-defined]  # the pool's own

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class _SlowCursor:
    def __init__(self, inner: object, driver: SlowDriver) -> None:
        self._inner, self._driver = inner, driver

    def execute(self, statement: str, *values: object) -> object:
        self._driver.meet(statement)
        return self._inner.execute(statement, *values)  # type: ignore[attr-defined]  # the driver's own

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


@contextmanager
def opened(folder: Path, *, outbox: bool = False) -> Iterator[Ledger]:
    spool = Outbox(folder / "outbox.jsonl") if outbox else None
    with Ledger(f"sqlite:///{folder}/l.db", outbox=spool, patience_s=PATIENCE_S) as ledger:
        yield ledger


async def refuse(waiting: "asyncio.Future[int]") -> str:
    with pytest.raises(LedgerError) as caught:
        await asyncio.wait_for(waiting, HANG_S)
    return caught.value.message


async def test_a_commit_without_an_answer_is_given_up_and_its_rows_are_not_recorded(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        driver = SlowDriver(ledger, "BEGIN")
        first = ledger.submit(make_executed("first"))
        assert driver.came.wait(HANG_S)
        second = ledger.submit(make_executed("second"))
        ledger.note(make_executed("noted"))
        assert "did not answer within" in await refuse(first)
        assert "did not answer within" in await refuse(second)
        assert ledger.aside.is_at_fault
        assert not await ledger.probe()
        third = ledger.submit(make_executed("third"))
        await refuse(third)
        assert not driver.goes_on.is_set(), "it is refused while the database is stuck"
        assert ledger.count("executed") == 0, "a file can be read all the same"
        driver.goes_on.set()
        async with asyncio.timeout(HANG_S):
            while not await ledger.probe():
                pass
        assert await ledger.append(make_executed("fourth")) == 1
        ledger._writer.close()
        assert sorted(list_runs(ledger)) == ["fourth", "noted"]
        assert ledger.verify().entries == 2


async def test_a_commit_that_takes_too_long_may_end_late_and_then_once(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        driver = SlowDriver(ledger, "COMMIT")
        first = ledger.submit(make_executed("first"))
        assert driver.came.wait(HANG_S)
        assert "it may be recorded late, and then once" in await refuse(first)
        driver.goes_on.set()
        async with asyncio.timeout(HANG_S):
            while not await ledger.probe():
                pass
        assert await ledger.append(make_executed("first"), make_executed("second")) == 1
        assert list_runs(ledger) == ["first", "second"]
        ledger.verify()


async def test_rows_that_a_silent_database_refuses_go_into_the_outbox(tmp_path: Path) -> None:
    with opened(tmp_path, outbox=True) as ledger:
        driver = SlowDriver(ledger, "BEGIN")
        first = ledger.submit(make_executed("first"))
        assert driver.came.wait(HANG_S)
        assert await asyncio.wait_for(first, HANG_S) == 1
        assert await asyncio.wait_for(ledger.submit(make_executed("second")), HANG_S) == 1
        assert await ledger.probe(), "entries are taken"
        driver.goes_on.set()
        async with asyncio.timeout(HANG_S):
            while ledger.aside.waiting:
                await asyncio.to_thread(ledger.campaigns.run_ids, "none")
        assert list_runs(ledger) == ["first", "second"]
        ledger.verify()


async def test_an_outbox_that_grows_while_it_is_emptied_loses_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, outbox=True) as ledger:
        await ledger.append(make_executed("first"))
        with locked(tmp_path / "l.db"):
            await ledger.append(make_executed("second"))
        driver = SlowDriver(ledger, "COMMIT")
        ledger._writer._commits.drop_connection()
        assert await asyncio.to_thread(driver.came.wait, HANG_S), "what waits is written unasked"
        assert await asyncio.wait_for(ledger.submit(make_executed("third")), HANG_S) == 1
        driver.goes_on.set()
        async with asyncio.timeout(HANG_S):
            while ledger.aside.waiting:
                await asyncio.to_thread(ledger.campaigns.run_ids, "none")
        assert list_runs(ledger) == ["first", "second", "third"]


async def test_a_locked_ledger_is_noticed_by_a_probe_and_so_is_its_release(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        assert await ledger.probe()
        with locked(tmp_path / "l.db"):
            assert not await ledger.probe()
            started = time.monotonic()
            for number in range(5):
                with pytest.raises(LedgerError, match="locked by another process") as caught:
                    await ledger.append(make_executed(f"r{number}"))
            assert time.monotonic() - started < HANG_S
            assert "end the process" in str(caught.value.hint)
        async with asyncio.timeout(HANG_S):
            while ledger.aside.is_at_fault:
                await asyncio.to_thread(ledger._writer._thread.join, 0.01)
        assert await ledger.append(make_executed("after")) == 1
        assert list_runs(ledger) == ["after"]


async def test_a_kept_row_that_the_database_always_refuses_is_dropped_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as ledger:
        await ledger.append(make_executed("first"))
        with locked(tmp_path / "l.db"):
            bad = EntryRow(id="executed:bad", kind=None, body="{}")  # type: ignore[arg-type]  # refused by the table alone
            monkeypatch.setattr(commit, "chain_digest", lambda previous, row, *, at: previous + "x")
            ledger._writer.submit([bad], None)
            ledger.note(make_executed("good"))
            with pytest.raises(LedgerError):
                await ledger.append(make_executed("refused"))
        for number in range(aside.MOST_TRIES + 1):
            await ledger.append(make_executed(f"r{number}"))
        ledger._writer.close()
        assert "good" in list_runs(ledger)
    assert "could not be recorded" in caplog.text


async def test_kept_rows_are_bounded_and_lost_rows_are_logged_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "MOST_KEPT", 1)
    caplog.set_level(logging.ERROR)
    with opened(tmp_path) as ledger:
        with locked(tmp_path / "l.db"):
            ledger.note(make_executed("kept"))
            ledger.note(make_executed("too many"))
            with pytest.raises(LedgerError):
                await ledger.append(make_executed("refused"))
            ledger.close()
        told = [record.message for record in caplog.records]
        assert any("1 entries could not be recorded: " in line for line in told)
        assert any("before the end" in line for line in told)


def test_the_end_does_not_wait_for_a_silent_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CLOSE_S", 1.0)
    with opened(tmp_path) as ledger:
        driver = SlowDriver(ledger, "BEGIN")
        ledger.note(make_executed("first"))
        assert driver.came.wait(HANG_S)
        ledger.close()
        driver.goes_on.set()
        ledger._writer._thread.join(HANG_S)
        assert not ledger._writer._thread.is_alive()


async def test_a_damaged_ledger_keeps_nothing_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as ledger:
        ledger._writer.aside.refuse([], LedgerCorrupt("damaged"))
        assert ledger.aside.is_at_fault
        assert await ledger.append(make_executed("first")) == 1
        assert not ledger.aside.is_at_fault


async def test_entries_are_accepted_into_the_outbox_during_a_lock(tmp_path: Path) -> None:
    with Ledger(f"sqlite:///{tmp_path}/l.db", outbox=Outbox(tmp_path / "outbox.jsonl")) as ledger:
        with locked(tmp_path / "l.db"):
            first = ledger.submit(make_executed("first"))
            assert await ledger.probe()
            assert await first == 1
        ledger.verify()


def test_rows_after_the_end_are_refused_at_once(tmp_path: Path) -> None:
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        pass
    done: Future[int] = Future()
    ledger._writer.submit((), done)
    with pytest.raises(LedgerError, match="is closed"):
        done.result(timeout=HANG_S)
    ledger._writer.wait()


async def test_an_outbox_that_cannot_be_read_ends_no_writer(tmp_path: Path) -> None:
    path = tmp_path / "outbox.jsonl"
    with opened(tmp_path, outbox=True) as ledger:
        with locked(tmp_path / "l.db"):
            assert await ledger.append(make_executed("first")) == 1
            path.rename(tmp_path / "kept.jsonl")
            path.mkdir()
        loop = ledger.loops[0]
        async with asyncio.timeout(HANG_S):
            while loop.last_error != "IsADirectoryError":
                await asyncio.to_thread(ledger._writer._thread.join, 0.01)
        with pytest.raises(LedgerError, match="behind its outbox"):
            await asyncio.wait_for(ledger.append(make_executed("second")), HANG_S)
        path.rmdir()
        (tmp_path / "kept.jsonl").rename(path)
        async with asyncio.timeout(HANG_S):
            while ledger.aside.waiting:
                await asyncio.to_thread(ledger._writer._thread.join, 0.01)
        assert await ledger.append(make_executed("third")) == 1
        assert list_runs(ledger) == ["first", "third"]
        assert (loop.state, loop.is_degraded) == ("ok", False)


async def test_the_writers_loops_tell_that_the_database_refuses(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        await ledger.append(make_executed("first"))
        loop = ledger.loops[0]
        assert loop.state == "ok"
        with locked(tmp_path / "l.db"):
            for name in ("second", "third"):
                with pytest.raises(LedgerError):
                    await ledger.append(make_executed(name))
            assert (loop.state, loop.is_degraded, loop.last_error) == ("failing", True, "LedgerError")
        await ledger.append(make_executed("fourth"))
        assert loop.state == "ok"
