"""OpenAI's chat completions: also the form of tools and of request fields inside a task."""

from ripieno.wires.chat.client import ChatDialect
from ripieno.wires.chat.upstream import ChatUpstream

__all__ = ["ChatDialect", "ChatUpstream"]
