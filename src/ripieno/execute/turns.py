"""Turns: steps that are chosen one by one, each after the result before it."""

from ripieno.domain import Op, Turns
from ripieno.errors import InvalidPlan, ProviderError, RipienoError
from ripieno.execute.director import Director, Turn
from ripieno.execute.plans import StepMaker, check_step, is_whole
from ripieno.execute.steps import Steps
from ripieno.providers import CallAnswered


async def run_turns(workflow: Turns, steps: Steps, director: Director) -> CallAnswered:
    """Do turn after turn until a verifier or the director accepts an answer, or no turns are left.

    A failed worker has used its turn, and the director chooses the next step. If the last turn failed, an earlier
    result is the answer only if its step was to answer the whole task.

    Raises:
        ProviderError: the last turn failed, or all of them.
        InvalidPlan: a step cannot be done, or the director chose none.
    """
    maker = StepMaker(steps, is_answer=lambda place, step: is_whole(step) or place == workflow.most - 1)
    seen: list[Turn] = []
    last: CallAnswered | RipienoError = InvalidPlan("the director chose no step", step=1)
    for place in range(workflow.most):
        step = await director.choose(seen)
        if step is None:
            break
        check_step(step, place, steps.pool)
        try:
            result = await maker.make(place, step)
        except ProviderError as failed:
            last = failed
            seen.append(Turn(step=step, worker=step.worker, text=""))
            continue
        is_verdict = step.op is Op.VERIFY
        if maker.accepted is not None:
            return maker.accepted
        if not is_verdict:
            last = result
        is_refused = place in maker.refused
        text = "" if is_verdict and not is_refused else maker.texts[place]
        seen.append(Turn(step=step, worker=result.call.worker, text=text, accepts=False if is_refused else None))
    if isinstance(last, RipienoError):
        raise last
    return last
