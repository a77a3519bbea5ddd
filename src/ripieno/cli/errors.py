"""Errors on the command line: two lines on stderr, and the exit code of the class."""

import click

from ripieno.errors import (
    ApprovalDenied,
    ApprovalPending,
    ConfigError,
    DataError,
    GateRefused,
    InDoubt,
    InvalidPlan,
    InvalidTask,
    LedgerCorrupt,
    LedgerTooNew,
    MemoryUnavailable,
    NoEligibleWorker,
    ProviderError,
    RateLimited,
    RipienoError,
)

FAILED, WRONG_USAGE, WRONG_SETUP, OUT_OF_REACH, GATE_REFUSED = 1, 2, 3, 4, 5

_CODES: tuple[tuple[type[RipienoError], int], ...] = (
    (InvalidTask, WRONG_USAGE),
    (DataError, WRONG_USAGE),
    (ConfigError, WRONG_SETUP),
    (LedgerTooNew, WRONG_SETUP),
    (LedgerCorrupt, WRONG_SETUP),
    (MemoryUnavailable, WRONG_SETUP),
    (NoEligibleWorker, WRONG_SETUP),
    (ProviderError, OUT_OF_REACH),
    (RateLimited, OUT_OF_REACH),
    (GateRefused, GATE_REFUSED),
    (InvalidPlan, WRONG_USAGE),
    (ApprovalPending, GATE_REFUSED),
    (ApprovalDenied, GATE_REFUSED),
    (InDoubt, GATE_REFUSED),
)


def report(error: Exception) -> int:
    """Print an error on stderr, and return its exit code. Any other error than a RipienoError is raised again."""
    if not isinstance(error, RipienoError):
        raise error
    click.echo(f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
