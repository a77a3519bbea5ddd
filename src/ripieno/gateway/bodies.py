"""Bodies: JSON of a known form, read strictly."""

from typing import TypeVar

import msgspec

from ripieno.errors import InvalidTask
from ripieno.gateway.http import Request

Body = TypeVar("Body")


def read_form(request: Request, kind: type[Body]) -> Body:
    """The body of a request as one of a known form.

    Raises:
        InvalidTask: it is none.
    """
    try:
        return msgspec.json.decode(request.body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidTask(f"not what {request.path} takes: {error}") from error
