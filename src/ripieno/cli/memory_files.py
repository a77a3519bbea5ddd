"""Files that the memory commands read: items of a sync, and conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ripieno.domain.memory import NewItem
from ripieno.errors import DataError, InvalidTask

if TYPE_CHECKING:
    from ripieno.domain import Message


def read_items(file: Path) -> list[NewItem]:
    """Read the items of a file, one JSON object per line.

    Raises:
        DataError: a line is not an item.
    """
    import msgspec

    from ripieno.gateway.memories import RememberRequest

    listed = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            given = msgspec.convert({"kind": "episode"} | json.loads(line), RememberRequest)
            listed.append(given.make(source=""))
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise DataError(f"not an item: {error}", path=str(file), place=f"line {number}") from error
    return listed


def read_turns(file: Path) -> list[Message]:
    """Read the messages of a file: an array, an object with `messages`, or one per line.

    Raises:
        DataError: the file has no conversation.
    """
    from ripieno.wires.chat.parts import read_message

    text = file.read_text(encoding="utf-8")
    try:
        raw = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
        if len(raw) == 1 and "messages" in raw[0]:
            raw = raw[0]["messages"]
        return [read_message(each, index) for index, each in enumerate(raw)]
    except (ValueError, TypeError, KeyError, AttributeError, InvalidTask) as error:
        raise DataError(
            f"not a conversation: {error}", path=str(file), hint="write a JSON array of messages"
        ) from error
