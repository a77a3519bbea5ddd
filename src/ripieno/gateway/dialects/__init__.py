"""The wire formats that clients speak; each to and from tasks and answers."""

from ripieno.gateway.dialects.base import Asked, Dialect, Origin, Writing
from ripieno.gateway.dialects.chat import ChatDialect
from ripieno.gateway.dialects.messages import MessagesDialect, count_tokens
from ripieno.gateway.dialects.responses import ResponsesDialect

__all__ = [
    "Asked",
    "ChatDialect",
    "Dialect",
    "MessagesDialect",
    "Origin",
    "ResponsesDialect",
    "Writing",
    "count_tokens",
]
