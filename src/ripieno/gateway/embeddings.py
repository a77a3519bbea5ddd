"""Embeddings, made by a worker or by the router's own encoder."""

import base64
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from ripieno.app import Installation
from ripieno.domain import Account, Budget, Call, JsonValue, Objective, Task, Worker
from ripieno.domain.bound import count_most_input
from ripieno.domain.run import CHARACTERS_PER_TOKEN
from ripieno.encoders import find_privacy
from ripieno.errors import BadAnswer, Forbidden, InvalidTask, UnknownPrice, WithheldTask
from ripieno.gateway.bodies import read_body, respond
from ripieno.gateway.direct import DirectCalls
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response
from ripieno.gateway.keyring import Grant, Keyring
from ripieno.gateway.objective import AUTO
from ripieno.privacy import Boundary, describe_kinds
from ripieno.wires.base import decode_fields, encode
from ripieno.wires.usage import read_chat_usage

MOST_TEXTS = 2048
_SEND_TEXTS = "send texts; with LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)"


class Embeddings:
    """`POST /v1/embeddings`."""

    def __init__(self, direct: DirectCalls, app: Installation, keyring: Keyring) -> None:
        self._direct = direct
        self._app = app
        self._keyring = keyring

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
        runtime, model = self._app.runtime, self._direct.resolve(model)
        is_own = model in (AUTO, self._app.analyzer.encoder.name)
        worker = None if is_own else self._direct.find_worker(model, facts)
        async with self._direct.meter(facts, f"embedding/{facts.name}", _TASK) as meter:
            if worker is None:
                texts = _read_input(body.get("input"))
                await self._check_encoder(texts, grant, runtime.boundary)
                meter.tokens = sum(1 + int(len(text) / CHARACTERS_PER_TOKEN) for text in texts)
                return await self._embed_here(texts, body, meter.tokens)
            _check_boundary(worker, body, runtime.boundary)
            await _reserve(meter.account, worker, body)
            content, latency_s = await meter.send(runtime.caller.embed(worker, body))
            headers = meter.record(_price(worker, content, latency_s=latency_s))
            return Response(encode(decode_fields(content) | {"model": worker.id}), headers=headers)

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


def _price(worker: Worker, content: bytes, *, latency_s: float) -> Call:
    """Make the record of a call.

    Raises:
        BadAnswer: the worker's reply has no embeddings.
    """
    try:
        usage = read_chat_usage(msgspec.json.decode(content, type=_Embedded).usage)
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"{worker.id!r} returned no embeddings", worker=worker.id) from error
    usage = replace(usage, output_tokens=0)
    return Call(
        worker=worker.id,
        worker_version=worker.version,
        usage=usage,
        cost_usd=None if usage.input_tokens is None else worker.price.price(usage),
        latency_s=latency_s,
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
