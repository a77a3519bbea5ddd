"""Bodies: JSON of requests, read strictly, and of responses."""

from typing import TypeVar

import msgspec

from ripieno.domain import JsonValue
from ripieno.errors import InvalidTask
from ripieno.gateway.dialects.base import encode
from ripieno.gateway.http import Request, Response

Body = TypeVar("Body")
_decode = msgspec.json.Decoder().decode


def read_form(request: Request, kind: type[Body]) -> Body:
    """Read the body of a request as one of a known form.

    Raises:
        InvalidTask: it is none.
    """
    try:
        return msgspec.json.decode(request.body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidTask(f"not what {request.path} takes: {error}") from error


def read_body(content: bytes) -> dict[str, JsonValue]:
    """Read the JSON object of a request.

    Raises:
        InvalidTask: it is none.
    """
    try:
        body = _decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidTask(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidTask("the body must be a JSON object")
    return body


def respond(body: object, *, status: int = 200) -> Response:
    """Make a JSON response."""
    return Response(encode(body), status=status)
