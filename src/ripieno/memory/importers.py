"""Importers read external records from the last watermark on. Each item is stored once.

Secrets are removed from all text. The formats of foreign files are those of Claude Code 2.1 and Codex 0.169. Other
lines are skipped.
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
from ripieno.domain.objective import Privacy
from ripieno.errors import DataError, NotFound
from ripieno.memory.redact import redact
from ripieno.memory.store import LONGEST_TEXT, Store
from ripieno.memory.sync import list_watermarks, move_watermark

BATCH = 500
"""Items of one commit, which also moves the watermark."""
TEXTS = (".md", ".txt", ".rst", ".org")
LONGEST_PART = 2000
"""Most characters of one part of a text file."""
_ZSH = re.compile(r"^: (\d+):\d+;(.*)$")
_FIELD, _END = "\x1f", "\x1e"


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What to import, and into which scope and privacy."""

    path: Path
    scope: Scope
    privacy: Privacy


@dataclass(frozen=True, slots=True)
class ImportedItem:
    """One item of a source, and the cursor behind it."""

    item: NewItem
    cursor: str


ImportReader = Callable[[Import, str], Iterator[ImportedItem]]


def import_source(store: Store, kind: str, request: Import) -> int:
    """Import the items of a source beyond its watermark, and return the number of new ones.

    Each commit contains items and the watermark behind them, so an interrupted import continues there.

    Raises:
        NotFound: the file or folder does not exist.
        DataError: the source is not of that kind.
    """
    if not request.path.exists():
        raise NotFound(f"the file or folder {str(request.path)!r} does not exist")
    source = f"{kind}:{request.path.resolve()}"
    cursor = next((each.cursor for each in list_watermarks(store) if each.source == source), "")
    new, batch = 0, []
    for imported in READERS[kind](request, cursor):
        batch.append(imported)
        if len(batch) == BATCH:
            new += _commit(store, source, request, batch)
            batch = []
    return new + _commit(store, source, request, batch)


def _commit(store: Store, source: str, request: Import, batch: Sequence[ImportedItem]) -> int:
    now = store.clock.now()
    with store.writing() as connection:
        items = [
            replace(
                imported.item,
                text=redact(imported.item.text)[:LONGEST_TEXT],
                scope=request.scope,
                privacy=request.privacy,
                source=source,
            )
            for imported in batch
        ]
        receipts = store.add(connection, items)
        move_watermark(connection, source, seen_at=now, committed_at=now, cursor=batch[-1].cursor if batch else None)
    return sum(receipt.is_new for receipt in receipts)


def read_chat(request: Import, cursor: str) -> Iterator[ImportedItem]:
    """Read chat logs with one JSON object per line: a message, or an object with `messages`."""
    for raw, place, behind in _read_json_lines(request.path, cursor):
        found = raw.get("messages")
        messages = found if isinstance(found, list) else [raw]
        thread = str(raw.get("session") or raw.get("conversation_id") or raw.get("id") or request.path.name)
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
                yield ImportedItem(item, behind if len(messages) == 1 else str(place))  # never ends within a line


def read_claude_code(request: Import, cursor: str) -> Iterator[ImportedItem]:
    """Read a session of Claude Code: the text of user and assistant, without tool calls."""
    for raw, place, behind in _read_json_lines(request.path, cursor):
        message = raw.get("message")
        if raw.get("type") not in ("user", "assistant") or not isinstance(message, Mapping):
            continue
        text = _read_content(message.get("content"))
        if text:
            author, ref = str(message.get("role") or raw["type"]), str(raw.get("uuid") or _ref(place, text))
            thread, at = str(raw.get("sessionId") or request.path.stem), _read_time(raw.get("timestamp"))
            yield ImportedItem(NewItem(text=text, author=author, thread=thread, ref=ref, happened_at=at), behind)


