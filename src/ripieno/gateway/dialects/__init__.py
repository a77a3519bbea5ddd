"""The wire formats that clients speak; each to and from tasks and answers."""

from ripieno.gateway.dialects.base import Dialect, ParsedRequest, ResponseSource, StreamWriter
from ripieno.gateway.dialects.chat import ChatDialect
from ripieno.gateway.dialects.messages import MessagesDialect, count_tokens
from ripieno.gateway.dialects.responses import ResponsesDialect

__all__ = [
    "ChatDialect",
    "Dialect",
    "MessagesDialect",
    "ParsedRequest",
    "ResponseSource",
    "ResponsesDialect",
    "StreamWriter",
    "count_tokens",
]
