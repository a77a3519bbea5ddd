"""Task: one unit of work with its objective and budget."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import to_builtins

from ripieno.domain.conversation import JsonValue, Message, NativeRequest
from ripieno.domain.objective import Budget, Objective
from ripieno.domain.question import find_question

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One unit of work: messages, tools, objective and budget."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, JsonValue], ...] = ()
    params: Mapping[str, JsonValue] = field(default_factory=dict)
    """Fields for the worker in the names of chat completions; unknown ones are passed on unchanged."""
    objective: Objective = Objective()  # noqa: RUF009  # frozen
    budget: Budget = Budget()  # noqa: RUF009  # frozen
    kind: str | None = None
    """The family or domain of the task, if the caller states it."""
    served_tools: tuple[str, ...] = ()
    """Names of the tools that the client's vendor runs itself, such as `web_search`."""
    native: NativeRequest | None = field(default=None, repr=False, compare=False)
    """The fields of the request as received. Not recorded; None if the task was made here."""
    _digest: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError("a task needs at least one message")

    @classmethod
    def from_text(cls, text: str, *, objective: Objective | None = None, kind: str | None = None) -> "Task":
        """Make a task of one user message."""
        return cls(messages=(Message(role="user", content=text),), objective=objective or Objective(), kind=kind)

    @property
    def text(self) -> str:
        """Return the question, the main input of routing: the words of the last user message that has any.

        What coding agents add to the user's words is left out.
        """
        return find_question(self.messages)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of everything that a worker sees, without objective and budget."""
        if self._digest:
            return self._digest
        seen = {
            "messages": [[m.role, _list_content(m), dict(m.extra)] for m in self.messages],
            "tools": list(self.tools),
            "params": dict(self.params),
        }
        digest = digest_of(seen)
        object.__setattr__(self, "_digest", digest)  # computed once
        return digest


def digest_of(seen: JsonValue) -> str:
    """Return the SHA-256 of a JSON value."""
    packed = _CANONICAL.encode(seen)
    return hashlib.sha256(packed.encode("utf-8", "surrogatepass")).hexdigest()


def _list_content(message: Message) -> JsonValue:
    return message.content if isinstance(message.content, str) else to_builtins(message.content)
