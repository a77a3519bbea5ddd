"""Embeddings: by a worker that makes them, or by the router's own encoder."""

import base64
from collections.abc import Sequence

import numpy as np

from ripieno.app import App
from ripieno.domain import JsonValue
from ripieno.domain.run import CHARACTERS_PER_TOKEN
from ripieno.errors import InvalidTask
from ripieno.gateway.dialects.base import encode
from ripieno.gateway.http import Request, Response
from ripieno.gateway.keyring import Grant, Keyring
from ripieno.gateway.metrics import Metrics
from ripieno.gateway.objective import AUTO, UnknownModel

MOST_TEXTS = 2048


class Embeddings:
    """`POST /v1/embeddings`."""

    def __init__(self, app: App, keyring: Keyring, metrics: Metrics) -> None:
        self._app = app
        self._keyring = keyring
        self._metrics = metrics

    async def answer(self, request: Request, grant: Grant) -> Response:
        """Embed one text or many.

        Raises:
            InvalidTask: the input is neither text nor a list of texts.
            UnknownModel: there is no such worker.
        """
        from ripieno.gateway.answering import read_body

        body = read_body(request.body)
        model = body.get("model")
        if not isinstance(model, str):
            raise InvalidTask("model must be text", param="model")
        model = self._app.settings.gateway.aliases.get(model, model)
        await self._keyring.admit(grant)
        tokens = 0
        try:
            if model == AUTO or model == self._app.analyzer.encoder.name:
                texts = _read_input(body.get("input"))
                tokens = sum(1 + int(len(text) / CHARACTERS_PER_TOKEN) for text in texts)
                return await self._embed_here(texts, body, tokens)
            if model not in self._app.pool:
                raise UnknownModel(model, (AUTO, *self._app.pool.ids))
            content = await self._app.caller.embed(self._app.pool[model], body)
            return Response(content, headers={"x-ripieno-worker": model})
        finally:
            await self._keyring.leave(grant, cost_usd=0.0, tokens=tokens)

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
        return Response(encode({"object": "list", "data": data, "model": encoder.name, "usage": usage}))


def _read_input(given: JsonValue) -> list[str]:
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise InvalidTask("input must be text, or a list of texts", param="input")
    if len(given) > MOST_TEXTS:
        raise InvalidTask(f"input may hold {MOST_TEXTS} texts, got {len(given)}", param="input")
    if all(isinstance(part, int) for part in given):
        given = [given]
    return [_read_text(part) for part in given]


def _read_text(part: JsonValue) -> str:
    """A text, or the token ids that some clients make of one before they send it."""
    if isinstance(part, str):
        return part
    if isinstance(part, list) and all(isinstance(token, int) for token in part):
        raise InvalidTask(
            "input holds token ids of another model's vocabulary, which is not known here",
            param="input",
            hint="send texts; with LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)",
        )
    raise InvalidTask("input must hold texts", param="input")


def _pack(vector: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> str:
    return base64.b64encode(vector.tobytes()).decode("ascii")
