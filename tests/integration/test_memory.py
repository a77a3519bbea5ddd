"""The memory's contract, by the numbers of its clauses, on real files and processes."""

import asyncio
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, delete, make_url, text

from ripieno.domain import Privacy, SystemClock, Task
from ripieno.domain.features import Vector
from ripieno.domain.memory import ItemKind, NewItem, ReadStatus, Scope
from ripieno.encoders import Encoder
from ripieno.encoders.static import StaticEncoder
from ripieno.errors import ConfigError, DataError, MemoryUnavailable, NotFound, ProviderUnreachable
from ripieno.memory import Memory, Store
from ripieno.memory.harness import Harness
from ripieno.memory.health import BEAT_S, Pulse
from ripieno.memory.memory import outage_notice
from ripieno.memory.opening import SCHEMA, open_memory
from ripieno.memory.schema import vectors
from ripieno.memory.store import LONGEST_TEXT
from ripieno.memory.sync import VersionStatus, move_watermark
from ripieno.memory.waiting import LONGEST_PAUSE_S, Waiting
from ripieno.memory.words import words_of
from ripieno.testing import FixedClock

WEB = Scope(project="web")
TALK = (
    ("ada", "Which database shall we take for the shop?"),
    ("ben", "I have used Postgres before, and liked it."),
    ("ada", "Postgres it is, then. It runs in Oslo."),
    ("ben", "The lamp in the hall is broken again."),
    ("ada", "My sister plays the violin on Sundays."),
)


