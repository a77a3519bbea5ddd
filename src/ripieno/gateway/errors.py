"""The one table from error classes to HTTP: status, type and code as OpenAI's clients know them."""

from dataclasses import dataclass

from ripieno.domain import JsonValue
from ripieno.errors import (
    Abstained,
    BadAnswer,
    BudgetExhausted,
    CheckpointError,
    ConfigError,
    DataError,
    GateRefused,
    InvalidTask,
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerTooNew,
    NoEligibleWorker,
    NotFound,
    ProviderError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnreachable,
    RateLimited,
    RipienoError,
)
from ripieno.gateway.wire import UnknownModel


@dataclass(frozen=True, slots=True)
class Wire:
    """How an error stands on the wire."""

    status: int
    type: str
    code: str
    is_worth_retrying: bool = False


TABLE: dict[type[RipienoError], Wire] = {
    RipienoError: Wire(500, "server_error", "internal_error"),
    InvalidTask: Wire(400, "invalid_request_error", "invalid_request"),
    UnknownModel: Wire(404, "invalid_request_error", "model_not_found"),
    DataError: Wire(400, "invalid_request_error", "invalid_data"),
    ConfigError: Wire(500, "server_error", "configuration_error"),
    CheckpointError: Wire(500, "server_error", "configuration_error"),
    NoEligibleWorker: Wire(400, "invalid_request_error", "no_eligible_worker"),
    Abstained: Wire(422, "invalid_request_error", "abstained"),
    NotFound: Wire(404, "invalid_request_error", "not_found"),
    RateLimited: Wire(429, "rate_limit_error", "rate_limit_exceeded", True),
    ProviderError: Wire(502, "server_error", "provider_error", True),
    ProviderTimeout: Wire(504, "server_error", "provider_timeout", True),
    ProviderUnreachable: Wire(502, "server_error", "provider_unreachable", True),
    ProviderRejected: Wire(502, "server_error", "provider_rejected"),
    BadAnswer: Wire(502, "server_error", "bad_answer", True),
    LedgerError: Wire(503, "server_error", "ledger_unavailable", True),
    LedgerCorrupt: Wire(503, "server_error", "ledger_unavailable"),
    LedgerTooNew: Wire(503, "server_error", "ledger_unavailable"),
    LedgerFull: Wire(503, "server_error", "ledger_full", True),
    BudgetExhausted: Wire(402, "insufficient_quota", "budget_exhausted"),
    GateRefused: Wire(409, "invalid_request_error", "gate_refused"),
}


def find_wire(error: RipienoError) -> Wire:
    """How this error stands on the wire: the entry of its own class, or of the nearest above."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def make_body(error: RipienoError) -> dict[str, JsonValue]:
    """OpenAI's error object, all four keys present."""
    wire = find_wire(error)
    message = error.message if error.hint is None else f"{error.message}. {error.hint}"
    param = error.param if isinstance(error, InvalidTask) else None
    return {"error": {"message": message, "type": wire.type, "param": param, "code": wire.code}}


def make_error_headers(error: RipienoError) -> dict[str, str]:
    """Whether and when to try again, as OpenAI's clients read it."""
    headers = {"x-should-retry": "true" if find_wire(error).is_worth_retrying else "false"}
    wait = error.retry_after_s if isinstance(error, RateLimited | ProviderError) else None
    if wait is not None:
        headers |= {"retry-after": str(max(1, round(wait))), "retry-after-ms": str(round(wait * 1000))}
    return headers
