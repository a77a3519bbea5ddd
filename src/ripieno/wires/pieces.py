"""Pieces of a streamed answer, and the answer that they make."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace

import msgspec
from msgspec import structs

from ripieno.domain import Answer, Usage
from ripieno.domain.conversation import Native, Part, Reasoning, Refusal, Text, ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPiece:
    """A part of one tool call. The first one has the call's id and name."""

    index: int
    """Place of the call among the calls of the answer, from 0."""
    id: str = ""
    name: str = ""
    arguments: str = ""
    """What this part adds to the arguments."""
    namespace: str = ""
    is_custom: bool = False
    signature: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One piece of a streamed answer, in any wire format."""

    text: str = ""
    reasoning: str = ""
    signature: str = ""
    """The vendor's seal of the reasoning so far."""
    refusal: str = ""
    calls: tuple[CallPiece, ...] = ()
    parts: tuple[Part, ...] = ()
    """Parts that arrive whole: server tools, sealed reasoning, media."""
    finish_reason: str | None = None
    """`stop`, `length`, `tool_calls` or `content_filter`; others are passed on."""
    usage: Usage | None = None
    """Token counts. The latest counts."""
    lost: tuple[str, ...] = ()
    """What of the request did not reach the worker."""
    native: Native | None = None
    """The event as received, for a client of the same format; None if it was repaired."""

    @property
    def has_content(self) -> bool:
        """Return whether the piece adds to the answer. A role, a count or an end does not."""
        return bool(self.text or self.reasoning or self.refusal or self.calls or self.parts)


