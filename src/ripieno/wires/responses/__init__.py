"""OpenAI's responses."""

from ripieno.wires.responses.client import ResponsesDialect
from ripieno.wires.responses.upstream import ResponsesUpstream

__all__ = ["ResponsesDialect", "ResponsesUpstream"]
