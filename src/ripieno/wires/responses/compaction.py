"""Compaction of a conversation, as clients of OpenAI's responses ask for it: a summary in an item that only we read."""

import base64
from collections.abc import Mapping

from ripieno.domain import JsonValue
from ripieno.wires.base import items_of, text_of

KIND = "compaction"
ORDERS = (
    "Summarize the conversation so far, so that another model can continue it: the goal, what was decided and why, "
    "what was done, names, paths, numbers and code that matter, and what is still open. "
    "Leave out what no longer matters."
)
_MARK = b"ripieno-summary-1\n"
"""Beginning of a summary. The item is encoded, and not encrypted: it holds the client's own conversation."""


def list_input(given: JsonValue) -> list[JsonValue]:
    """List the items of an input, which may be one text."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return given if isinstance(given, list) else []


def ask_summary(body: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the request for a summary of a request's conversation."""
    left_out = ("tools", "tool_choice", "text", "stream", "store", "previous_response_id", "conversation")
    kept = {name: value for name, value in body.items() if name not in left_out}
    return {**kept, "input": [*list_input(body.get("input")), {"role": "user", "content": ORDERS}], "store": False}


def make_compaction(body: Mapping[str, JsonValue], response: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Make the compacted conversation: what the user said, and the summary of all the rest.

    Args:
        body: the request.
        response: the response to `ask_summary`.
    """
    texts = (part for item in items_of(response.get("output")) for part in items_of(item.get("content")))
    summary = "".join(text_of(part.get("text")) for part in texts if part.get("type") == "output_text")
    name = text_of(response.get("id")).removeprefix("resp_")
    sealed = base64.b64encode(_MARK + summary.encode()).decode()
    item = {"type": KIND, "id": f"cmp_{name}", "encrypted_content": sealed}
    said = [_shape(item) for item in items_of(list_input(body.get("input"))) if item.get("role") == "user"]
    return {
        "id": f"resp_{name}",
        "object": "response.compaction",
        "created_at": response.get("created_at"),
        "output": [*said, item],
        "usage": response.get("usage"),
    }


def _shape(message: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a message whose content is a list of parts, as items of a response have it."""
    content = message.get("content")
    return (
        message if not isinstance(content, str) else {**message, "content": [{"type": "input_text", "text": content}]}
    )


def read_summary(item: Mapping[str, JsonValue]) -> str | None:
    """Return the summary of an item that was made here; None for any other item."""
    if item.get("type") != KIND:
        return None
    try:
        content = base64.b64decode(text_of(item.get("encrypted_content")), validate=True)
        text = content.removeprefix(_MARK).decode()
    except ValueError:
        return None
    return text if content.startswith(_MARK) else None
