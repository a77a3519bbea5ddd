"""Facts about one request. Headers, metrics, span and log line use these facts only."""

import os
import re
import time
from dataclasses import dataclass, field

from ripieno.errors import RipienoError
from ripieno.execute import Started
from ripieno.gateway.http import Request
from ripieno.gateway.keyring import ANYONE, Grant

UNKNOWN = "unknown"
"""Label of a request without a route."""
MALFORMED = "malformed"
"""Label of bytes that are not an HTTP request."""
CLIENT_LEFT = 499
"""Status of a request whose client left before the answer; nginx uses the same."""
_ID = re.compile(r"[A-Za-z0-9._:=+/@-]{1,128}", re.ASCII)
"""The form of a caller's `x-request-id` that the gateway keeps."""


def make_name() -> str:
    """Make a unique name."""
    return os.urandom(16).hex()


@dataclass(slots=True)
class Facts:
    """Facts about one request, from its arrival to its end."""

    request: Request
    name: str = field(default_factory=make_name)
    """Id of the decision or run that the request leads to."""
    id: str = ""
    """Id of the request: the caller's own if it is short and plain, else `name`."""
    began: float = field(default_factory=time.perf_counter)
    route: str = UNKNOWN
    """Method and path of the route, with the names of its parameters instead of their values."""
    parameter: str = ""
    """Value of the route's parameter in the path."""
    dialect: str = ""
    """Name of the wire format, if a model answers."""
    grant: Grant = ANYONE
    started: Started | None = None
    """The run that the request leads to, after its decision."""
    worker: str | None = None
    """The worker that answered."""
    is_cached: bool | None = None
    """Whether the answer came from the cache; None if the cache was not searched."""
    error: RipienoError | None = None
    """Why there is no answer, or why a stream broke off."""
    fault: Exception | None = None
    """The unhandled exception behind the error."""
    status: int = 0

    def __post_init__(self) -> None:
        given = self.request.headers.get("x-request-id")
        self.id = given if given is not None and _ID.fullmatch(given) else self.name
