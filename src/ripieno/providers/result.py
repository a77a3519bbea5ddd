"""Result: the end of one exchange with a worker."""

from dataclasses import dataclass
from typing import TypeAlias

from ripieno.domain import Answer, Call, Worker
from ripieno.errors import ProviderError


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswered:
    """A finished exchange with an answer."""

    call: Call
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed:
    """A finished exchange without an answer, which may be a cancelled one."""

    call: Call
    error: ProviderError


CallResult: TypeAlias = CallAnswered | CallFailed


def require_answer(result: CallResult) -> CallAnswered:
    """Return an exchange with an answer.

    Raises:
        ProviderError: the exchange has no answer.
    """
    match result:
        case CallAnswered():
            return result
        case CallFailed(error=error):
            raise error


class LiveCall:
    """A streamed exchange: iterate over the pieces of `Caller.stream`, then read its result."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.ended: CallResult | None = None
        """The finished exchange, once its pieces have ended."""

    def result(self) -> CallResult:
        """Return the finished exchange.

        Raises:
            RuntimeError: its pieces have not ended.
        """
        if self.ended is None:
            raise RuntimeError("the stream has not ended")
        return self.ended
