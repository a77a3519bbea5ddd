"""The one table from error classes to HTTP: status, type and code as OpenAI's clients know them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ripieno import errors
from ripieno.errors import RipienoError
from ripieno.gateway.gate import BadHost, StrangeHost, StrangeOrigin, WrongMediaType
from ripieno.gateway.objective import UnknownModel
from ripieno.wires import Fault


class UnknownUrl(errors.NotFound):
    """No route has the path of the request."""


class WrongMethod(errors.InvalidTask):
    """The path has a route, but not for this method; `allowed` lists its methods."""

    def __init__(self, message: str, allowed: Iterable[str]) -> None:
        self.allowed = tuple(sorted(allowed))
        super().__init__(message)


class Malformed(RipienoError):
    """The bytes are not an HTTP request, or are over a limit; `status` is that of the response."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Wire:
    """How an error appears in a response."""

    status: int
    type: str
    code: str
    is_worth_retrying: bool = False


USUAL_WAIT_S = 1.0
"""Wait before a retry, if the error states none."""

TABLE: dict[type[RipienoError], Wire] = {
    RipienoError: Wire(500, "server_error", "internal_error"),
    errors.InvalidTask: Wire(400, "invalid_request_error", "invalid_request"),
    UnknownModel: Wire(404, "invalid_request_error", "model_not_found"),
    BadHost: Wire(400, "invalid_request_error", "bad_host"),
    StrangeHost: Wire(403, "invalid_request_error", "host_not_allowed"),
    StrangeOrigin: Wire(403, "invalid_request_error", "origin_not_allowed"),
    WrongMediaType: Wire(415, "invalid_request_error", "unsupported_media_type"),
    UnknownUrl: Wire(404, "invalid_request_error", "unknown_url"),
    WrongMethod: Wire(405, "invalid_request_error", "unknown_url"),
    Malformed: Wire(400, "invalid_request_error", "bad_request"),
    errors.DataError: Wire(400, "invalid_request_error", "invalid_data"),
    errors.ConfigError: Wire(500, "server_error", "configuration_error"),
    errors.CheckpointError: Wire(500, "server_error", "configuration_error"),
    errors.MissingExtra: Wire(500, "server_error", "configuration_error"),
    errors.PredictorError: Wire(500, "server_error", "configuration_error"),
    errors.NoEligibleWorker: Wire(400, "invalid_request_error", "no_eligible_worker"),
    errors.Abstained: Wire(422, "invalid_request_error", "abstained"),
    errors.NotFound: Wire(404, "invalid_request_error", "not_found"),
    errors.NotReplayable: Wire(409, "invalid_request_error", "not_replayable"),
    errors.RateLimited: Wire(429, "rate_limit_error", "rate_limit_exceeded", True),
    errors.Overloaded: Wire(503, "server_error", "overloaded", True),
    errors.Unauthorized: Wire(401, "invalid_request_error", "invalid_api_key"),
    errors.Forbidden: Wire(403, "invalid_request_error", "not_allowed"),
    errors.DeadlineExceeded: Wire(504, "server_error", "deadline_exceeded"),
    errors.WorkerBusy: Wire(429, "rate_limit_error", "worker_busy", True),
    errors.ProviderError: Wire(502, "server_error", "provider_error", True),
    errors.ProviderTimeout: Wire(504, "server_error", "provider_timeout", True),
    errors.ProviderUnreachable: Wire(502, "server_error", "provider_unreachable", True),
    errors.ProviderRejected: Wire(502, "server_error", "provider_rejected"),
    errors.BadAnswer: Wire(502, "server_error", "bad_answer", True),
    errors.NoVerdict: Wire(502, "server_error", "no_verdict", True),
    errors.WithheldTask: Wire(400, "invalid_request_error", "no_eligible_worker"),
    errors.LedgerError: Wire(503, "server_error", "ledger_unavailable", True),
    errors.LedgerCorrupt: Wire(503, "server_error", "ledger_unavailable"),
    errors.LedgerTooNew: Wire(503, "server_error", "ledger_unavailable"),
    errors.LedgerFull: Wire(503, "server_error", "ledger_full", True),
    errors.MemoryUnavailable: Wire(503, "server_error", "memory_unavailable", True),
    errors.InvalidPlan: Wire(422, "invalid_request_error", "invalid_plan"),
    errors.ApprovalPending: Wire(409, "invalid_request_error", "approval_pending"),
    errors.ApprovalDenied: Wire(403, "invalid_request_error", "approval_denied"),
    errors.InDoubt: Wire(409, "server_error", "in_doubt"),
    errors.UnknownPrice: Wire(400, "invalid_request_error", "unknown_price"),
    errors.BudgetExhausted: Wire(429, "insufficient_quota", "insufficient_quota"),
    errors.GateRefused: Wire(409, "invalid_request_error", "gate_refused"),
}

