"""The states of a run are values: each wrong write is a type error, and mypy reports an `ignore` that hides none."""

from typing import assert_never, assert_type

from ripieno.domain import Answer, Call, Run
from ripieno.errors import ApprovalPending, ProviderError
from ripieno.execute import Answered, CallRecorder, Ended, Failed, Started, Suspended
from ripieno.orchestrator import Orchestrator
from ripieno.providers import CallAnswered, CallFailed, CallResult


def tell(ended: Ended) -> str:
    match ended:
        case Answered(answer=answer):
            assert_type(answer, Answer)
            return answer.text
        case Failed(error=error, run=run):
            assert_type(error, BaseException)
            assert_type(run, Run)
            return str(error)
        case Suspended(pending=pending):
            assert_type(pending, ApprovalPending)
            return pending.step
        case _:
            assert_never(ended)


def tell_call(result: CallResult) -> str:
    match result:
        case CallAnswered(answer=answer):
            return answer.text
        case CallFailed(error=error):
            assert_type(error, ProviderError)
            return error.message
        case _:
            assert_never(result)


async def use(orchestrator: Orchestrator, started: Started) -> None:
    assert_type(await orchestrator.finish(started), Answered)
    assert_type(started.recorder.ended, Ended | None)
    assert_type(started.recorder.calls, tuple[Call, ...])


def write_from_outside(started: Started, answered: Answered, failed: Failed, call: Call) -> None:
    started.decision = answered.decision  # type: ignore[misc]  # a run keeps its decision
    started.recorder = CallRecorder()  # type: ignore[misc]  # and its recorder
    started.recorder.calls.append(call)  # type: ignore[attr-defined]  # calls are read, and added by `record`
    started.recorder.calls = (call,)  # type: ignore[misc]  # they are not replaced
    started.recorder.ended = answered  # type: ignore[misc]  # a run is ended by `end`, once
    answered.run = failed.run  # type: ignore[misc]  # an end is final
    failed.answer  # type: ignore[attr-defined]  # noqa: B018  # a failed run has no answer
    answered.error  # type: ignore[attr-defined]  # noqa: B018  # and an answered one no error
    Answered(started=started, run=failed.run, verdict=None)  # type: ignore[call-arg]  # an answer is no option
    CallFailed(call=call)  # type: ignore[call-arg]  # nor is an error


def test_the_states_are_told_apart() -> None:
    assert tell(Suspended(pending=ApprovalPending("r", step="2", worker="a", expires_at=0.0))) == "2"
    assert {each.__name__ for each in (Answered, Failed, Suspended)} == {"Answered", "Failed", "Suspended"}
    assert all(map(callable, (tell_call, use, write_from_outside)))
