"""Memory, as a user has it: commands in processes of their own, on one folder."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import HANG_S

RIPIENO = str(Path(sys.executable).parent / "ripieno")


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([RIPIENO, "memory", *arguments], capture_output=True, text=True, check=False, timeout=HANG_S)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_something_is_remembered_recalled_replaced_and_forgotten() -> None:
    first = run("remember", "We deploy the shop on Tuesdays.", "--kind", "decision", "--project", "web").stdout.strip()
    second = json.loads(
        run("remember", "We deploy the shop on Fridays.", "--project", "web", "--supersedes", first, "--json").stdout
    )["id"]
    found = json.loads(run("recall", "When do we deploy the shop?", "--project", "web", "--json").stdout)
    assert found["status"] == "ok"
    assert [item["id"] for item in found["items"]] == [second]
    assert found["support"] > 0.5
    assert "empty" in run("recall", "When do we deploy?").stderr, "of no project"
    told = run("history", first[:8]).stdout
    assert told.index("Tuesdays") < told.index("Fridays")
    assert run("status", "--beat").stderr.startswith("ok: 2 items")
    assert len(run("forget", second[:8]).stdout.strip()) == 64
    assert "(erased)" in run("history", first).stdout
    assert "no item" in run("forget", "ffff", code=1).stderr
    assert "2 items" in run("rebuild").stderr or "1 items" in run("rebuild").stderr
    assert "empty" in run("remember", "  ", code=2).stderr


def test_an_outage_is_told_and_ends_with_its_own_code() -> None:
    run("remember", "The door is green.")
    Path(".ripieno/memory.db").write_bytes(b"damaged beyond repair" * 500)
    for name in ("-wal", "-shm"):
        Path(f".ripieno/memory.db{name}").unlink(missing_ok=True)
    assert "memory" in run("recall", "door", code=3).stderr


def test_a_source_is_synced_and_a_broken_sync_changes_nothing() -> None:
    whole = Path("notes.jsonl")
    whole.write_text(
        "".join(json.dumps({"text": f"note {nth} about doors", "ref": str(nth)}) + "\n" for nth in range(4))
    )
    assert "sync 1: 4 items, current" in run("sync", "notes", "notes.jsonl").stderr
    whole.write_text(json.dumps({"text": "note 0 about doors", "ref": "0"}) + "\n")
    assert "quarantine" in run("sync", "notes", "notes.jsonl", code=5).stderr
    assert len(json.loads(run("recall", "doors", "--json").stdout)["items"]) == 4
    assert "in quarantine: notes, sync 2" in run("status").stderr
    whole.write_text('{"text": "x", "colour": "red"}\n')
    assert "line 1" in run("sync", "notes", "notes.jsonl", code=2).stderr


def test_a_conversation_is_made_short_or_left_as_it_is() -> None:
    turns = [
        {"role": "user", "content": "Let us look at it now, it should not take long at all. " * 20},
        {"role": "assistant", "content": "Decision: the shop will use Postgres. To do T-7: move the orders."},
        {"role": "user", "content": "Please write the note."},
    ]
    Path("talk.json").write_text(json.dumps(turns))
    done = run("compact", "talk.json")
    assert "To do T-7: move the orders." in done.stdout
    assert "Latest ask: Please write the note." in done.stdout
    Path("talk.jsonl").write_text('{"role": "assistant", "content": "Fine."}\n')
    refused = run("compact", "talk.jsonl", code=5)
    assert refused.stdout == ""
    assert "the compaction would be empty" in refused.stderr
    Path("talk.json").write_text("not a conversation")
    assert "not a conversation" in run("compact", "talk.json", code=2).stderr


def test_what_is_written_already_is_taken_in_once() -> None:
    Path("history").write_text("make test\ngit push\n")
    assert json.loads(run("import", "shell", "history", "--json").stdout) == {"new": 2}
    assert "0 new items" in run("import", "shell", "history").stderr
    assert json.loads(run("recall", "git push", "--json").stdout)["items"][0]["text"] == "git push"
    assert "'nowhere' does not exist" in run("import", "shell", "nowhere", code=1).stderr
