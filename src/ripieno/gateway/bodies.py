"""Bodies: the JSON of requests, read strictly, and of responses."""

from typing import TypeVar

import msgspec

from ripieno.domain import JsonValue
from ripieno.errors import InvalidTask
from ripieno.gateway.http import Request, Response
from ripieno.wires.base import encode

Body = TypeVar("Body")
_decode = msgspec.json.Decoder().decode


def read_form(request: Request, kind: type[Body]) -> Body:
    """Decode the body of a request into a struct.

    Raises:
        InvalidTask: the body has another form.
    """
    try:
        return msgspec.json.decode(request.body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidTask(f"the body is not what {request.path} takes: {error}") from error


def read_body(content: bytes) -> dict[str, JsonValue]:
    """Decode the body of a request into a JSON object.

    Raises:
        InvalidTask: the body is not a JSON object.
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
