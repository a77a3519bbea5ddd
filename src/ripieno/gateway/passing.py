"""Passing on: requests of further routes go to the worker that `model` names, metered and recorded."""

from dataclasses import replace
from functools import partial

import msgspec

from ripieno.app import Installation
from ripieno.domain import Account, Call, Task, Usage, Worker
from ripieno.errors import UnknownPrice
from ripieno.gateway.bodies import read_body
from ripieno.gateway.direct import DirectCalls
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response
from ripieno.gateway.routes import Route
from ripieno.wires.base import fields_of, require_model
from ripieno.wires.usage import read_chat_usage

PATHS = ("/v1/audio/speech", "/v1/images/generations", "/v1/moderations", "/v1/rerank")
"""Routes of OpenAI's format, and of rerankers, that take and describe their work in JSON."""


class PassThrough:
    """Sends a request to one worker as it is, but for the model, and returns the reply as it is."""

    def __init__(self, direct: DirectCalls, app: Installation) -> None:
        self._direct = direct
        self._app = app

    def routes(self) -> list[Route]:
        """List the routes."""
        return [Route("POST", path, partial(self.pass_on, path)) for path in PATHS]

    async def pass_on(self, path: str, facts: Facts) -> Response:
        """Pass one request on.

        Raises:
            UnknownModel: there is no such worker.
            InvalidTask: the worker takes no such requests.
            Forbidden: the key may not use it.
            ProviderError: the worker failed.
        """
        body, caller = read_body(facts.request.body), self._app.runtime.caller
        worker = self._direct.find_worker(self._direct.resolve(require_model(body)), facts)
        async with self._direct.meter(facts, f"passed/{facts.name}", _TASK) as meter:
            await _reserve(meter.account, worker)
            reply, latency_s = await meter.send(caller.forward(worker, path.removeprefix("/v1"), body))
            headers = meter.record(_price(worker, reply.body, latency_s=latency_s))
            return Response(reply.body, headers=headers, content_type=reply.content_type)


_TASK = Task.from_text("passed on", kind="passed on")
"""The task that the ledger records for every request, without its content."""


async def _reserve(account: Account | None, worker: Worker) -> None:
    """Reserve the price of one call.

    Raises:
        UnknownPrice: the key has a budget, and the worker has no price for a call.
        BudgetExhausted: the key has too little money left.
    """
    if account is None or not account.has_budget or worker.price.is_free:
        return
    if not worker.price.usd_per_call:
        raise UnknownPrice(worker.id)
    await account.reserve(worker.price.usd_per_call, least_usd=worker.price.usd_per_call)


def _price(worker: Worker, content: bytes, *, latency_s: float) -> Call:
    """Make the record of a call. Its price is known if the reply states counts, or a call has a price."""
    try:
        usage = read_chat_usage(fields_of(msgspec.json.decode(content)).get("usage"))
    except (msgspec.DecodeError, UnicodeDecodeError):
        usage = Usage()
    cost_usd = usage.cost_usd
    if cost_usd is None and usage.output_tokens is not None:
        cost_usd = worker.price.price(usage)
    elif cost_usd is None and (worker.price.is_free or worker.price.usd_per_call):
        cost_usd = worker.price.usd_per_call
    return Call(
        worker=worker.id,
        worker_version=worker.version,
        usage=replace(usage, cost_usd=None),
        cost_usd=cost_usd,
        latency_s=latency_s,
    )
