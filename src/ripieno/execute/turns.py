"""Turns: steps that are chosen one by one, each after the result before it."""

from ripieno.domain import Op, Turns
from ripieno.errors import ProviderError
from ripieno.execute.director import Director, Turn
from ripieno.execute.plans import StepMaker, check_step, is_whole
from ripieno.execute.steps import Steps
from ripieno.providers import Called


async def run_turns(workflow: Turns, steps: Steps, director: Director) -> Called:
    """Turn after turn, until a verifier or the director accepts an answer, or there are no turns left.

    A worker that fails has had its turn: the director chooses who goes on. Where the last turn failed, what was found
    before it is only an answer if it was asked for as one.

    Raises:
        ProviderError: the last turn failed, or all of them.
    """
    maker = StepMaker(steps, is_answer=lambda place, step: is_whole(step) or place == workflow.most - 1)
    seen: list[Turn] = []
    error: ProviderError | None = None
    answer: Called | None = None
    for place in range(workflow.most):
        step = await director.choose(seen)
        if step is None:
            break
        check_step(step, place, steps.pool)
        try:
            called = await maker.make(place, step)
        except ProviderError as failed:
            error = failed
            seen.append(Turn(step=step, worker=step.worker, text=""))
            continue
        is_verdict = step.op is Op.VERIFY
        if maker.accepted is not None:
            return maker.accepted
        if not is_verdict:
            answer, error = called, None
        is_refused = place in maker.refused
        text = "" if is_verdict and not is_refused else maker.texts[place]
        seen.append(Turn(step=step, worker=called.call.worker, text=text, accepts=False if is_refused else None))
    if error is not None:
        raise error
    assert answer is not None, "the first choice of a director is never None"
    return answer
