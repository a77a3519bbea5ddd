"""Facts: what is known of one request. Headers, metrics, span and log line are made of them, and of nothing else."""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ripieno.errors import RipienoError
from ripieno.execute import Started
from ripieno.gateway.http import Request
from ripieno.gateway.keyring import ANYONE, Grant

UNKNOWN = "unknown"
"""Label of a request that no route takes."""
MALFORMED = "malformed"
"""Label of what is no HTTP request."""
CLIENT_LEFT = 499
"""Status under which a request counts whose client left before the answer; nginx uses the same."""
_ID = re.compile(r"[A-Za-z0-9._:=+/@-]{1,128}", re.ASCII)
"""The form of a caller's `x-request-id` that the gateway keeps."""


def make_name() -> str:
    """Make a name that is never used twice."""
    return os.urandom(16).hex()


@dataclass(slots=True)
class Facts:
    """What is known of one request, from its arrival to its end."""

    request: Request
    name: str = field(default_factory=make_name)
    """Made here: the id of the decision or run that the request leads to."""
    id: str = ""
    """Of the request: the caller's own if it is short and plain, else `name`."""
    began: float = field(default_factory=time.perf_counter)
    route: str = UNKNOWN
    """Method and path of the route, with the names of its parameters in place of their values."""
    parameter: str = ""
    """What the path has in place of the route's parameter."""
    dialect: str = ""
    """Name of the wire format, where a model answers."""
    grant: Grant = ANYONE
    started: Started | None = None
    """The run that the request leads to, once it is decided."""
    worker: str | None = None
    """Who answered."""
    is_hit: bool | None = None
    """Whether a kept answer was given; None where none was looked for."""
    error: RipienoError | None = None
    """Why there is no answer, or why a stream broke off."""
    fault: Exception | None = None
    """The unhandled exception behind the error."""
    status: int = 0

    def __post_init__(self) -> None:
        self.id = find_id(self.request.headers) or self.name


def find_id(headers: Mapping[str, str]) -> str | None:
    """Return the request id that a caller gives, if it is short and plain enough for headers and logs."""
    given = headers.get("x-request-id")
    return given if given is not None and _ID.fullmatch(given) else None