def read_codex(request: Import, cursor: str) -> Iterator[ImportedItem]:
    """Read the messages of a session of Codex."""
    for raw, place, behind in _read_json_lines(request.path, cursor):
        payload = raw.get("payload")
        if not isinstance(payload, Mapping) or payload.get("type") != "message":
            continue
        text = _read_content(payload.get("content"))
        if text and payload.get("role") in ("user", "assistant"):
            author, ref, at = str(payload["role"]), _ref(place, text), _read_time(raw.get("timestamp"))
            item = NewItem(text=text, author=author, thread=request.path.stem, ref=ref, happened_at=at)
            yield ImportedItem(item, behind)


def read_shell(request: Import, cursor: str) -> Iterator[ImportedItem]:
    """Read the history of bash (with or without times) or zsh, one item per command."""
    at: float | None = None
    for line, place, behind in _read_lines(request.path, cursor):
        zsh = _ZSH.match(line)
        if zsh is not None:
            at, command = float(zsh.group(1)), zsh.group(2)
        elif line.startswith("#") and line[1:].isdigit():
            at = float(line[1:])
            continue
        else:
            command = line
        if command.strip():
            yield ImportedItem(NewItem(text=command, thread="shell", ref=_ref(place, command), happened_at=at), behind)
        at = None


def read_git(request: Import, cursor: str) -> Iterator[ImportedItem]:
    """Read the commits of a repository, the oldest first."""
    form = _FIELD.join(("%H", "%an", "%at", "%B")) + _END
    known = cursor and _git(request.path, "cat-file", "-e", f"{cursor}^{{commit}}") is not None
    listed = _git(request.path, "log", "--reverse", f"--format={form}", *([f"{cursor}..HEAD"] if known else ["HEAD"]))
    if listed is None:
        raise DataError("git finds no commits there", path=str(request.path), hint="name the folder of a repository")
    for record in listed.split(_END):
        parts = record.strip("\n").split(_FIELD)
        if len(parts) == 4 and parts[3].strip():
            name, author, at, text = parts
            item = NewItem(text=text.strip(), author=author, thread="git", ref=name, happened_at=float(at))
            yield ImportedItem(item, name)


def read_folder(request: Import, cursor: str) -> Iterator[ImportedItem]:
    """Read the text files of a folder, one item per part. A changed part is a new item."""
    if not request.path.is_dir():
        raise DataError("it is not a folder", path=str(request.path))
    for path in sorted(request.path.rglob("*")):
        if path.suffix.lower() not in TEXTS or not path.is_file():
            continue
        name = str(path.relative_to(request.path))
        for part in split_parts(path.read_text(encoding="utf-8", errors="replace")):
            digest = hashlib.sha256(part.encode()).hexdigest()[:16]
            changed = path.stat().st_mtime
            yield ImportedItem(
                NewItem(text=part, author=name, thread=name, ref=f"{name}#{digest}", happened_at=changed), ""
            )


READERS: Mapping[str, ImportReader] = {
    "chat": read_chat,
    "claude-code": read_claude_code,
    "codex": read_codex,
    "shell": read_shell,
    "git": read_git,
    "folder": read_folder,
}


def split_parts(text: str) -> Iterator[str]:
    """Split a text into parts of up to `LONGEST_PART` characters: the paragraphs of one heading stay together."""
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
    """Read the complete lines beyond a byte offset, each with its offset and the next. An incomplete line waits."""
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
        raise DataError("it is a folder, not a file", path=str(path))
    for line, place, behind in _read_lines(path, cursor):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
        except ValueError as error:
            raise DataError(f"a line is not JSON: {error}", path=str(path), place=f"byte {place}") from error
        if isinstance(raw, dict):
            yield raw, place, behind


def _ref(place: object, text: str) -> str:
    """Make a reference from a place and its text. If other text stands there later, it gets another reference."""
    return f"{place}:{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _read_content(content: object) -> str:
    """Return the text of a message: a string, or the text parts of a list."""
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
