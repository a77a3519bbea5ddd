"""Embeddings, made by a worker or by the router's own encoder."""

import base64
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from ripieno.app import Installation
from ripieno.domain import (
    Account,
    Answer,
    Budget,
    Call,
    Executed,
    JsonValue,
    Objective,
    Origin,
    Pool,
    Run,
    Task,
    Worker,
)
from ripieno.domain.bound import count_most_input
from ripieno.domain.run import CHARACTERS_PER_TOKEN
from ripieno.encoders import find_privacy
from ripieno.errors import BadAnswer, Forbidden, InvalidTask, ProviderError, UnknownPrice, WithheldTask
from ripieno.gateway.bodies import read_body, respond
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response
from ripieno.gateway.keyring import Grant, Keyring, list_allowed_workers
from ripieno.gateway.models import Models
from ripieno.gateway.objective import AUTO, UnknownModel
from ripieno.gateway.provenance import make_cost_header
from ripieno.privacy import Boundary, describe_kinds
from ripieno.providers.caller import is_unbilled
from ripieno.wires.base import decode_fields, encode
from ripieno.wires.usage import read_chat_usage

MOST_TEXTS = 2048
_SEND_TEXTS = "send texts; with LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)"


class Embeddings:
    """`POST /v1/embeddings`."""

    def __init__(self, app: Installation, keyring: Keyring, models: Models) -> None:
        self._app = app
        self._keyring = keyring
        self._models = models

    async def answer(self, facts: Facts) -> Response:
        """Embed one text or many; `model` of the reply names the worker or encoder that made the vectors.

        Raises:
            InvalidTask: the input is neither text nor a list of texts.
            UnknownModel: there is no such worker.
        """
        body, grant = read_body(facts.request.body), facts.grant
        model = body.get("model")
        if not isinstance(model, str):
            raise InvalidTask("model must be text", param="model")
        runtime = self._app.runtime
        alias = self._models.read(runtime)[1].resolve(model)
        model = model if alias is None else alias[0]
        worker = self._find_worker(model, grant, runtime.pool)
        self._app.ledger.damage.require_none()
        await self._keyring.admit(grant)
        run = f"embedding/{facts.name}"
        account = self._keyring.open(grant, run)
        tokens = 0
        cost_usd: float | None = 0.0  # without a call there is no cost
        try:
            if worker is None:
                texts = _read_input(body.get("input"))
                await self._check_encoder(texts, grant, runtime.boundary)
                tokens = sum(1 + int(len(text) / CHARACTERS_PER_TOKEN) for text in texts)
                return await self._embed_here(texts, body, tokens)
            _check_boundary(worker, body, runtime.boundary)
            began = self._app.clock.monotonic()
            await _reserve(account, worker, body)
            cost_usd = None
            content = await runtime.caller.embed(worker, body)
            made = _make_run(run, worker, content, key=grant.id, latency_s=self._app.clock.monotonic() - began)
            tokens, cost_usd, facts.worker = made.tokens, made.cost_usd, worker.id
            self._app.ledger.note(Executed(run=made, task=_TASK))
            named = encode(decode_fields(content) | {"model": worker.id})
            return Response(named, headers={"x-ripieno-worker": worker.id} | make_cost_header(made.cost_usd))
        except ProviderError as error:
            cost_usd = 0.0 if is_unbilled(error) else cost_usd
            raise
        finally:
            if account is not None:
                account.close(cost_usd=cost_usd, is_recorded=tokens > 0 or cost_usd is None)
            await self._keyring.leave(grant, cost_usd=cost_usd or 0.0, tokens=tokens)

    def _find_worker(self, model: str, grant: Grant, pool: Pool) -> Worker | None:
        """Find the worker that a request names; None for the router's own encoder."""
        if model == AUTO or model == self._app.analyzer.encoder.name:
            return None
        if model not in pool:
            raise UnknownModel(model, list_allowed_workers(grant, pool))
        objective, _ = self._keyring.restrict(grant, Objective(workers=(model,)), Budget())
        worker = pool[model]
        if worker.is_restricted:
            raise Forbidden(f"{model!r} makes no embeddings here: its calls have effects or need approval")
        if worker.privacy.reach > objective.privacy.reach:
            raise Forbidden(f"{model!r} is {worker.privacy}, and the key's tasks may go to {objective.privacy} workers")
        return worker

    async def _check_encoder(self, texts: Sequence[str], grant: Grant, boundary: Boundary | None) -> None:
        """Refuse texts that may not travel to the router's own encoder, if it runs on another server.

        Raises:
            Forbidden: the key's tasks may not travel so far.
            WithheldTask: the texts hold secrets or personal data.
        """
        encoder = self._app.analyzer.encoder
        far = find_privacy(encoder)
        objective, _ = self._keyring.restrict(grant, Objective(), Budget())
        if far.reach > objective.privacy.reach:
            raise Forbidden(f"{encoder.name!r} is {far}, and the key's tasks may go to {objective.privacy} workers")
        if boundary is None or far.reach <= boundary.reach.reach:
            return
        found = await boundary.find(texts)
        if found:
            raise WithheldTask(
                f"encoder {encoder.name!r} is {far}, and the texts hold {describe_kinds(found)}: nothing was sent",
                worker=encoder.name,
                hint=f"name a worker that is {boundary.reach}, or set encoder.name to 'static'",
            )

    async def _embed_here(self, texts: Sequence[str], body: dict[str, JsonValue], tokens: int) -> Response:
        encoder = self._app.analyzer.encoder
        wanted = body.get("dimensions")
        if wanted is not None and wanted != encoder.dimensions:
            raise InvalidTask(f"{encoder.name} makes vectors of {encoder.dimensions} numbers", param="dimensions")
        vectors = np.asarray(await encoder.encode(list(texts)), dtype="<f4")
        is_packed = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _pack(vector) if is_packed else vector.tolist()}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return respond({"object": "list", "data": data, "model": encoder.name, "usage": usage})


