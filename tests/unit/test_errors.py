"""The error tree and its tables are complete."""

import time

import pytest

from ripieno import errors
from ripieno.cli.errors import report
from ripieno.errors import (
    ConfigError,
    GateRefused,
    InvalidTask,
    NoEligibleWorker,
    NotFound,
    ProviderError,
    ProviderRejected,
    ProviderTimeout,
    RateLimited,
    RipienoError,
)
from ripieno.gateway.errors import TABLE, find_wire, format_message, hide_places, make_error_headers, make_fault
from ripieno.wires.base import make_error_body


def all_errors() -> list[type[RipienoError]]:
    return [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, RipienoError)]


def test_the_tree_of_the_docstring_and_the_status_table_hold_every_error_class() -> None:
    for kind in all_errors():
        assert kind.__name__ in str(errors.__doc__)
        assert kind in TABLE, f"{kind.__name__} has no status"


def test_an_error_body_has_all_four_keys_and_says_what_to_do() -> None:
    fault = make_fault(InvalidTask("bad messages", param="messages", hint="send some"), request="r1")
    body = make_error_body(fault)
    assert body == {
        "error": {
            "message": "bad messages. send some",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "invalid_request",
        },
        "request_id": "r1",
    }


def test_retry_headers_give_seconds_and_milliseconds() -> None:
    headers = make_error_headers(RateLimited("slow down", retry_after_s=2.5))
    assert headers == {"x-should-retry": "true", "retry-after": "2", "retry-after-ms": "2500"}
    assert make_error_headers(NotFound("x")) == {"x-should-retry": "false"}
    assert find_wire(ProviderTimeout("late", worker="w")).status == 504


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidTask("x"), 2),
        (ConfigError("x", hint="mend it"), 3),
        (ProviderTimeout("x", worker="w"), 4),
        (GateRefused("x"), 5),
        (NotFound("x"), 1),
    ],
)
def test_each_class_has_its_exit_code_and_two_lines(
    error: RipienoError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: x\n")
    assert ("hint: mend it\n" in printed.err) == (error.hint is not None and code == 3)


def test_an_exception_that_is_no_ripieno_error_is_raised_again() -> None:
    with pytest.raises(ZeroDivisionError):
        report(ZeroDivisionError())


@pytest.mark.parametrize(
    ("error", "status", "is_blamed", "told"),
    [
        (ProviderError, 429, False, (429, "rate_limit_exceeded", True)),
        (ProviderError, 503, False, (503, "provider_error", True)),
        (ProviderError, 500, False, (502, "provider_error", True)),
        (ProviderRejected, 422, False, (422, "provider_rejected", False)),
        (ProviderRejected, 401, True, (502, "provider_rejected", False)),
    ],
)
def test_a_providers_status_is_kept_if_it_is_about_the_request(
    error: type[ProviderError], status: int, is_blamed: bool, told: tuple[int, str, bool]
) -> None:
    given = error("no", worker="w")
    given.status = status
    if isinstance(given, ProviderRejected):
        given.blames_worker = is_blamed
    wire = find_wire(given)
    assert (wire.status, wire.code, wire.is_worth_retrying) == told
    given.code = "context_length_exceeded"
    assert find_wire(given).code == ("context_length_exceeded" if wire.status == status else wire.code)


def test_a_resting_worker_makes_the_error_temporary() -> None:
    assert find_wire(NoEligibleWorker({"w": "rate_limited"}, is_temporary=True)).status == 503
    assert find_wire(NoEligibleWorker({"w": "muted"})).status == 400
    assert make_error_headers(NoEligibleWorker({}, is_temporary=True))["retry-after"] == "1"


PLACES = (
    "sqlite:////srv/data/ledger.db",
    "postgresql://router@db.internal:5432/ripieno",
    "/home/ada/.ripieno/checkpoints/7",
    "C:\\Users\\ada\\models\\x.gguf",
    "~/models/x.gguf",
    "10.1.2.3:8000",
    "localhost:11434",
    "[fd00::1]:8000",
    "llm.internal:8000",
    "http://llm.internal/v1/chat?key=x",
)
OF_THE_GATEWAY = {
    **dict.fromkeys((kind.__name__ for kind in all_errors()), "said"),
    "NotFound": "", "InvalidTask": "", "GateRefused": "", "RateLimited": "", "Overloaded": "", "Unauthorized": "",
    "Forbidden": "", "RipienoError": "", "BudgetExhausted": "", "NoEligibleWorker": "said", "Abstained": "",
    "DeadlineExceeded": "", "InvalidPlan": "", "ApprovalPending": "", "ApprovalDenied": "", "InDoubt": "",
    "NotReplayable": "", "ProviderRejected": "", "UnknownPrice": "",
}  # fmt: skip
"""Classes whose messages come from drivers, files and servers; those of the others are about the request itself."""


def make_error(kind: type[RipienoError], said: str) -> RipienoError:
    if issubclass(kind, ProviderError):
        return kind(said, worker="w", hint=said)
    if kind is errors.MissingExtra:
        return errors.MissingExtra(said, extra="data", library="pyarrow")
    if kind is errors.PredictorError:
        return errors.PredictorError(said, predictor="theirs", checkpoint="theirs-1")
    if kind is errors.NoVerdict:
        return errors.NoVerdict(said, verifier="judge", hint=said)
    if kind is errors.NoEligibleWorker:
        return errors.NoEligibleWorker({"w": said})
    if kind is errors.DataError:
        return errors.DataError(said, path=said, hint=said)
    return kind(said, hint=said)


@pytest.mark.parametrize("name", [name for name, told in OF_THE_GATEWAY.items() if told])
def test_messages_for_clients_hide_paths_hosts_and_ports(name: str) -> None:
    for place in PLACES:
        error = make_error(getattr(errors, name), f"cannot open {place!r}: it is (away) at {place}")
        told = make_fault(error, request="r1").message
        for part in ("srv", "ledger.db", "internal", "ada", "models", "10.1.2.3", "8000", "11434", "fd00", "5432"):
            assert part not in told, (place, told)
        assert str(error) != told, "the error itself keeps it for the log"


def test_a_workers_message_about_the_request_is_unchanged() -> None:
    error = ProviderRejected("'a' answered 400: see https://example.org/doc: max 4.5:1, 3/4 of /v1/models", worker="a")
    assert "https://example.org/doc" in format_message(error)
    error.blames_worker = True
    assert "example.org" not in format_message(error), "what it said about the gateway's own key or address does not"
    for plain in ("'b' answered 500: down too", "ratio 3:1 at 12:30, 3/4 done", "in 0.5 s"):
        assert hide_places(plain) == plain


def test_hiding_places_takes_time_linear_in_the_text() -> None:
    began = time.process_time()
    for text in ("a." * 50_000, "/a" * 50_000, "a-" * 50_000, "1." * 50_000, "a://" * 25_000, "[" * 100_000):
        hide_places(text)
    assert time.process_time() - began < 5, "0.1 s here, minutes if it were quadratic"
