"""Importers resume at their watermark, import each item once, and remove secrets."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ripieno.domain import Privacy
from ripieno.domain.memory import Item, Scope
from ripieno.errors import DataError, NotFound
from ripieno.memory import Store
from ripieno.memory.importers import BATCH, Import, import_source, split_parts
from ripieno.memory.opening import open_memory
from ripieno.memory.sync import list_watermarks
from ripieno.testing import FixedClock

WEB = Scope(project="web")
SECRET = "sk-" + "0123456789abcdef" * 2


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    engine = open_memory(f"sqlite:///{tmp_path}/memory/memory.db")
    yield Store(engine, FixedClock())
    engine.dispose()


def wanted(path: Path) -> Import:
    return Import(path=path, scope=WEB, privacy=Privacy.LOCAL)


def kept(store: Store) -> list[Item]:
    return store.at(range(1, store.count() + 1))


def write(path: Path, *rows: object) -> None:
    with path.open("a") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)


def test_chat_logs_resume_at_their_watermark(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    write(path, {"role": "user", "content": f"Use {SECRET} for it.", "created": 1_700_000_000})
    write(path, {"session": "s1", "messages": [{"role": "user", "content": [{"type": "text", "text": "Which door?"}]},
                                               {"role": "assistant", "content": "The green one."}]})  # fmt: skip
    assert import_source(store, "chat", wanted(path)) == 3
    items = kept(store)
    assert [item.author for item in items] == ["user", "user", "assistant"]
    assert [item.thread for item in items] == ["chat.jsonl", "s1", "s1"]
    assert items[0].happened_at == 1_700_000_000
    assert SECRET not in items[0].text
    assert {item.privacy for item in items} == {Privacy.LOCAL}
    assert import_source(store, "chat", wanted(path)) == 0
    with path.open("a") as file:
        file.write('{"role": "user", "content": "half a li')
    assert import_source(store, "chat", wanted(path)) == 0, "a line that is still being written waits"
    with path.open("a") as file:
        file.write('ne"}\n')
    assert import_source(store, "chat", wanted(path)) == 1
    assert kept(store)[-1].text == "half a line"
    path.write_text("")
    write(path, {"role": "user", "content": "begun anew"})
    assert import_source(store, "chat", wanted(path)) == 1, "a file that has shrunk is read from its beginning"


def test_an_interrupted_import_resumes_without_loss_or_repetition(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    write(
        path,
        *(
            {"messages": [{"role": "user", "content": f"a{n}"}, {"role": "user", "content": f"b{n}"}]}
            for n in range(BATCH)
        ),
    )
    whole = path.read_text()
    path.write_text(whole[:-20] + "\n")
    with pytest.raises(DataError):
        import_source(store, "chat", wanted(path))
    assert store.count() == BATCH
    path.write_text(whole)
    watermark = list_watermarks(store)[0]
    assert 0 < int(watermark.cursor) < path.stat().st_size
    assert import_source(store, "chat", wanted(path)) == BATCH
    assert len({item.text for item in kept(store)}) == 2 * BATCH


def test_sessions_of_coding_agents_are_imported_without_tool_calls(store: Store, tmp_path: Path) -> None:
    claude, codex, stamp = tmp_path / "session.jsonl", tmp_path / "rollout-1.jsonl", "2027-03-01T10:00:00.000Z"

    def said(kind: str, name: str, content: object) -> dict[str, object]:
        message = {"role": kind, "content": content}
        return {"type": kind, "uuid": name, "sessionId": "s", "timestamp": stamp, "message": message}

    def told(**payload: object) -> dict[str, object]:
        return {"timestamp": stamp, "type": "response_item", "payload": payload}

    write(
        claude,
        {"type": "summary", "summary": "not said"},
        said("user", "u1", "Mend the door."),
        said("assistant", "u2", [{"type": "text", "text": "It is mended."}, {"type": "tool_use", "input": {}}]),
        said("user", "u3", [{"type": "tool_result", "content": "ls"}]),
    )
    assert import_source(store, "claude-code", wanted(claude)) == 2
    write(
        codex,
        {"timestamp": stamp, "type": "session_meta", "payload": {"id": "x"}},
        told(type="message", role="user", content=[{"type": "input_text", "text": "Paint it."}]),
        told(type="function_call", name="shell"),
        told(type="message", role="assistant", content=[{"type": "output_text", "text": "Painted."}]),
    )
    assert import_source(store, "codex", wanted(codex)) == 2
    assert [item.text for item in kept(store)] == ["Mend the door.", "It is mended.", "Paint it.", "Painted."]
    assert [item.thread for item in kept(store)] == ["s", "s", "rollout-1", "rollout-1"]


def test_shell_history_of_bash_and_zsh_is_read_with_its_times(store: Store, tmp_path: Path) -> None:
    bash, zsh = tmp_path / "bash", tmp_path / "zsh"
    bash.write_text("#1700000000\nmake test\n\nls\n")
    zsh.write_text(": 1700000100:0;git push\n: 1700000200:3;export TOKEN=abcdefgh12345678\n")
    assert import_source(store, "shell", wanted(bash)) == 2
    assert import_source(store, "shell", wanted(zsh)) == 2
    items = kept(store)
    assert [item.text for item in items[:3]] == ["make test", "ls", "git push"]
    assert [item.happened_at for item in items] == [1_700_000_000, items[0].recorded_at, 1_700_000_100, 1_700_000_200]
    assert "abcdefgh" not in items[3].text


def test_commits_resume_at_the_last_one(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "repository"

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)

    folder.mkdir()
    with pytest.raises(DataError, match="no commits"):
        import_source(store, "git", wanted(folder))
    git("init", "-q")
    for subject in ("Open the shop", "Mend the door\n\nIt was broken; see the note."):
        git("commit", "-q", "--allow-empty", "-m", subject)
    assert import_source(store, "git", wanted(folder)) == 2
    git("commit", "-q", "--allow-empty", "-m", "Close the shop")
    assert import_source(store, "git", wanted(folder)) == 1
    assert [item.text.splitlines()[0] for item in kept(store)] == ["Open the shop", "Mend the door", "Close the shop"]
    assert {item.author for item in kept(store)} == {"Ada"}


def test_a_folder_is_imported_by_parts_and_changed_parts_are_new(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("# Doors\n\nThe front door is green.\n\n# Keys\n\nUnder the mat.\n")
    (folder / "b.bin").write_bytes(b"\x00\x01")
    assert import_source(store, "folder", wanted(folder)) == 2
    assert import_source(store, "folder", wanted(folder)) == 0
    (folder / "a.md").write_text("# Doors\n\nThe front door is red.\n\n# Keys\n\nUnder the mat.\n")
    assert import_source(store, "folder", wanted(folder)) == 1
    assert list(split_parts("one\n\n" + "x" * 3000 + "\n\ntwo")) == ["one", "x" * 3000, "two"]
    with pytest.raises(DataError, match="not a folder"):
        import_source(store, "folder", wanted(folder / "a.md"))


def test_an_unreadable_source_is_reported_with_its_place(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        import_source(store, "chat", wanted(tmp_path / "nowhere"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"role": "user", "content": "fine"}\nno json\n')
    with pytest.raises(DataError, match="byte 36"):
        import_source(store, "chat", wanted(bad))
    with pytest.raises(DataError, match="not a file"):
        import_source(store, "chat", wanted(tmp_path))