def talk(scope: Scope = WEB) -> list[NewItem]:
    return [NewItem(text=text, author=author, thread="monday", scope=scope) for author, text in TALK]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty memory: a file, and a server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/memory.db"
    where: str = request.getfixturevalue("postgres")
    engine = create_engine(make_url(where).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"))
    engine.dispose()
    return where


@asynccontextmanager
async def opened(place: Path | str, clock: FixedClock, encoder: Encoder | None = None) -> AsyncIterator[Memory]:
    where = place if isinstance(place, str) else f"sqlite:///{place}"
    memory = Memory(Store(open_memory(where), clock), encoder or StaticEncoder(), clock)
    try:
        yield memory
    finally:
        memory.close()


class SilentEncoder:
    """An encoder whose server is gone."""

    name = "silent"
    dimensions = 4

    async def encode(self, texts: Sequence[str]) -> Vector:
        raise ProviderUnreachable("no connection", worker="encoder")

    async def close(self) -> None:
        pass


async def test_clause_1_a_read_reports_its_status_and_an_outage_is_no_empty_memory(
    tmp_path: Path, clock: FixedClock
) -> None:
    path = tmp_path / "memory.db"
    async with opened(path, clock) as memory:
        assert (await memory.recall("anything at all")).status is ReadStatus.EMPTY
        await memory.remember(talk())
        clock.advance(60.0)
        found = await memory.recall("Which database did we choose?", scope=WEB)
        assert found.status is ReadStatus.OK
        assert found.age_s == pytest.approx(60.0)
        assert (await memory.recall("zeppelin", scope=WEB)).status is ReadStatus.EMPTY
        memory.close()
        for file in tmp_path.iterdir():
            file.unlink()
        path.mkdir()
        reads = [await memory.recall(f"question {nth}", scope=WEB) for nth in range(50)]
        assert {read.status for read in reads} == {ReadStatus.UNAVAILABLE}
        assert not any(read.items for read in reads)
        assert all("memory" in read.detail for read in reads)
        assert (await memory.health()).pulse is Pulse.UNAVAILABLE
        with pytest.raises(MemoryUnavailable):
            await memory.remember(talk())


async def test_clause_2_the_prompt_mentions_an_outage(tmp_path: Path, clock: FixedClock) -> None:
    async with opened(tmp_path / "memory.db", clock) as memory:
        assert outage_notice(await memory.recall("x")) == ""
        memory.close()
        (tmp_path / "memory.db").unlink()
        (tmp_path / "memory.db").mkdir()
        assert "do not claim to remember" in outage_notice(await memory.recall("x"))


WRITER = """
import sys
from ripieno.domain import SystemClock
from ripieno.domain.memory import NewItem
from ripieno.memory import Store
from ripieno.memory.opening import open_memory
clock = SystemClock()
store = Store(open_memory(sys.argv[1]), clock)
for nth in range(int(sys.argv[3])):
    receipt = store.write([NewItem(text=f"{sys.argv[2]} wrote {nth}", thread=sys.argv[2])])[0]
    print(receipt.id, flush=True)
"""


def write_until_killed(url: str, name: str, receipts: int) -> list[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, url, name, "1000000"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ids = [process.stdout.readline().strip() for _ in range(receipts)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return ids


async def test_clause_3_a_receipt_means_durable(url: str, clock: FixedClock) -> None:
    receipts = [name for nth in range(10) for name in write_until_killed(url, f"writer{nth}", 100)]
    async with opened(url, clock) as memory:
        kept = await memory.get(receipts)
        assert len({item.id for item in kept}) == 1000
        assert await memory.rebuild() >= 1000


async def test_clause_4_an_empty_or_much_smaller_sync_replaces_nothing(url: str, clock: FixedClock) -> None:
    whole = [NewItem(text=f"rule {nth}: keep the door shut", ref=str(nth), scope=WEB) for nth in range(10)]
    async with opened(url, clock) as memory:
        assert (await memory.sync("rules", whole)).status is VersionStatus.CURRENT
        for bad in ([], whole[:4]):
            version = await memory.sync("rules", bad)
            assert version.status is VersionStatus.QUARANTINED
            found = await memory.recall("keep the door shut", scope=WEB, most=20)
            assert len(found.items) == 10, "the last good version stays"
            health = await memory.health()
            assert [each.nth for each in health.quarantined] == [version.nth]
        clock.advance(10.0)
        assert (await memory.sync("rules", whole[:6])).status is VersionStatus.CURRENT
        assert len((await memory.recall("door shut", scope=WEB, most=20)).items) == 6
        before = await memory.recall("door shut", scope=WEB, most=20, as_of=clock.now() - 5.0)
        assert len(before.items) == 10, "what was retired is still readable as of before"
        clock.advance(10.0)
        await memory.sync("rules", whole)
        assert len((await memory.recall("door shut", scope=WEB, most=20)).items) == 10
        with pytest.raises(DataError, match="no ref"):
            await memory.sync("rules", [NewItem(text="x")])


async def test_clause_5_projections_are_rebuilt_and_search_falls_back_to_words(url: str, clock: FixedClock) -> None:
    async with opened(url, clock) as memory:
        await memory.remember(talk())
        await memory.remember([replace(item, thread="tuesday") for item in talk()])
        before = await memory.recall("Which database runs where?", scope=WEB)
        store = Store(open_memory(url), clock)
        with store.writing() as connection:
            words_of(connection).clear(connection)
            connection.execute(delete(vectors))
        assert (await memory.recall("Which database runs where?", scope=WEB)).status is ReadStatus.EMPTY
        assert await memory.rebuild() == 10
        after = await memory.recall("Which database runs where?", scope=WEB)
        assert [(each.item.id, each.score) for each in after.items] == [
            (each.item.id, each.score) for each in before.items
        ]
        store.engine.dispose()
    async with opened(url, clock, SilentEncoder()) as memory:
        found = await memory.recall("Which database runs where?", scope=WEB)
        assert found.status is ReadStatus.PARTIAL
        assert "words alone" in found.detail
        receipt = (await memory.remember([NewItem(text="The harbour freezes in winter.", scope=WEB)]))[0]
        assert receipt.is_new, "what cannot be embedded is kept all the same"
        assert (await memory.health()).unembedded > 0
        assert (await memory.recall("harbour", scope=WEB)).items[0].item.id == receipt.id


async def test_clause_6_reads_as_of_a_time_follow_both_clocks_and_supersession(url: str, clock: FixedClock) -> None:
    async with opened(url, clock) as memory:
        old = (await memory.remember([NewItem(text="The shop is deployed on Tuesdays.", scope=WEB)]))[0]
        clock.advance(100.0)
        learnt = clock.now()
        new = NewItem(text="The shop is deployed on Fridays.", scope=WEB, supersedes=old.id, valid_from=learnt + 50.0)
        receipt = (await memory.remember([new]))[0]
        clock.advance(100.0)
        now = await memory.recall("When is the shop deployed?", scope=WEB)
        assert [each.item.id for each in now.items] == [receipt.id]
        then = await memory.recall("When is the shop deployed?", scope=WEB, as_of=learnt - 1.0)
        assert [each.item.id for each in then.items] == [old.id]
        assert [item.id for item in await memory.history(old.id[:8])] == [old.id, receipt.id]
        assert [item.id for item in await memory.history(receipt.id)] == [old.id, receipt.id]
        await memory.forget(receipt.id)
        gone = await memory.recall("When is the shop deployed?", scope=WEB)
        assert gone.status is ReadStatus.EMPTY, "to erase an item does not bring back what it replaced"
        past = NewItem(text="The office was in Bergen.", scope=WEB, valid_from=10.0, valid_to=20.0)
        await memory.remember([past])
        assert (await memory.recall("office", scope=WEB)).status is ReadStatus.EMPTY, "true once, and no more"
        with pytest.raises(NotFound):
            await memory.remember([NewItem(text="x", supersedes="nobody")])


async def test_clause_7_a_canary_and_watermarks_show_stalled_sources(url: str, clock: FixedClock) -> None:
    async with opened(url, clock) as memory:
        assert await memory.beat()
        assert (await memory.health()).pulse is Pulse.OK
        assert (await memory.health()).items == 0, "canaries are nobody's memory"
        clock.advance(2.0 * BEAT_S + 1.0)
        late = await memory.health()
        assert late.pulse is Pulse.STALLED
        assert "canary" in late.detail
        assert await memory.beat()
        assert (await memory.health()).pulse is Pulse.OK
        await memory.sync("notes", [NewItem(text="a note", ref="1")])
        clock.advance(2.0 * BEAT_S + 1.0)
        await memory.beat()
        store = Store(open_memory(url), clock)
        with store.writing() as connection:
            move_watermark(connection, "notes", seen_at=clock.now(), cursor="line 7")
        stuck = await memory.health()
        assert stuck.pulse is Pulse.STALLED
        assert stuck.stalled == ("notes",)
        assert stuck.sources[0].cursor == "line 7"
        store.engine.dispose()


async def test_clause_8_unwritable_items_wait_in_order_and_are_remembered_once(
    tmp_path: Path, clock: FixedClock
) -> None:
    path, file = tmp_path / "memory.db", tmp_path / "waiting.jsonl"
    path.mkdir()
    opened_: list[Memory] = []

    def memory() -> Memory:
        if not opened_:
            opened_.append(Memory(Store(open_memory(f"sqlite:///{path}"), clock), StaticEncoder(), clock))
        return opened_[0]

    waiting = Waiting(file, clock)
    harness = Harness(memory, waiting, most_tokens=500)
    for nth in range(20):
        task = Task.from_text(f"question {nth}")
        _, read = await harness.before(task, WEB)
        assert read.status is ReadStatus.UNAVAILABLE
        await harness.after(task, f"answer {nth}", WEB, run=f"run{nth}", thread="t")
        clock.advance(1.0)
    assert len(waiting) == 40
    with file.open("ab") as torn:
        torn.write(b"0000 half a li")
    assert len(Waiting(file, clock)) == 40, "a line that was cut short was never promised"
    path.rmdir()
    saved = file.read_bytes()
    await harness.after(Task.from_text("question 20"), "answer 20", WEB, run="run20", thread="t")
    assert (len(waiting), file.exists()) == (0, False), "nobody had to do anything"
    found = await memory().recall("question", scope=WEB, most=100)
    assert found.status is ReadStatus.OK
    file.write_bytes(saved)  # the process died between the write and the end of the file
    assert await harness.catch_up() == 40
    again = await memory().recall("answer", scope=WEB, most=100)
    items = await memory().get([each.item.id for each in again.items])
    assert (await memory().health()).items == 42
    assert (await memory().health()).unembedded == 0
    order = sorted(items, key=lambda item: item.place)
    assert [item.text for item in order if item.author == "assistant"] == [f"answer {nth}" for nth in range(21)]
    memory().close()


async def test_clause_8_the_queue_is_bounded_and_damage_is_reported(tmp_path: Path, clock: FixedClock) -> None:
    file = tmp_path / "waiting.jsonl"
    waiting = Waiting(file, clock, largest=600)
    waiting.put([NewItem(text="kept")])
    with pytest.raises(MemoryUnavailable, match="at most 600"):
        waiting.put([NewItem(text="x" * 500)])
    assert len(waiting) == 1

    def refuse(items: Sequence[NewItem]) -> None:
        raise MemoryUnavailable("not now")

    tries: list[float] = []
    for _ in range(2000):
        try:
            waiting.drain(refuse)
        except MemoryUnavailable as error:
            if error.message == "not now":
                tries.append(clock.now())
        clock.advance(0.25)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses[-1] > 8 * pauses[0], "each pause is longer"
    assert max(pauses) <= LONGEST_PAUSE_S + 0.25
    taken: list[NewItem] = []
    clock.advance(LONGEST_PAUSE_S)
    assert waiting.drain(taken.extend) == 1
    assert taken[0].ref.startswith("waiting:"), "it has a name, so that it is remembered once"
    file.write_bytes(b"damaged\nand more\n")
    with pytest.raises(MemoryUnavailable, match="damaged"):
        waiting.put([NewItem(text="y")])


def _write_many(url: str, name: str) -> None:
    store = Store(open_memory(url), SystemClock())
    for nth in range(1000):
        store.write([NewItem(text=f"{name} {nth}", thread=name, source=name, ref=str(nth))])


async def test_clause_9_two_processes_with_a_thousand_writes_keep_two_thousand(url: str, clock: FixedClock) -> None:
    Store(open_memory(url), clock).engine.dispose()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(url, name)) for name in ("one", "two")]
    for writer in writers:
        writer.start()
    async with opened(url, clock) as memory:
        reads = [await memory.recall("one two") for _ in range(20)]
        assert ReadStatus.UNAVAILABLE not in {read.status for read in reads}, "readers never wait for writers"
        for writer in writers:
            await asyncio.to_thread(writer.join)
        assert {writer.exitcode for writer in writers} == {0}
        assert (await memory.health()).items == 2000


async def test_clause_10_kinds_have_their_retention_and_a_deletion_leaves_no_byte(
    url: str, tmp_path: Path, clock: FixedClock
) -> None:
    async with opened(url, clock) as memory:
        await memory.remember(
            [NewItem(text="ping pong", kind=ItemKind.NOISE), NewItem(text="ping on Monday", kind=ItemKind.TASK)]
        )
        assert len((await memory.recall("ping")).items) == 2
        clock.advance(8 * 86_400.0)
        assert [each.item.kind for each in (await memory.recall("ping")).items] == [ItemKind.TASK]
        origin = (
            await memory.remember([NewItem(text="The code of the safe is xylophone.", author="ada", thread="t")])
        )[0]
        await memory.remember([NewItem(text="Thank you.", author="ben", thread="t")])
        fact = NewItem(text="Ada's safe opens with xylophone.", kind=ItemKind.FACT, derived_from=(origin.id,))
        derived = (await memory.remember([fact]))[0]
        found = await memory.recall("Which code opens the safe?")
        assert found.items[0].item.id == origin.id
        assert found.items[0].because == (derived.id,), "found through the fact, too"
        proof = await memory.forget(origin.id)
        assert proof.derived == (derived.id,)
        assert (await memory.recall("xylophone")).status is ReadStatus.EMPTY
        tombstone = (await memory.get([origin.id]))[0]
        assert (tombstone.text, tombstone.erased_at) == ("", clock.now())
    for file in tmp_path.iterdir():
        assert b"xylophone" not in file.read_bytes(), file.name


async def test_clause_11_support_tells_known_from_unknown_answers(url: str, clock: FixedClock) -> None:
    async with opened(url, clock) as memory:
        await memory.remember(talk())
        known = await memory.recall("Which database did we take?", scope=WEB)
        unknown = await memory.recall("Which colour did we take for the roof?", scope=WEB)
        assert known.support > unknown.support + 0.1


async def test_erasing_an_item_restores_the_index_of_its_neighbours(url: str, clock: FixedClock) -> None:
    async with opened(url, clock) as memory:
        receipts = await memory.remember(talk())
        await memory.forget(receipts[2].id)
        for question in ("Postgres Oslo", "lamp hall broken", "violin sister Sundays", "database shop"):
            healed = await memory.recall(question, scope=WEB)
            await memory.rebuild()
            made = await memory.recall(question, scope=WEB)
            assert [(each.item.id, round(each.score, 9)) for each in healed.items] == [
                (each.item.id, round(each.score, 9)) for each in made.items
            ]
            assert receipts[2].id not in {each.item.id for each in healed.items}
        await memory.forget(receipts[4].id)
        await memory.forget(receipts[0].id)
        assert [each.item.id for each in (await memory.recall("Postgres lamp", scope=WEB)).items]


@pytest.mark.parametrize(("reach", "seen"), [("local", 3), ("private", 2), ("public", 1)])
async def test_private_items_never_cross_their_boundary(url: str, clock: FixedClock, reach: str, seen: int) -> None:
    async with opened(url, clock) as memory:
        await memory.remember([NewItem(text=f"the key {each}", privacy=each) for each in Privacy])
        found = await memory.recall("key", reach=Privacy(reach))
        assert len(found.items) == seen


async def test_projects_and_users_see_their_own_and_shared_items(url: str, clock: FixedClock) -> None:
    async with opened(url, clock) as memory:
        await memory.remember(
            [
                NewItem(text="the key is for all"),
                NewItem(text="the key is in the web project", scope=WEB),
                NewItem(text="the key is ada's", scope=Scope(project="web", user="ada")),
                NewItem(text="the key is elsewhere", scope=Scope(project="elsewhere")),
            ]
        )
        counts = [
            len((await memory.recall("key", scope=scope)).items)
            for scope in (Scope(), WEB, Scope(project="web", user="ada"), Scope(project="web", user="ben"))
        ]
        assert counts == [1, 2, 3, 2]


async def test_neighbours_thread_and_author_improve_recall(url: str, clock: FixedClock) -> None:
    async with opened(url, clock) as memory:
        await memory.remember(talk())
        found = await memory.recall("Which database did ada choose for the shop?", scope=WEB)
        texts = [each.item.text for each in found.items]
        assert texts.index(TALK[2][1]) < texts.index(TALK[1][1]), "the author that the question names comes first"
        assert (await memory.recall("the of and", scope=WEB)).status is ReadStatus.EMPTY


async def test_an_item_with_a_known_ref_is_remembered_once(url: str, clock: FixedClock) -> None:
    async with opened(url, clock) as memory:
        item = NewItem(text="line one", source="log", ref="1")
        first, same = await memory.remember([item, item])
        again = (await memory.remember([item]))[0]
        assert (first.is_new, same.is_new, again.is_new) == (True, False, False)
        assert first.id == same.id == again.id
        assert first.place == same.place == again.place
        with pytest.raises(DataError, match="too long"):
            await memory.remember([NewItem(text="x" * (LONGEST_TEXT + 1))])
        for bad in ({"text": " "}, {"text": "x", "confidence": 2.0}, {"text": "x", "valid_from": 2.0, "valid_to": 1.0}):
            with pytest.raises(ValueError, match=r"empty|confidence|ends"):
                NewItem(**bad)
        with pytest.raises(NotFound, match="no item"):
            await memory.history("ffffff")
        with pytest.raises(NotFound):
            await memory.get(["ffffff"])


@pytest.mark.parametrize(
    ("content", "told"), [(b"hello, this is not a database at all" * 40, "not a database"), (b"", "unable to open")]
)
def test_a_file_that_is_not_a_memory_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "memory.db"
    path.write_bytes(content) if content else path.mkdir()
    with pytest.raises(MemoryUnavailable, match=told):
        open_memory(f"sqlite:///{path}")


def test_another_database_a_newer_memory_and_another_url_are_refused(tmp_path: Path, clock: FixedClock) -> None:
    import sqlite3

    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE guests (name TEXT)")
    other.commit()
    other.close()
    with pytest.raises(MemoryUnavailable, match="not a memory"):
        open_memory(f"sqlite:///{tmp_path}/other.db")
    engine = open_memory(f"sqlite:///{tmp_path}/memory.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA user_version = 99")
    engine.dispose()
    with pytest.raises(MemoryUnavailable, match="has format 99"):
        open_memory(f"sqlite:///{tmp_path}/memory.db")
    for url in ("mysql://localhost/x", "sqlite://", "no url"):
        with pytest.raises(ConfigError):
            open_memory(url)


async def test_recall_handles_words_with_a_meaning_in_the_search_syntax(url: str, clock: FixedClock) -> None:
    async with opened(url, clock) as memory:
        await memory.remember([NewItem(text='NEAR "quoted" AND NOT x* OR (y:z)', scope=WEB)])
        for question in ('NEAR "quoted"', "AND NOT", "x* OR (y:z)", "'; DROP TABLE items; --", "\x00", "é ü ß"):
            found = await memory.recall(question, scope=WEB)
            assert found.status in (ReadStatus.OK, ReadStatus.EMPTY)
        assert np.isfinite((await memory.recall("quoted", scope=WEB)).support)