_TASK = Task.from_text("embeddings", kind="embedding")
"""The task that the ledger records for every request, without its texts."""


class _Embedded(msgspec.Struct):
    usage: dict[str, object] = msgspec.field(default_factory=dict)


def _check_boundary(worker: Worker, body: dict[str, JsonValue], boundary: Boundary | None) -> None:
    """Refuse token ids for a worker beyond the boundary, because the scanner cannot read them.

    Raises:
        WithheldTask: the input has token ids, and the worker is beyond the boundary.
    """
    if boundary is None or worker.privacy.reach <= boundary.reach.reach or not _holds_ids(body.get("input")):
        return
    raise WithheldTask(
        f"nothing was sent to {worker.id!r}: it is {worker.privacy}, and token ids cannot be read for secrets",
        worker=worker.id,
        hint=_SEND_TEXTS,
    )


async def _reserve(account: Account | None, worker: Worker, body: dict[str, JsonValue]) -> None:
    """Reserve the most that these embeddings can cost.

    Raises:
        UnknownPrice: the key has a budget, and the worker's price is unknown.
        BudgetExhausted: the key has too little money left.
    """
    if account is None or not account.has_budget:
        return
    tokens = count_most_input(Task.from_text(encode(body.get("input")).decode()))
    most = worker.price.charge(input_tokens=tokens, output_tokens=0, cpu_s=0.0)
    if most is None:
        raise UnknownPrice(worker.id)
    await account.reserve(most, least_usd=most)


def _make_run(run: str, worker: Worker, content: bytes, *, key: str | None, latency_s: float) -> Run:
    """Make the run that records embeddings.

    Raises:
        BadAnswer: the worker's reply has no embeddings.
    """
    try:
        usage = read_chat_usage(msgspec.json.decode(content, type=_Embedded).usage)
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"{worker.id!r} returned no embeddings", worker=worker.id) from error
    call = Call(
        worker=worker.id,
        worker_version=worker.version,
        usage=replace(usage, output_tokens=0),
        cost_usd=None if usage.input_tokens is None else worker.price.price(replace(usage, output_tokens=0)),
        latency_s=latency_s,
    )
    return Run(
        id=run,
        task=_TASK.digest,
        origin=Origin.TRAFFIC,
        calls=(call,),
        answer=Answer(text=""),
        key=key,
    )


def _read_input(given: JsonValue) -> list[str]:
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise InvalidTask("input must be text, or a list of texts", param="input")
    if _holds_ids(given):
        raise InvalidTask(
            "input holds token ids of a vocabulary that the gateway does not know", param="input", hint=_SEND_TEXTS
        )
    if len(given) > MOST_TEXTS:
        raise InvalidTask(f"input may hold {MOST_TEXTS} texts, got {len(given)}", param="input")
    texts = [part for part in given if isinstance(part, str)]
    if len(texts) < len(given):
        raise InvalidTask("input must hold texts", param="input")
    return texts


def _holds_ids(given: JsonValue) -> bool:
    """Return True if an input holds token ids, which some clients send instead of texts."""
    parts = given if isinstance(given, list) else []
    return any(isinstance(part, int) or (isinstance(part, list) and part) for part in parts)


def _pack(vector: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> str:
    return base64.b64encode(vector.tobytes()).decode("ascii")
