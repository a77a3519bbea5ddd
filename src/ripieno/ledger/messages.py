"""Messages and answers as the ledger records them; earlier versions used the form of chat completions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from ripieno.domain import Answer, JsonValue, Message, Task
from ripieno.domain.task import digest_of
from ripieno.wires.chat.parts import read_message, read_parts


def make_message_body(message: Message) -> dict[str, JsonValue]:
    """Make the recorded form of a message."""
    return {"role": message.role, "content": message.content, "extra": message.extra}


def make_answer_body(answer: Answer | None) -> dict[str, JsonValue] | None:
    """Make the recorded form of an answer. A text alone looks as it did in earlier versions."""
    if answer is None:
        return None
    body: dict[str, JsonValue] = {
        "text": answer.text,
        "usage": answer.usage,
        "finish_reason": answer.finish_reason,
        "message": {},
        "recorded_quality": answer.recorded_quality,
        "cost_usd": answer.cost_usd,
        "latency_s": answer.latency_s,
        "wire": "",
    }
    if answer.content:
        body["content"] = answer.content
    if answer.lost:
        body["lost"] = answer.lost
    if answer.authors:
        body["authors"] = answer.authors
    return body


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAnswer(Answer):
    """An answer as any version recorded it."""

    message: Mapping[str, JsonValue] = field(default_factory=dict)
    """Further fields of the message in the form of chat completions; only earlier versions recorded them."""


def read_answer(found: RecordedAnswer | None) -> Answer | None:
    """Return a recorded answer."""
    if found is None:
        return None
    content = found.content or tuple(read_parts({"content": found.text, **found.message}) if found.message else ())
    names = (name for name in Answer.__dataclass_fields__ if name != "content")
    return Answer(content=content, **{name: getattr(found, name) for name in names})


def load_old_task(body: str, load: Callable[[str], Task]) -> tuple[Task, str]:
    """Read a task with messages in the form of chat completions, and the digest that it has in the ledger.

    Args:
        body: the recorded body.
        load: reads the body of a task.

    Raises:
        msgspec.MsgspecError: the body is no task.
    """
    found = msgspec.json.decode(body, type=dict[str, object])
    raws = [_read_old(raw) for raw in msgspec.convert(found.get("messages"), list[dict[str, object]])]
    plain = load(msgspec.json.encode({**found, "messages": [{"role": "user", "content": ""}]}).decode())
    messages = tuple(replace(read_message(raw, nth), native=None) for nth, raw in enumerate(raws))
    seen = {
        "messages": [[raw["role"], raw.get("content"), _rest(raw)] for raw in raws],
        "tools": list(plain.tools),
        "params": dict(plain.params),
    }
    return replace(plain, messages=messages), digest_of(seen)


def is_old(task: Task) -> bool:
    """Return whether tool calls or results of a task are recorded in the form of chat completions."""
    return any(name in message.extra for message in task.messages for name in ("tool_calls", "tool_call_id"))


def _read_old(raw: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    extra = raw.get("extra")
    further = dict(extra) if isinstance(extra, Mapping) else {}
    return {"role": raw.get("role"), "content": raw.get("content"), **further}


def _rest(raw: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in raw.items() if name not in ("role", "content")}
