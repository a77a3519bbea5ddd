"""Cascade, Verified and Ensemble: workflows that make several calls for one answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from ripieno.domain import Cascade, Ensemble, Merge, Task, Verified, WorkerId
from ripieno.domain.grader import Check, Judge, find_asked
from ripieno.domain.objective import REMOVED_MODES
from ripieno.domain.workflow import find_removed_mode
from ripieno.errors import InvalidPlan, NoVerdict, ProviderError, ProviderRejected, RipienoError
from ripieno.execute.prompts import SYNTHESIZE, make_repair, show_others
from ripieno.execute.steps import UNKNOWN, Steps
from ripieno.providers import CallAnswered

SAMPLE_TEMPERATURE = 0.7
"""Temperature of several samples of one worker, if the task states none.

Source:
    Wang et al. (2023), Self-consistency: 0.5 to 0.7, hardly any difference between them.
"""
MOST_TRIED = 3
"""Workers whose answers are checked, one after the other, before the best answer is taken."""
MOST_UNCHECKED = 2
"""Answers without a verdict before the search ends. If the verifier is down, more answers only cost money."""


async def run_cascade(workflow: Cascade, steps: Steps) -> CallAnswered:
    """Call workers from small to large until an answer passes. An unchecked answer moves on to the larger worker."""
    last = len(workflow.stages) - 1
    for place, stage in enumerate(workflow.stages):
        name = str(place + 1)
        if place == last:
            return await steps.ask(name, (stage, *workflow.fallbacks), steps.task, is_last=True)
        try:
            called = await steps.ask(name, (stage,), steps.task)
        except ProviderError:
            continue
        steps.keep(called, 0.0)
        try:
            verdict = await steps.check(f"{name}.check", workflow.check, called)
        except NoVerdict:
            steps.keep(called, UNKNOWN)
            continue
        steps.keep(called, verdict.quality)
        if verdict.quality >= workflow.threshold:
            return called
    raise AssertionError("a cascade has a last stage")


async def run_verified(workflow: Verified, steps: Steps) -> CallAnswered:
    """Call, check, repair, and call the next worker. If no answer passes, return the best one.

    An unchecked answer is not repaired, because its faults are unknown: the next worker is called. The search ends
    after `MOST_UNCHECKED` of them.

    Raises:
        InvalidPlan: the only worker is the judge.
        NoVerdict: no answer passed, and the best one could not be checked. It is returned, and the run says so.
    """
    unknown: list[NoVerdict] = []
    asked = find_asked(workflow.check)
    has_effects = workflow.worker in steps.pool and steps.pool[workflow.worker].has_effects
    others = () if has_effects else steps.find_fallbacks(workflow.fallbacks)
    tried = [worker for worker in dict.fromkeys((workflow.worker, *others)) if worker != asked]
    error: RipienoError = InvalidPlan(f"{asked!r} checks the answers, and no other worker can answer")
    for place, worker in enumerate(tried[:MOST_TRIED]):
        task = steps.task
        for attempt in range(1 + workflow.repairs if _can_repair(worker, steps) else 1):
            name = f"{place + 1}" if attempt == 0 else f"{place + 1}r{attempt}"
            try:
                called = await steps.ask(name, (worker,), task)
            except ProviderError as failed:
                error = failed
                break
            steps.keep(called, 0.0)
            try:
                verdict = await steps.check(f"{name}.check", workflow.check, called)
            except NoVerdict as failed:
                steps.keep(called, UNKNOWN)
                unknown.append(failed)
                break
            steps.keep(called, verdict.quality)
            if verdict.quality >= workflow.threshold:
                return called
            task = make_repair(steps.task, answer=called.answer.text, fault=verdict.detail)
        if len(unknown) >= MOST_UNCHECKED:
            break
    if unknown and steps.best is not None and steps.best.quality <= UNKNOWN:
        raise unknown[-1]
    if steps.best is not None:
        return steps.best.result
    raise error


def _can_repair(worker: WorkerId, steps: Steps) -> bool:
    """Return whether a worker may be called again: a tool repeats its answer, and effects happen only once."""
    return worker not in steps.pool or not (steps.pool[worker].is_tool or steps.pool[worker].is_restricted)


async def run_ensemble(workflow: Ensemble, steps: Steps) -> CallAnswered:
    """Request several answers, and combine them into one.

    Raises:
        InvalidPlan: an earlier version recorded a mode that no longer exists.
    """
    removed = find_removed_mode(workflow)
    if removed is not None:
        instead = REMOVED_MODES[removed].value
        raise InvalidPlan(f"the workflow {removed!r} was removed", hint=f"ask again, with {instead!r} or 'plan'")
    match workflow.merge:
        case Merge.VOTE:
            return await _vote(workflow, steps)
        case Merge.BEST:
            assert workflow.check is not None
            return await _take_best(workflow, workflow.check, steps)
        case Merge.SYNTHESIZE:
            assert workflow.arbiter is not None
            said = await _gather(workflow, steps, range(len(workflow.members)))
            texts = [called.answer.text for called in said]
            task = show_others(steps.task, texts, asks=SYNTHESIZE)
            return await steps.ask("merge", (workflow.arbiter, *workflow.fallbacks), task, is_last=True)


async def _vote(workflow: Ensemble, steps: Steps) -> CallAnswered:
    """Return the most frequent answer of the members. Stop calling once the rest cannot change it."""
    size = len(workflow.members)
    first = size // 2 + 1
    said = await _gather(workflow, steps, range(first))
    for place in range(first, size):
        leader, lead = _find_majority(said, steps) if said else (None, 0)
        if leader is not None and lead > size - place:
            return leader
        said += await _gather(workflow, steps, range(place, place + 1), may_fail=bool(said))
    return _find_majority(said, steps)[0]


def _find_majority(said: Sequence[CallAnswered], steps: Steps) -> tuple[CallAnswered, int]:
    """Return the most frequent answer, the earlier one on ties, and its lead in votes."""
    votes: dict[str, list[CallAnswered]] = {}
    for called in said:
        votes.setdefault(steps.checker.reduce(called.answer.text), []).append(called)
    ranked = sorted(votes.values(), key=len, reverse=True)
    lead = len(ranked[0]) - (len(ranked[1]) if len(ranked) > 1 else 0)
    steps.keep(ranked[0][0], len(ranked[0]) / len(said))
    return ranked[0][0], lead


async def _take_best(workflow: Ensemble, check: Check, steps: Steps) -> CallAnswered:
    """Return the best answer by a check. A judge compares all; any other check stops at the first that passes."""
    if isinstance(check, Judge):
        said = await _gather(workflow, steps, range(len(workflow.members)))
        return said[await steps.prefer("judge", check, said)] if len(said) > 1 else said[0]
    for place in range(len(workflow.members)):
        said = await _gather(workflow, steps, range(place, place + 1), may_fail=True)
        for called in said:
            steps.keep(called, 0.0)
            try:
                verdict = await steps.check(f"{place + 1}.check", check, called)
            except NoVerdict:
                steps.keep(called, UNKNOWN)
                continue
            steps.keep(called, verdict.quality)
            if verdict.quality >= 1.0:
                return called
    if steps.best is not None:
        return steps.best.result
    others = steps.find_fallbacks(workflow.fallbacks) or steps.find_fallbacks(workflow.members)
    if not others:
        raise ProviderRejected("every member of the ensemble failed", worker=workflow.worker)
    return await steps.ask("instead", others, steps.task)


async def _gather(workflow: Ensemble, steps: Steps, places: range, *, may_fail: bool = False) -> list[CallAnswered]:
    """Call some members concurrently, and return their answers without those of failed members.

    Raises:
        ProviderError: all of them failed.
    """
    members = workflow.members

    async def ask(place: int) -> CallAnswered | RipienoError:
        sample = _vary(steps.task, members, place, steps)
        try:
            return await steps.ask(str(place + 1), (members[place],), sample)
        except RipienoError as error:
            return error

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(place)) for place in places]
    found = [each.result() for each in asked]
    said = [each for each in found if isinstance(each, CallAnswered)]
    for called in said:
        steps.keep(called, 0.0)
    for each in found:
        if isinstance(each, RipienoError) and not isinstance(each, ProviderError):
            raise each
    if not said and not may_fail:
        others = steps.find_fallbacks(workflow.fallbacks)
        if others and steps.best is None:
            return [await steps.ask("instead", others, steps.task)]
        raise next(each for each in found if isinstance(each, ProviderError))
    return said


def _vary(task: Task, members: Sequence[WorkerId], place: int, steps: Steps) -> Task:
    """Return the task as one of several samples of the same worker, with a temperature and its own seed."""
    worker = members[place]
    nth = members[:place].count(worker)
    if members.count(worker) == 1 or steps.pool[worker].is_tool:
        return task
    return replace(task, params={"temperature": SAMPLE_TEMPERATURE, **task.params, "seed": nth})
