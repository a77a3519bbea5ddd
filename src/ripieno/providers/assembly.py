"""Assembly: builds the recorded answer from the pieces of a stream."""

from collections.abc import Mapping, Sequence

from ripieno.domain import Answer, JsonValue, Usage
from ripieno.providers.base import Piece


class Assembly:
    """The content of a stream so far."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.first_s: float | None = None
        self.has_content = False
        self._texts: list[str] = []
        self._finish = "stop"
        self._tool_calls: dict[int, dict[str, JsonValue]] = {}
        self._others: dict[str, list[str]] = {}

    def add(self, piece: Piece, *, at: float) -> None:
        """Add one piece, `at` seconds after the call began."""
        delta = piece.delta
        if delta:
            text = delta.get("content")
            if text and isinstance(text, str):
                self._texts.append(text)
                self.has_content = True
            if len(delta) > 1 or text is None:
                self._add_others(delta)
            if self.first_s is None and self.has_content:
                self.first_s = at
        if piece.finish_reason:
            self._finish = piece.finish_reason
        if piece.usage is not None:
            self.usage = piece.usage

    def _add_others(self, delta: Mapping[str, JsonValue]) -> None:
        """Join tool calls by index, and other texts by name."""
        for name, value in delta.items():
            if name == "tool_calls" and isinstance(value, Sequence):
                for part in value:
                    if isinstance(part, Mapping):
                        _merge_tool_call(self._tool_calls, part)
                        self.has_content = True
            elif name not in ("content", "role") and isinstance(value, str) and value:
                self._others.setdefault(name, []).append(value)
                self.has_content = True

    def answer(self) -> Answer:
        """Return the answer so far."""
        message: dict[str, JsonValue] = {name: "".join(parts) for name, parts in self._others.items()}
        if self._tool_calls:
            message["tool_calls"] = [self._tool_calls[index] for index in sorted(self._tool_calls)]
        return Answer(
            text="".join(self._texts), usage=self.usage or Usage(), finish_reason=self._finish, message=message
        )


def _merge_tool_call(calls: dict[int, dict[str, JsonValue]], part: Mapping[str, JsonValue]) -> None:
    index = part.get("index")
    call = calls.setdefault(index if isinstance(index, int) else 0, {})
    given = part.get("function")
    if isinstance(given, Mapping):
        known = call.get("function")
        function = dict(known) if isinstance(known, Mapping) else {}
        for name, value in given.items():
            old = function.get(name)
            function[name] = old + value if isinstance(old, str) and isinstance(value, str) else value
        call["function"] = function
    call.update({name: value for name, value in part.items() if name not in ("index", "function") and value})
