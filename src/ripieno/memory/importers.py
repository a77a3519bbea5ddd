"""Importers: what is already written elsewhere, read on from where it was left; the same thing is kept once.

Secrets are taken out of everything that is read. The forms of foreign files are those seen in Claude Code 2.1 and
Codex 0.169; lines of other kinds are passed over.
"""

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from ripieno.domain.memory import NewItem, Scope
from ripieno.domain.task import Privacy
from ripieno.errors import DataError, NotFound
from ripieno.memory.redact import redact
from ripieno.memory.store import LONGEST_TEXT, Store
from ripieno.memory.sync import list_watermarks, mark

BATCH = 500
"""Items of one commit, with the watermark."""
TEXTS = (".md", ".txt", ".rst", ".org")
LONGEST_PART = 2000
"""Characters of a part of a text file."""
_ZSH = re.compile(r"^: (\d+):\d+;(.*)$")
_FIELD, _END = "\x1f", "\x1e"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is imported, and as what."""

    path: Path
    scope: Scope
    privacy: Privacy


@dataclass(frozen=True, slots=True)
class Piece:
    """One item of a source, with where reading goes on behind it."""

    item: NewItem
    cursor: str


Reader = Callable[[Wanted, str], Iterator[Piece]]


def take(store: Store, kind: str, wanted: Wanted, *, told: Callable[[int], None] | None = None) -> int:
    """Import what a source holds beyond its watermark; tells how many items are new.

    Each commit holds its items with the watermark behind them: an import that is killed goes on there.

    Raises:
        NotFound: there is no such file or folder.
        DataError: it is not of that kind.
    """
    if not wanted.path.exists():
        raise NotFound(f"there is nothing at {str(wanted.path)!r}")
    source = f"{kind}:{wanted.path.resolve()}"
    cursor = next((each.cursor for each in list_watermarks(store) if each.source == source), "")
    new, batch = 0, []
    for piece in READERS[kind](wanted, cursor):
        batch.append(piece)
        if len(batch) == BATCH:
            new += _commit(store, source, wanted, batch)
            batch = []
            if told is not None:
                told(new)
    return new + _commit(store, source, wanted, batch)


def _commit(store: Store, source: str, wanted: Wanted, batch: Sequence[Piece]) -> int:
    now = store.clock.now()
    with store.writing() as connection:
        items = [
            replace(
                piece.item,
                text=redact(piece.item.text)[:LONGEST_TEXT],
                scope=wanted.scope,
                privacy=wanted.privacy,
                source=source,
            )
            for piece in batch
        ]
        receipts = store.add(connection, items)
        mark(connection, source, seen_at=now, committed_at=now, cursor=batch[-1].cursor if batch else None)
    return sum(receipt.is_new for receipt in receipts)


def read_chat(wanted: Wanted, cursor: str) -> Iterator[Piece]:
    """Chat logs, one JSON object a line: a message, or an object with `messages`."""
    for raw, place, behind in _read_json_lines(wanted.path, cursor):
        found = raw.get("messages")
        messages = found if isinstance(found, list) else [raw]
        thread = str(raw.get("session") or raw.get("conversation_id") or raw.get("id") or wanted.path.name)
        for nth, message in enumerate(messages):
            text = _read_content(message.get("content")) if isinstance(message, Mapping) else ""
            if text:
                item = NewItem(
                    text=text,
                    author=str(message.get("role", "")),
                    thread=thread,
                    ref=_ref(f"{place}.{nth}", text),
                    happened_at=_read_time(raw.get("created") or raw.get("timestamp")),
                )
                yield Piece(item, behind if len(messages) == 1 else str(place))  # a line is read again, or whole


def read_claude_code(wanted: Wanted, cursor: str) -> Iterator[Piece]:
    """A session of Claude Code: what the user and the assistant said, without calls of tools."""
    for raw, place, behind in _read_json_lines(wanted.path, cursor):
        message = raw.get("message")
        if raw.get("type") not in ("user", "assistant") or not isinstance(message, Mapping):
            continue
        text = _read_content(message.get("content"))
        if text:
            item = NewItem(
                text=text,
                author=str(message.get("role") or raw["type"]),
                thread=str(raw.get("sessionId") or wanted.path.stem),
                ref=str(raw.get("uuid") or _ref(place, text)),
                happened_at=_read_time(raw.get("timestamp")),
            )
            yield Piece(item, behind)


def read_codex(wanted: Wanted, cursor: str) -> Iterator[Piece]:
    """A session of Codex: its messages."""
    for raw, place, behind in _read_json_lines(wanted.path, cursor):
        payload = raw.get("payload")
        if not isinstance(payload, Mapping) or payload.get("type") != "message":
            continue
        text = _read_content(payload.get("content"))
        if text and payload.get("role") in ("user", "assistant"):
            item = NewItem(
                text=text,
                author=str(payload["role"]),
                thread=wanted.path.stem,
                ref=_ref(place, text),
                happened_at=_read_time(raw.get("timestamp")),
            )
            yield Piece(item, behind)


def read_shell(wanted: Wanted, cursor: str) -> Iterator[Piece]:
    """The history of bash (with or without times) or zsh; one command an item."""
    at: float | None = None
    for line, place, behind in _read_lines(wanted.path, cursor):
        zsh = _ZSH.match(line)
        if zsh is not None:
            at, command = float(zsh.group(1)), zsh.group(2)
        elif line.startswith("#") and line[1:].isdigit():
            at = float(line[1:])
            continue
        else:
            command = line
        if command.strip():
            yield Piece(NewItem(text=command, thread="shell", ref=_ref(place, command), happened_at=at), behind)
        at = None


def read_git(wanted: Wanted, cursor: str) -> Iterator[Piece]:
    """The commits of a repository, the oldest first."""
    form = _FIELD.join(("%H", "%an", "%at", "%B")) + _END
    known = cursor and _git(wanted.path, "cat-file", "-e", f"{cursor}^{{commit}}") is not None
    told = _git(wanted.path, "log", "--reverse", f"--format={form}", *([f"{cursor}..HEAD"] if known else ["HEAD"]))
    if told is None:
        raise DataError("git tells no commits of it", path=str(wanted.path), hint="name the folder of a repository")
    for record in told.split(_END):
        parts = record.strip("\n").split(_FIELD)
        if len(parts) == 4 and parts[3].strip():
            name, author, at, text = parts
            item = NewItem(text=text.strip(), author=author, thread="git", ref=name, happened_at=float(at))
            yield Piece(item, name)


def read_folder(wanted: Wanted, cursor: str) -> Iterator[Piece]:
    """The text files of a folder, part by part; a part that has changed is another one."""
    if not wanted.path.is_dir():
        raise DataError("it is no folder", path=str(wanted.path))
    for path in sorted(wanted.path.rglob("*")):
        if path.suffix.lower() not in TEXTS or not path.is_file():
            continue
        name = str(path.relative_to(wanted.path))
        for part in split_parts(path.read_text(encoding="utf-8", errors="replace")):
            digest = hashlib.sha256(part.encode()).hexdigest()[:16]
            changed = path.stat().st_mtime
            yield Piece(NewItem(text=part, author=name, thread=name, ref=f"{name}#{digest}", happened_at=changed), "")


READERS: Mapping[str, Reader] = {
    "chat": read_chat,
    "claude-code": read_claude_code,
    "codex": read_codex,
    "shell": read_shell,
    "git": read_git,
    "folder": read_folder,
}


def split_parts(text: str) -> Iterator[str]:
    """Paragraphs, those of one heading together, up to `LONGEST_PART` characters each."""
    part = ""
    for paragraph in map(str.strip, re.split(r"\n\s*\n", text)):
        is_heading = paragraph.startswith("#")
        if part and (is_heading or len(part) + len(paragraph) > LONGEST_PART):
            yield part
            part = ""
        part = f"{part}\n\n{paragraph}".strip()
    if part:
        yield part


def _read_lines(path: Path, cursor: str) -> Iterator[tuple[str, int, str]]:
    """Whole lines beyond a place in bytes, each with its place and the one behind it; half a line waits for its end."""
    start = int(cursor) if cursor.isdigit() and int(cursor) <= path.stat().st_size else 0
    with path.open("rb") as file:
        file.seek(start)
        place = start
        for raw in file:
            if not raw.endswith(b"\n"):
                break
            behind = place + len(raw)
            yield raw.decode("utf-8", errors="replace").rstrip("\r\n"), place, str(behind)
            place = behind


def _read_json_lines(path: Path, cursor: str) -> Iterator[tuple[dict[str, object], int, str]]:
    if path.is_dir():
        raise DataError("it is a folder, and a file is wanted", path=str(path))
    for line, place, behind in _read_lines(path, cursor):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
        except ValueError as error:
            raise DataError(f"a line is no JSON: {error}", path=str(path), place=f"byte {place}") from error
        if isinstance(raw, dict):
            yield raw, place, behind


def _ref(place: object, text: str) -> str:
    """A name for what stands at a place: something else that is written there later has another one."""
    return f"{place}:{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _read_content(content: object) -> str:
    """The text of a message: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content.strip()
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str)).strip()


def _read_time(value: object) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            return None
    return None


def _git(path: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603  # no shell
    return done.stdout if done.returncode == 0 else None
