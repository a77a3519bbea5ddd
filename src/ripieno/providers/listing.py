"""Listing: whether a server has the model of a worker."""

import difflib
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import quote

import msgspec

from ripieno.domain import Worker
from ripieno.errors import BadAnswer, ProviderError, ProviderRejected

NO_ROUTE = (404, 405, 501)
"""Statuses of a server without a list of models."""
NOT_VERIFIED = "reachable, model not verified: the server has no list of models"
Fetch: TypeAlias = Callable[[str, str], Awaitable[bytes]]
"""Returns the body at a method and a path of the server. Raises a ProviderError for all but status 200."""


async def check_model(worker: Worker, fetch: Fetch) -> str:
    """Check whether a server has a worker's model. Return a short description of the result.

    Raises:
        ProviderRejected: the server answers, and does not have the model.
        ProviderError: the server cannot be reached, or sends no list of models.
    """
    names = await _list_models(worker, fetch)
    if names is None:
        return NOT_VERIFIED
    name = worker.binding.model
    if name in names or f"{name}:latest" in names or await _has_model(worker, fetch):
        return "reachable, model listed"
    near = difflib.get_close_matches(name, names, n=3)
    listed = ", ".join(near or sorted(names)[:5]) or "none"
    raise ProviderRejected(
        f"{worker.id!r}: the server does not list the model {name!r} among its {len(names)}",
        worker=worker.id,
        hint=f"{'nearest' if near else 'some of them'}: {listed}; set `model` of [workers.{worker.id}]",
    )


async def _list_models(worker: Worker, fetch: Fetch) -> set[str] | None:
    """List the models of the server; None if it has no such list."""
    try:
        content = await fetch("GET", "/models")
    except ProviderError as error:
        if error.status in NO_ROUTE:
            return None
        raise
    try:
        body = msgspec.json.decode(content)
        listed = body["data"] if "data" in body else body["models"]
        return {str(item["id"] if "id" in item else item["name"]).removeprefix("models/") for item in listed}
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise BadAnswer(f"{worker.id!r}: /models is not a list of models", worker=worker.id) from error


async def _has_model(worker: Worker, fetch: Fetch) -> bool:
    """Return whether the server has one model by name: long lists have pages, and omit aliases."""
    try:
        found = msgspec.json.decode(await fetch("GET", f"/models/{quote(worker.binding.model, safe='/:')}"))
        return isinstance(found["id"], str) and found.get("object", "model") == "model"
    except (ProviderError, msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        return False