_MALFORMED = {
    408: Wire(408, "invalid_request_error", "request_timeout"),
    413: Wire(413, "invalid_request_error", "body_too_large"),
    431: Wire(431, "invalid_request_error", "headers_too_large"),
    503: Wire(503, "server_error", "overloaded", True),
}
CODES = {wire.code for wire in (*TABLE.values(), *_MALFORMED.values())} | {"no_worker_available"}
"""Every code of the gateway; a provider's own code may be any text."""

HIDDEN: dict[type[RipienoError], str] = {
    errors.ConfigError: "the gateway's setup does not allow this",
    errors.CheckpointError: "the gateway's router cannot be read",
    errors.LedgerError: "the ledger cannot be read or written now",
    errors.LedgerCorrupt: "the ledger is damaged",
    errors.LedgerTooNew: "the ledger was written by a newer Ripieno",
    errors.LedgerFull: "the ledger has no space left",
    errors.MemoryUnavailable: "the memory cannot be read or written now",
}
"""Messages for clients, for errors whose own messages name files, hosts and ports; the log has those."""
LOGGED = "The gateway's log has the details under this request id"
_PLACES = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s'\"<>)\]]*"  # a URL
    r"|(?<![\w.])(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?"  # an address
    r"|(?<![\w.-])[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}:\d{2,5}\b"  # a host name with its port
    r"|(?<![\w./])(?:~|[A-Za-z]:)?[/\\](?:[\w.@+-]{1,255}[/\\]){1,64}[\w.@+-]{0,255}"  # a path
)


def find_wire(error: RipienoError) -> Wire:
    """Return how an error appears in a response, by its nearest class in the table and its own facts."""
    wire = next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
    if isinstance(error, errors.ProviderError) and error.status is not None:
        return _keep_status(error, error.status, wire)
    if isinstance(error, Malformed):
        return _MALFORMED.get(error.status, wire)
    if isinstance(error, errors.NoEligibleWorker) and error.is_temporary:
        return Wire(503, "server_error", "no_worker_available", is_worth_retrying=True)
    if isinstance(error, errors.BudgetExhausted) and error.is_temporary:
        return Wire(429, "rate_limit_error", "rate_limit_exceeded", is_worth_retrying=True)
    return wire


def _keep_status(error: errors.ProviderError, status: int, wire: Wire) -> Wire:
    """Keep a provider's status if it is about the request, and not about the gateway's account."""
    if status == 429:
        return Wire(429, "rate_limit_error", error.code or "rate_limit_exceeded", is_worth_retrying=True)
    if status == 503:
        return Wire(503, "server_error", error.code or wire.code, is_worth_retrying=True)
    if isinstance(error, errors.ProviderRejected) and not error.blames_worker and 400 <= status < 500:
        return Wire(status, "invalid_request_error", error.code or wire.code)
    return wire


def find_label(error: RipienoError) -> str:
    """Return the code for metrics: always one of the gateway's, whatever a provider sends."""
    code = find_wire(error).code
    return code if code in CODES else next(TABLE[kind].code for kind in type(error).__mro__ if kind in TABLE)


def is_hidden(error: RipienoError) -> bool:
    """Return True if clients do not see the message of this error, so that the log must have it."""
    return isinstance(error, tuple(HIDDEN))


_QUOTING = (errors.ProviderError, errors.DataError, errors.NoVerdict, errors.NoEligibleWorker)
"""Errors whose messages may quote what other programs said, or the gateway's settings."""


def format_message(error: RipienoError) -> str:
    """Format what happened and what to do, without paths, hosts or ports of the gateway and its providers."""
    if is_hidden(error):
        return f"{next(HIDDEN[kind] for kind in type(error).__mro__ if kind in HIDDEN)}. {LOGGED}"
    message = error.message if error.hint is None else f"{error.message}. {error.hint}"
    is_of_caller = isinstance(error, errors.ProviderRejected) and not error.blames_worker
    return hide_places(message) if isinstance(error, _QUOTING) and not is_of_caller else message


def hide_places(text: str) -> str:
    """Replace the URLs, addresses and paths in a text."""
    return _PLACES.sub("(hidden)", text)


def make_fault(error: RipienoError, *, request: str) -> Fault:
    """Describe an error, in terms of every wire format."""
    wire = find_wire(error)
    return Fault(
        status=wire.status,
        type=wire.type,
        code=wire.code,
        message=format_message(error),
        param=error.param if isinstance(error, errors.InvalidTask) else None,
        request=request,
    )


def make_error_headers(error: RipienoError) -> dict[str, str]:
    """Make the headers that say whether and when to retry, as OpenAI's clients read them."""
    is_worth_retrying = find_wire(error).is_worth_retrying
    headers = {"x-should-retry": "true" if is_worth_retrying else "false"}
    wait = error.retry_after_s if isinstance(error, errors.RateLimited | errors.ProviderError) else None
    if wait is None and is_worth_retrying:
        wait = USUAL_WAIT_S
    if isinstance(error, WrongMethod):
        headers["allow"] = ", ".join(error.allowed)
    if wait is not None:
        headers |= {"retry-after": str(max(1, round(wait))), "retry-after-ms": str(round(wait * 1000))}
    return headers