class Assembly:
    """The answer of a stream so far."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.first_s: float | None = None
        self.finish_reason: str | None = None
        self.lost: tuple[str, ...] = ()
        self._parts: list[Part] = []
        self._joined: list[str] = []
        """Texts of the open part, which is the last one."""
        self._calls: dict[int, int] = {}
        """Places of the tool calls among the parts, by index."""
        self._arguments: dict[int, list[str]] = {}

    @property
    def has_content(self) -> bool:
        """Return whether there is any content."""
        return bool(self._parts)

    def add(self, piece: Piece, *, at: float) -> None:
        """Add one piece, `at` seconds after the call began."""
        if piece.has_content:
            self._add_content(piece)
        if piece.signature:
            self._sign(piece.signature)
        if self.first_s is None and self._parts:
            self.first_s = at
        if piece.finish_reason:
            self.finish_reason = piece.finish_reason
        if piece.usage is not None:
            self.usage = piece.usage
        if piece.lost:
            self.lost = piece.lost

    def answer(self) -> Answer:
        """Return the answer so far."""
        self._close()
        for index, place in self._calls.items():
            call = self._parts[place]
            assert isinstance(call, ToolCall)
            text = "".join(self._arguments[index])
            self._parts[place] = structs.replace(call, arguments=text or ("" if call.is_custom else "{}"))
        finish = self.finish_reason or "stop"
        if self._calls and finish == "stop":
            finish = "tool_calls"
        made = Answer.of(tuple(self._parts), usage=self.usage or Usage(), finish_reason=finish)
        return replace(made, lost=self.lost) if self.lost else made

    def _add_content(self, piece: Piece) -> None:
        """Add all content of a piece, in the order in which models write it."""
        if piece.reasoning:
            self._extend(Reasoning, piece.reasoning)
        if piece.text:
            self._extend(Text, piece.text)
        if piece.refusal:
            self._extend(Refusal, piece.refusal)
        for call in piece.calls:
            self._add_call(call)
        for part in piece.parts:
            self._close()
            self._parts.append(part)

    def _extend(self, kind: type[Text | Reasoning | Refusal], text: str) -> None:
        """Add text to the open part, or open one of this kind."""
        if not (self._joined and isinstance(self._parts[-1], kind)):
            self._close()
            self._parts.append(kind(text=""))
        self._joined.append(text)

    def _close(self) -> None:
        if self._joined:
            last, joined = self._parts[-1], "".join(self._joined)
            match last:
                case Text() | Refusal() | Reasoning():
                    self._parts[-1] = structs.replace(last, text=last.text + joined)
                case _:
                    raise AssertionError(f"{type(last).__name__} takes no text")
            self._joined = []

    def _sign(self, signature: str) -> None:
        """Seal the latest reasoning."""
        self._close()
        place = next((i for i in reversed(range(len(self._parts))) if isinstance(self._parts[i], Reasoning)), None)
        if place is None:
            self._parts.append(Reasoning(signature=signature))
        else:
            known = self._parts[place]
            assert isinstance(known, Reasoning)
            self._parts[place] = structs.replace(known, signature=known.signature + signature)

    def _add_call(self, piece: CallPiece) -> None:
        place = self._calls.get(piece.index)
        if place is None:
            self._close()
            self._calls[piece.index] = len(self._parts)
            self._arguments[piece.index] = [piece.arguments]
            self._parts.append(
                ToolCall(
                    id=piece.id,
                    name=piece.name,
                    namespace=piece.namespace,
                    is_custom=piece.is_custom,
                    signature=piece.signature,
                )
            )
            return
        self._arguments[piece.index].append(piece.arguments)


def cut_answer(answer: Answer) -> Iterator[Piece]:
    """Yield a whole answer as pieces, for workers that cannot stream."""
    index = 0
    for part in answer.parts:
        match part:
            case Text(text=text):
                if text:
                    yield Piece(text=text)
            case Refusal(text=text):
                yield Piece(refusal=text)
            case Reasoning(sealed="", text=text, signature=signature):
                yield Piece(reasoning=text, signature=signature)
            case ToolCall():
                yield Piece(calls=(cut_call(part, index),))
                index += 1
            case _:
                yield Piece(parts=(part,))
    yield Piece(finish_reason=answer.finish_reason, usage=answer.usage, lost=answer.lost)


def cut_call(call: ToolCall, index: int) -> CallPiece:
    """Return a whole call as a piece."""
    return CallPiece(
        index=index,
        id=call.id,
        name=call.name,
        arguments=call.arguments,
        namespace=call.namespace,
        is_custom=call.is_custom,
        signature=call.signature,
    )


MOST_CHECKS = 64
"""Looks at whether the arguments of a call are complete, while another call waits."""


class CallSorter:
    """Puts the parts of interleaved tool calls in order, for formats that write one call after the other.

    A call ends when its arguments are whole JSON. The parts of later calls wait until then, or until the stream ends.
    """

    def __init__(self) -> None:
        self._open: int | None = None
        self._arguments: list[str] = []
        self._checks = 0
        self._waiting: dict[int, list[CallPiece]] = {}
        self._ended: set[int] = set()

    def add(self, piece: CallPiece) -> list[CallPiece]:
        """Add one part; return the parts that can be written now. A part of a call that has ended is left out."""
        if piece.index in self._ended:
            return []
        if self._open not in (None, piece.index):
            self._waiting.setdefault(piece.index, []).append(piece)
            return self._advance()
        self._open = piece.index
        self._arguments.append(piece.arguments)
        return [piece, *(self._advance() if self._waiting else ())]

    def flush(self) -> list[CallPiece]:
        """Return all parts that still wait, and begin again."""
        rest = [piece for pieces in self._waiting.values() for piece in pieces]
        self._open, self._arguments, self._waiting, self._checks = None, [], {}, 0
        return rest

    def _advance(self) -> list[CallPiece]:
        """Open the calls that wait, as long as the open one is complete."""
        released: list[CallPiece] = []
        while self._waiting and self._is_complete():
            if self._open is not None:
                self._ended.add(self._open)
            self._open = next(iter(self._waiting))
            pieces = self._waiting.pop(self._open)
            self._arguments = [piece.arguments for piece in pieces]
            released += pieces
        return released

    def _is_complete(self) -> bool:
        if self._checks >= MOST_CHECKS:
            return False
        text = "".join(self._arguments)
        if text.strip() and not text.rstrip().endswith("}"):
            return False
        self._checks += 1
        try:
            msgspec.json.decode(text or "{}")
        except msgspec.DecodeError:
            return False
        return True


EMPTY_ENDS = ("length", "content_filter")
"""Ends with which an answer without content is an answer, too."""


async def hold_back(
    pieces: AsyncIterator[Piece], collected: Assembly, read_clock: Callable[[], float]
) -> AsyncIterator[Piece]:
    """Collect pieces, and yield them from the first content on: until then another worker may answer.

    A stream that ends without content yields its pieces if that is an answer, too.
    """
    held: list[Piece] = []
    async for piece in pieces:
        collected.add(piece, at=read_clock())
        held.append(piece)
        if collected.has_content:
            for each in held:
                yield each
            held.clear()
    if collected.finish_reason in EMPTY_ENDS:
        for each in held:
            yield each
