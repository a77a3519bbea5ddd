"""Compacting: a conversation of OpenAI's responses becomes a short one, with a summary that a worker writes."""

from dataclasses import replace

from ripieno.gateway.answering import Answering
from ripieno.gateway.bodies import read_body
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response
from ripieno.gateway.routes import Route
from ripieno.gateway.stored import StoredResponses
from ripieno.wires import ResponsesDialect
from ripieno.wires.base import encode
from ripieno.wires.responses.compaction import ask_summary, make_compaction


class Compacting:
    """Serves `POST /v1/responses/compact`. The summary is a task like any other: routed, metered and recorded."""

    def __init__(self, answering: Answering, stored: StoredResponses) -> None:
        self._answering = answering
        self._stored = stored
        self._dialect = ResponsesDialect()

    def routes(self) -> list[Route]:
        """List the routes."""
        return [Route("POST", "/v1/responses/compact", self.compact, dialect=self._dialect)]

    async def compact(self, facts: Facts) -> Response:
        """Compact one conversation."""
        body, _ = await self._stored.open(read_body(facts.request.body), facts.grant)
        facts.request.body = encode(ask_summary(body))
        answer = await self._answering.answer(self._dialect, facts)
        assert isinstance(answer, Response)
        return replace(answer, body=encode(make_compaction(body, read_body(answer.body))))
