"""Wire formats, each in one folder: how clients ask, how workers answer, and the reverse."""

from ripieno.wires.base import Dialect, Fault, ParsedRequest, Recipient, ResponseSource, StreamWriter, Upstream
from ripieno.wires.chat import ChatDialect, ChatUpstream
from ripieno.wires.gemini import GeminiUpstream
from ripieno.wires.legacy import CompletionsDialect
from ripieno.wires.messages import MessagesDialect, MessagesUpstream, count_tokens
from ripieno.wires.pieces import Assembly, CallPiece, Piece
from ripieno.wires.responses import ResponsesDialect, ResponsesUpstream

__all__ = [
    "Assembly",
    "CallPiece",
    "ChatDialect",
    "ChatUpstream",
    "CompletionsDialect",
    "Dialect",
    "Fault",
    "GeminiUpstream",
    "MessagesDialect",
    "MessagesUpstream",
    "ParsedRequest",
    "Piece",
    "Recipient",
    "ResponseSource",
    "ResponsesDialect",
    "ResponsesUpstream",
    "StreamWriter",
    "Upstream",
    "count_tokens",
]
