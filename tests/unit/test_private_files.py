"""Private files: created for their owner whatever the umask is, and narrowed if they were wider."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from ripieno.domain import KeyLimits
from ripieno.ledger import Ledger
from ripieno.ledger.database import open_sqlite
from ripieno.ledger.outbox import Spool
from ripieno.memory.opening import open_memory
from ripieno.privacy.files import make_folder, make_private, narrow, write_private


@pytest.fixture(autouse=True)
def wide_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_made_empty_for_its_owner_and_an_old_one_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert make_private(path) == path
    assert (mode_of(path), path.read_bytes()) == (0o600, b"")
    path.write_text("kept")
    path.chmod(0o644)
    make_private(path)
    assert (mode_of(path), path.read_text()) == (0o600, "kept")
    write_private(path, b"new")
    assert (mode_of(path), path.read_bytes()) == (0o600, b"new")


def test_private_missing_and_special_files_stay_unchanged(tmp_path: Path) -> None:
    narrow(tmp_path / "missing")
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    make_private(folder)
    assert mode_of(folder) == 0o755
    read_only = tmp_path / "read-only"
    read_only.touch(mode=0o400)
    narrow(read_only)
    assert mode_of(read_only) == 0o400


def test_a_file_of_another_owner_stays_unchanged(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = tmp_path / "theirs"
    path.touch(mode=0o644)
    os.chown(path, 12345, -1)
    narrow(path)
    assert mode_of(path) == 0o644


def test_a_new_folder_is_the_owners_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    assert mode_of(make_folder(tmp_path / "new")) == 0o700
    old = tmp_path / "old"
    old.mkdir(mode=0o755)
    assert mode_of(make_folder(old)) == 0o755


def test_databases_with_all_that_stands_beside_them_and_spools_are_the_owners(tmp_path: Path) -> None:
    with Ledger(f"sqlite:///{tmp_path}/home/ledger.db") as ledger:
        ledger.keys.create("a", KeyLimits())
        engine = open_memory(f"sqlite:///{tmp_path}/home/memory.db")
        Spool(tmp_path / "home" / "outbox.jsonl", dict).put([{"a": 1}])
        found = {path.name: mode_of(path) for path in (tmp_path / "home").iterdir()}
        engine.dispose()
    assert {"ledger.db", "ledger.db-wal", "ledger.db-shm", "memory.db", "outbox.jsonl"} <= set(found)
    assert set(found.values()) == {0o600}
    assert mode_of(tmp_path / "home") == 0o700
    beside = tmp_path / "home" / "ledger.db-wal"
    beside.touch(mode=0o644)
    beside.chmod(0o644)
    with Ledger(f"sqlite:///{tmp_path}/home/ledger.db") as ledger:
        ledger.keys.create("b", KeyLimits())
        assert mode_of(tmp_path / "home" / "ledger.db-wal") == 0o600


def test_a_database_in_memory_makes_no_file(own_folder: Path) -> None:
    for name in ("sqlite://", "sqlite:///:memory:", "sqlite:///file:kept?mode=memory&uri=true"):
        url = make_url(name)
        if not url.database:
            continue
        engine = open_sqlite(url)
        with engine.begin() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        engine.dispose()
    assert list(own_folder.iterdir()) == []
