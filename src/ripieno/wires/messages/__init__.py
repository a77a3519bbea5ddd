"""Anthropic's messages."""

from ripieno.wires.messages.client import MessagesDialect, count_tokens
from ripieno.wires.messages.upstream import MessagesUpstream

__all__ = ["MessagesDialect", "MessagesUpstream", "count_tokens"]
