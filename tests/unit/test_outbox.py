"""The outbox: stored durably, read back whole, bounded, and emptied into the ledger in order."""

import asyncio
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import HANG_S
from tests.unit.test_ledger import make_executed

from ripieno.domain import Executed
from ripieno.errors import ConfigError, LedgerCorrupt, LedgerError, LedgerFull, NotFound
from ripieno.ledger import Ledger, Outbox
from ripieno.ledger.codec import EntryRow, encode_entry
from ripieno.ledger.outbox import _pack


def make_rows(*names: str) -> list[object]:
    return [encode_entry(make_executed(name)) for name in names]


SIZE = len(_pack(encode_entry(make_executed("second"))))
"""Bytes of one row."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the database, as another program may."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_rows_are_put_read_and_cleared(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "deep" / "outbox.jsonl")
    assert outbox.read() == []
    outbox.put(make_rows("a", "b"))  # type: ignore[arg-type]  # rows
    outbox.put(make_rows("c"))  # type: ignore[arg-type]  # rows
    assert [row.id for row in Outbox(outbox.path).read()] == ["executed:a", "executed:b", "executed:c"]
    assert len(Outbox(outbox.path)) == 3
    outbox.clear()
    assert not outbox.path.exists()


def test_an_incomplete_last_line_is_skipped_and_a_damaged_line_is_an_error(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    outbox.put(make_rows("a", "b"))  # type: ignore[arg-type]  # rows
    whole = outbox.path.read_bytes()
    outbox.path.write_bytes(whole[:-5])
    again = Outbox(outbox.path)
    assert len(again) == 1
    again.put(make_rows("c"))  # type: ignore[arg-type]  # rows
    assert [row.id for row in Outbox(outbox.path).read()] == ["executed:a", "executed:c"]
    outbox.path.write_bytes(whole[:20])
    alone = Outbox(outbox.path)
    assert len(alone) == 0
    alone.put(make_rows("d"))  # type: ignore[arg-type]  # rows
    assert [row.id for row in Outbox(outbox.path).read()] == ["executed:d"], "nor does it follow a torn line alone"
    outbox.path.write_bytes(whole.replace(b"executed:a", b"executed:x"))
    with pytest.raises(LedgerCorrupt, match="line 1"):
        Outbox(outbox.path)


def test_it_is_bounded_and_a_failed_write_leaves_nothing_half_done(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl", largest=int(1.5 * SIZE))
    outbox.put(make_rows("a"))  # type: ignore[arg-type]  # rows
    with pytest.raises(LedgerFull, match="bytes of at most"):
        outbox.put(make_rows("b", "c"))  # type: ignore[arg-type]  # rows
    assert len(Outbox(outbox.path)) == 1


def test_a_full_disk_leaves_the_outbox_as_it_was(tmp_path: Path) -> None:
    import resource
    import signal

    outbox = Outbox(tmp_path / "outbox.jsonl")
    outbox.put(make_rows("a"))  # type: ignore[arg-type]  # rows
    before = outbox.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))
        with pytest.raises(OSError, match="large"):
            outbox.put(make_rows("b"))  # type: ignore[arg-type]  # rows
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert outbox.path.read_bytes() == before


async def test_rows_of_a_locked_ledger_are_spooled_and_written_after_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with Ledger(f"sqlite:///{path}", outbox=Outbox(tmp_path / "outbox.jsonl")) as ledger:
        await ledger.append(make_executed("first"))
        with locked(path):
            assert await ledger.append(make_executed("second")) == 1
            assert ledger.aside.waiting == 1
            assert await ledger.append(make_executed("third")) == 1, "and what comes after waits behind it"
            assert not ledger.aside.is_at_fault
        async with asyncio.timeout(HANG_S):
            while ledger.aside.waiting:
                await asyncio.to_thread(ledger.campaigns.run_ids, "none")
        runs = [stored.entry.run.id for stored in ledger.read() if isinstance(stored.entry, Executed)]
        assert runs == ["first", "second", "third"]
        ledger.verify()


async def test_if_ledger_and_outbox_refuse_callers_get_the_error_and_other_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with Ledger(f"sqlite:///{path}", outbox=Outbox(tmp_path / "outbox.jsonl", largest=10)) as ledger:
        await ledger.append(make_executed("first"))
        with locked(path):
            with pytest.raises(LedgerError, match="locked"):
                await ledger.append(make_executed("second"))
            assert ledger.aside.is_at_fault
            ledger.note(make_executed("third"))
            assert ledger.count("executed") == 1
        assert await ledger.append(make_executed("fourth")) == 1
        assert await ledger.probe()
    with Ledger(f"sqlite:///{path}") as again:
        found = [stored.entry.id for stored in again.read()]
        assert sorted(found) == ["executed:first", "executed:fourth", "executed:third"]
        again.verify()


async def test_a_full_outbox_refuses_further_rows(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with Ledger(f"sqlite:///{path}", outbox=Outbox(tmp_path / "outbox.jsonl", largest=int(1.5 * SIZE))) as ledger:
        await ledger.append(make_executed("first"))
        with locked(path):
            assert await ledger.append(make_executed("second")) == 1
            with pytest.raises(LedgerError, match="behind its outbox"):
                await ledger.append(make_executed("third"))


def test_the_outbox_is_written_at_the_next_start(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    outbox.put(make_rows("a", "b"))  # type: ignore[arg-type]  # rows
    with Ledger(f"sqlite:///{tmp_path}/l.db", outbox=outbox) as ledger:
        assert ledger.append_now([make_executed("c")]) == 1
        assert ledger.verify().entries == 3
        with pytest.raises(NotFound, match="no key 'k1'"):
            ledger.keys.revoke("k1")


async def test_rows_that_waited_for_a_lock_are_committed_in_bounded_batches(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with Ledger(f"sqlite:///{path}") as ledger:
        await ledger.append(make_executed("first"))
        with locked(path):
            waiting = [ledger.submit(*(make_executed(f"b{n}-{i}") for i in range(600))) for n in range(6)]
        assert await asyncio.gather(*waiting) == [600] * 6
        assert ledger.verify().entries == 3601


async def test_an_internal_error_reaches_the_caller_and_the_writer_continues(tmp_path: Path) -> None:
    with Ledger(f"sqlite:///{tmp_path}/l.db") as ledger:
        broken = EntryRow(id="x", kind="executed", body=5)  # type: ignore[arg-type]  # no text
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        ledger._writer.submit([broken], waiting)
        with pytest.raises(TypeError):
            await waiting
        assert await ledger.append(make_executed("next")) == 1


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match="needs the package 'psycopg'") as caught:
        Ledger("postgresql://user@127.0.0.1:9/nothing")
    assert caught.value.hint == "pip install 'ripieno[postgres]'"


async def test_an_outbox_that_is_damaged_while_it_waits_refuses_and_the_writer_lives(tmp_path: Path) -> None:
    path, outbox = tmp_path / "l.db", Outbox(tmp_path / "outbox.jsonl")
    with Ledger(f"sqlite:///{path}", outbox=outbox) as ledger:
        await ledger.append(make_executed("first"))
        with locked(path):
            await ledger.append(make_executed("second"), make_executed("third"))
            whole = outbox.path.read_bytes()
            outbox.path.write_bytes(whole.replace(b"executed:second", b"executed:changed"))
        assert await ledger.append(make_executed("fourth")) == 1, "it is kept behind what cannot be read"
        outbox.path.write_bytes(whole + outbox.path.read_bytes().splitlines(keepends=True)[-1])
        assert await ledger.append(make_executed("fifth")) == 1
        assert ledger.verify().entries == 5
