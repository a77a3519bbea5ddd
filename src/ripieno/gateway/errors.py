"""The one table from error classes to HTTP: status, type and code as OpenAI's clients know them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ripieno.domain import JsonValue
from ripieno.errors import (
    Abstained,
    ApprovalDenied,
    ApprovalPending,
    BadAnswer,
    BudgetExhausted,
    CheckpointError,
    ConfigError,
    DataError,
    DeadlineExceeded,
    Forbidden,
    GateRefused,
    InDoubt,
    InvalidPlan,
    InvalidTask,
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerTooNew,
    MemoryUnavailable,
    MissingExtra,
    NoEligibleWorker,
    NotFound,
    NotReplayable,
    NoVerdict,
    Overloaded,
    PredictorError,
    ProviderError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnreachable,
    RateLimited,
    RipienoError,
    Unauthorized,
    UnknownPrice,
    WithheldTask,
    WorkerBusy,
)
from ripieno.gateway.gate import BadHost, StrangeHost, StrangeOrigin, WrongMediaType
from ripieno.gateway.objective import UnknownModel


class UnknownUrl(NotFound):
    """No route has the path of the request."""


class WrongMethod(InvalidTask):
    """A route has the path of the request, and takes other methods; `allowed` lists them."""

    def __init__(self, message: str, allowed: Iterable[str]) -> None:
        self.allowed = tuple(sorted(allowed))
        super().__init__(message)


class Malformed(RipienoError):
    """What came is no HTTP request, or is over a limit; `status` is the answer's."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Wire:
    """How an error stands on the wire."""

    status: int
    type: str
    code: str
    is_worth_retrying: bool = False


USUAL_WAIT_S = 1.0
"""Before another try, where nobody says how long."""

TABLE: dict[type[RipienoError], Wire] = {
    RipienoError: Wire(500, "server_error", "internal_error"),
    InvalidTask: Wire(400, "invalid_request_error", "invalid_request"),
    UnknownModel: Wire(404, "invalid_request_error", "model_not_found"),
    BadHost: Wire(400, "invalid_request_error", "bad_host"),
    StrangeHost: Wire(403, "invalid_request_error", "host_not_allowed"),
    StrangeOrigin: Wire(403, "invalid_request_error", "origin_not_allowed"),
    WrongMediaType: Wire(415, "invalid_request_error", "unsupported_media_type"),
    UnknownUrl: Wire(404, "invalid_request_error", "unknown_url"),
    WrongMethod: Wire(405, "invalid_request_error", "unknown_url"),
    Malformed: Wire(400, "invalid_request_error", "bad_request"),
    DataError: Wire(400, "invalid_request_error", "invalid_data"),
    ConfigError: Wire(500, "server_error", "configuration_error"),
    CheckpointError: Wire(500, "server_error", "configuration_error"),
    MissingExtra: Wire(500, "server_error", "configuration_error"),
    PredictorError: Wire(500, "server_error", "configuration_error"),
    NoEligibleWorker: Wire(400, "invalid_request_error", "no_eligible_worker"),
    Abstained: Wire(422, "invalid_request_error", "abstained"),
    NotFound: Wire(404, "invalid_request_error", "not_found"),
    NotReplayable: Wire(409, "invalid_request_error", "not_replayable"),
    RateLimited: Wire(429, "rate_limit_error", "rate_limit_exceeded", True),
    Overloaded: Wire(503, "server_error", "overloaded", True),
    Unauthorized: Wire(401, "invalid_request_error", "invalid_api_key"),
    Forbidden: Wire(403, "invalid_request_error", "not_allowed"),
    DeadlineExceeded: Wire(504, "server_error", "deadline_exceeded"),
    WorkerBusy: Wire(429, "rate_limit_error", "worker_busy", True),
    ProviderError: Wire(502, "server_error", "provider_error", True),
    ProviderTimeout: Wire(504, "server_error", "provider_timeout", True),
    ProviderUnreachable: Wire(502, "server_error", "provider_unreachable", True),
    ProviderRejected: Wire(502, "server_error", "provider_rejected"),
    BadAnswer: Wire(502, "server_error", "bad_answer", True),
    NoVerdict: Wire(502, "server_error", "no_verdict", True),
    WithheldTask: Wire(400, "invalid_request_error", "no_eligible_worker"),
    LedgerError: Wire(503, "server_error", "ledger_unavailable", True),
    LedgerCorrupt: Wire(503, "server_error", "ledger_unavailable"),
    LedgerTooNew: Wire(503, "server_error", "ledger_unavailable"),
    LedgerFull: Wire(503, "server_error", "ledger_full", True),
    MemoryUnavailable: Wire(503, "server_error", "memory_unavailable", True),
    InvalidPlan: Wire(422, "invalid_request_error", "invalid_plan"),
    ApprovalPending: Wire(409, "invalid_request_error", "approval_pending"),
    ApprovalDenied: Wire(403, "invalid_request_error", "approval_denied"),
    InDoubt: Wire(409, "server_error", "in_doubt"),
    UnknownPrice: Wire(400, "invalid_request_error", "unknown_price"),
    BudgetExhausted: Wire(429, "insufficient_quota", "insufficient_quota"),
    GateRefused: Wire(409, "invalid_request_error", "gate_refused"),
}

