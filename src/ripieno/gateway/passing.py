"""Passing on: requests of further routes go to the worker that `model` names, metered and recorded."""

from dataclasses import replace
from functools import partial

import msgspec

from ripieno.app import Installation
from ripieno.domain import (
    Account,
    Answer,
    Budget,
    Call,
    Executed,
    Objective,
    Origin,
    Pool,
    Run,
    Task,
    Usage,
    Worker,
)
from ripieno.errors import Forbidden, ProviderError, UnknownPrice
from ripieno.gateway.bodies import read_body
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response
from ripieno.gateway.keyring import Grant, Keyring, list_allowed_workers
from ripieno.gateway.models import Models
from ripieno.gateway.objective import UnknownModel
from ripieno.gateway.provenance import make_cost_header
from ripieno.gateway.routes import Route
from ripieno.providers.caller import is_unbilled
from ripieno.wires.base import fields_of, require_model
from ripieno.wires.usage import read_chat_usage

PATHS = ("/v1/audio/speech", "/v1/images/generations", "/v1/moderations", "/v1/rerank")
"""Routes of OpenAI's format, and of rerankers, that take and describe their work in JSON."""


class PassThrough:
    """Sends a request to one worker as it is, but for the model, and returns the reply as it is."""

    def __init__(self, app: Installation, keyring: Keyring, models: Models) -> None:
        self._app = app
        self._keyring = keyring
        self._models = models

    def routes(self) -> list[Route]:
        """List the routes."""
        return [Route("POST", path, partial(self.pass_on, path)) for path in PATHS]

    async def pass_on(self, path: str, facts: Facts) -> Response:
        """Pass one request on.

        Raises:
            UnknownModel: there is no such worker.
            Forbidden: the worker takes no such requests, or the key may not use it.
            ProviderError: the worker failed.
        """
        body, grant, runtime = read_body(facts.request.body), facts.grant, self._app.runtime
        worker = self._find_worker(require_model(body), grant, runtime.pool)
        await self._keyring.admit(grant)
        run = f"passed/{facts.name}"
        account = self._keyring.open(grant, run)
        cost_usd: float | None = 0.0  # without a call there is no cost
        tokens = 0
        try:
            await _reserve(account, worker)
            began, cost_usd = self._app.clock.monotonic(), None
            reply = await runtime.caller.forward(worker, path.removeprefix("/v1"), body)
            call = _price(worker, reply.body, latency_s=self._app.clock.monotonic() - began)
            tokens, cost_usd, facts.worker = call.tokens, call.cost_usd, worker.id
            made = Run(
                id=run, task=_TASK.digest, origin=Origin.TRAFFIC, calls=(call,), answer=Answer(text=""), key=grant.id
            )
            self._app.ledger.note(Executed(run=made, task=_TASK))
            headers = {"x-ripieno-worker": worker.id} | make_cost_header(cost_usd)
            return Response(reply.body, headers=headers, content_type=reply.content_type)
        except ProviderError as error:
            cost_usd = 0.0 if is_unbilled(error) else cost_usd
            raise
        finally:
            if account is not None:
                account.close(cost_usd=cost_usd, is_recorded=tokens > 0 or cost_usd is None)
            await self._keyring.leave(grant, cost_usd=cost_usd or 0.0, tokens=tokens)

    def _find_worker(self, model: str, grant: Grant, pool: Pool) -> Worker:
        alias = self._models.read()[1].resolve(model)
        name = model if alias is None else alias[0]
        if name not in pool:
            raise UnknownModel(model, list_allowed_workers(grant, pool))
        objective, _ = self._keyring.restrict(grant, Objective(workers=(name,)), Budget())
        worker = pool[name]
        if worker.is_restricted:
            raise Forbidden(f"{name!r} is not served here: its calls have effects or need approval")
        if worker.privacy.reach > objective.privacy.reach:
            raise Forbidden(f"{name!r} is {worker.privacy}, and the key's tasks may go to {objective.privacy} workers")
        return worker


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