_MALFORMED = {
    408: Wire(408, "invalid_request_error", "request_timeout"),
    413: Wire(413, "invalid_request_error", "body_too_large"),
    431: Wire(431, "invalid_request_error", "headers_too_large"),
    503: Wire(503, "server_error", "overloaded", True),
}
CODES = {wire.code for wire in (*TABLE.values(), *_MALFORMED.values())} | {"no_worker_available"}
"""Every code of our own; a provider's own code may be any text."""

HIDDEN: dict[type[RipienoError], str] = {
    ConfigError: "the gateway's setup does not allow this",
    CheckpointError: "the gateway's router cannot be read",
    LedgerError: "the ledger cannot be read or written now",
    LedgerCorrupt: "the ledger is damaged",
    LedgerTooNew: "the ledger was written by a newer Ripieno",
    LedgerFull: "the ledger has no space left",
    MemoryUnavailable: "the memory cannot be read or written now",
}
"""What a client is told of errors whose own messages name files, hosts and ports of the gateway; the log has those."""
LOGGED = "The gateway's log has the details under this request id"
_PLACES = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s'\"<>)\]]*"  # a URL
    r"|(?<![\w.])(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?"  # an address
    r"|(?<![\w.-])[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}:\d{2,5}\b"  # a host name with its port
    r"|(?<![\w./])(?:~|[A-Za-z]:)?[/\\](?:[\w.@+-]{1,255}[/\\]){1,64}[\w.@+-]{0,255}"  # a path
)


def find_wire(error: RipienoError) -> Wire:
    """How this error stands on the wire: the entry of its own class or of the nearest above, but for what it tells."""
    wire = next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
    if isinstance(error, ProviderError) and error.status is not None:
        return _keep_status(error, error.status, wire)
    if isinstance(error, Malformed):
        return _MALFORMED.get(error.status, wire)
    if isinstance(error, NoEligibleWorker) and error.is_temporary:
        return Wire(503, "server_error", "no_worker_available", is_worth_retrying=True)
    if isinstance(error, BudgetExhausted) and error.is_temporary:
        return Wire(429, "rate_limit_error", "rate_limit_exceeded", is_worth_retrying=True)
    return wire


def _keep_status(error: ProviderError, status: int, wire: Wire) -> Wire:
    """A provider's own status, where it is about the request and not about our standing with the provider."""
    if status == 429:
        return Wire(429, "rate_limit_error", error.code or "rate_limit_exceeded", is_worth_retrying=True)
    if status == 503:
        return Wire(503, "server_error", error.code or wire.code, is_worth_retrying=True)
    if isinstance(error, ProviderRejected) and not error.blames_worker and 400 <= status < 500:
        return Wire(status, "invalid_request_error", error.code or wire.code)
    return wire


def find_label(error: RipienoError) -> str:
    """Return the code under which an error is counted: one of ours, whatever a provider says."""
    code = find_wire(error).code
    return code if code in CODES else next(TABLE[kind].code for kind in type(error).__mro__ if kind in TABLE)


def is_hidden(error: RipienoError) -> bool:
    """Whether a client is not told the message of this error, so that the log must have it."""
    return isinstance(error, tuple(HIDDEN))


def tell(error: RipienoError) -> str:
    """What happened, and what to do about it: no path, host or port of the gateway or of what stands behind it."""
    if is_hidden(error):
        return f"{next(HIDDEN[kind] for kind in type(error).__mro__ if kind in HIDDEN)}. {LOGGED}"
    said = error.message if error.hint is None else f"{error.message}. {error.hint}"
    is_of_caller = isinstance(error, ProviderRejected) and not error.blames_worker
    if isinstance(error, ProviderError | DataError | NoVerdict) and not is_of_caller:
        return hide_places(said)
    return said


def hide_places(text: str) -> str:
    """A text without the URLs, addresses and paths that stand in it."""
    return _PLACES.sub("(hidden)", text)


def make_body(error: RipienoError, *, request: str) -> dict[str, JsonValue]:
    """Make OpenAI's error object, all four keys present, with the id of the request beside it."""
    wire = find_wire(error)
    param = error.param if isinstance(error, InvalidTask) else None
    told = {"message": tell(error), "type": wire.type, "param": param, "code": wire.code}
    return {"error": told, "request_id": request}


def make_error_headers(error: RipienoError) -> dict[str, str]:
    """Whether and when to try again, as OpenAI's clients read it."""
    is_worth_retrying = find_wire(error).is_worth_retrying
    headers = {"x-should-retry": "true" if is_worth_retrying else "false"}
    wait = error.retry_after_s if isinstance(error, RateLimited | ProviderError) else None
    if wait is None and is_worth_retrying:
        wait = USUAL_WAIT_S
    if isinstance(error, WrongMethod):
        headers["allow"] = ", ".join(error.allowed)
    if wait is not None:
        headers |= {"retry-after": str(max(1, round(wait))), "retry-after-ms": str(round(wait * 1000))}
    return headers
