"""Checks one answer against its task's grader, or against the check of a running workflow."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import assert_never

from ripieno.domain import Answer, Task, Verdict, WorkerId
from ripieno.domain.grader import (
    Agreement,
    Check,
    Exact,
    External,
    Grader,
    Human,
    JsonSchema,
    Judge,
    MultipleChoice,
    Numeric,
    Pattern,
    Recorded,
    UnitTests,
)
from ripieno.errors import ConfigError, NoVerdict, ProviderError, ProviderRejected
from ripieno.plugins import ForeignCall
from ripieno.providers.base import Ask
from ripieno.verify.external import Guarded, Verifier
from ripieno.verify.judge import choose_answer, grade_answer
from ripieno.verify.schema import check_schema
from ripieno.verify.text import check_agreement, check_choice, check_exact, check_numeric, check_pattern, reduce_answer
from ripieno.verify.trust import Trust, calibrate
from ripieno.verify.unit_tests import check_tests


class Grading:
    """Checks answers with the plugins, the judge and the workers it was given.

    Args:
        judge: judge for graders that name none.
        trusted: calibration of each verifier, which only workflows use: a measurement is not a forecast.
    """

    def __init__(
        self,
        verifiers: Mapping[str, Verifier],
        *,
        judge: WorkerId | None = None,
        ask: Ask | None = None,
        trusted: Mapping[str, Trust] | None = None,
    ) -> None:
        self.trusted = trusted or {}
        self._verifiers = {name: Guarded(name, verifier) for name, verifier in verifiers.items()}
        self._judge = judge
        self._ask = ask or _refuse

    async def grade(self, grader: Grader, task: Task, answer: Answer, *, author: WorkerId | str) -> Verdict:
        """Grade an answer.

        Raises:
            ConfigError: the grader needs a verifier, a judge or a jail that is missing.
            NoVerdict: the verifier or judge failed, so the quality is unknown.
        """
        if isinstance(grader, Recorded):
            return _check_recorded(answer)
        return await self._verify(grader, task, answer, author=author, ask=self._ask)

    async def check(self, check: Check, task: Task, answer: Answer, *, author: WorkerId | str, ask: Ask) -> Verdict:
        """Check an answer while its task runs. Workers are called through `ask`.

        Returns:
            The verdict; its quality is the probability of acceptance if the verifier is calibrated.

        Raises:
            ConfigError: the check needs a verifier, a judge or a jail that is missing.
            NoVerdict: the verifier or a called worker failed, so the quality is unknown.
        """
        return calibrate(await self._verify(check, task, answer, author=author, ask=ask), self.trusted)

    async def _verify(self, check: Check, task: Task, answer: Answer, *, author: WorkerId | str, ask: Ask) -> Verdict:
        match check:
            case UnitTests() | Pattern() | Exact() | Numeric() | MultipleChoice() | JsonSchema():
                return await _check_alone(check, answer.text)
            case Judge():
                judge = self._find_judge(check)
                return await grade_answer(check, task, answer.text, judge=judge, author=author, ask=ask)
            case Agreement(peer=peer):
                return await _compare(answer, task, peer=peer, ask=ask)
            case External(verifier=name, facts=facts):
                return await self._find(name).check(facts, answer.text)
            case Human():
                raise ConfigError("only workflows can ask a human")
            case _:
                assert_never(check)

    async def prefer(
        self, check: Check, task: Task, answers: Sequence[str], *, authors: Sequence[str], ask: Ask
    ) -> int:
        """Return the place of the answer that a judge prefers.

        Raises:
            ConfigError: the check is not a judge, or no judge is configured.
            NoVerdict: the judge failed, or is an author.
        """
        if not isinstance(check, Judge):
            raise ConfigError(f"only a judge can compare answers, not {type(check).__name__}")
        return await choose_answer(check, task, answers, judge=self._find_judge(check), authors=authors, ask=ask)

    def reduce(self, text: str) -> str:
        """Return the final answer of a text in canonical form."""
        return reduce_answer(text)

    def _find(self, name: str) -> Guarded:
        if name not in self._verifiers:
            raise ConfigError(f"there is no verifier {name!r}", hint="`ripieno doctor --plugins` lists those installed")
        return self._verifiers[name]

    def _find_judge(self, check: Judge) -> WorkerId:
        judge = check.worker or self._judge
        if judge is None:
            raise ConfigError("a task needs a judge, and none is configured", key="profile.judge")
        return judge


async def _compare(answer: Answer, task: Task, *, peer: WorkerId, ask: Ask) -> Verdict:
    """Compare an answer with that of another worker.

    Raises:
        NoVerdict: the other worker failed, or gave no complete answer.
    """
    try:
        theirs = await ask(peer, task)
    except ProviderError as error:
        raise NoVerdict(f"{peer!r} failed: {error.message}", verifier="agreement", hint=error.hint) from error
    if not theirs.text.strip() or theirs.finish_reason == "length":
        raise NoVerdict(f"the answer of {peer!r} is empty or cut off", verifier="agreement")
    return check_agreement(answer.text, theirs.text, peer=peer)


async def _check_alone(
    check: UnitTests | Pattern | Exact | Numeric | MultipleChoice | JsonSchema, text: str
) -> Verdict:
    """Check a text without calling a worker.

    Raises:
        NoVerdict: the check itself failed, for example on an invalid schema.
    """
    with ForeignCall() as fault:
        match check:
            case UnitTests():
                return await check_tests(check, text)
            case _:
                return await asyncio.to_thread(_check_text, check, text)
    name = type(check).__name__.lower()
    raise NoVerdict(f"the {name} check failed: {fault.text}", verifier=name, hint="fix the task's grader")


def _check_text(check: Exact | Numeric | MultipleChoice | JsonSchema | Pattern, text: str) -> Verdict:
    match check:
        case Pattern():
            return check_pattern(check, text)
        case Exact():
            return check_exact(check, text)
        case Numeric():
            return check_numeric(check, text)
        case MultipleChoice():
            return check_choice(check, text)
        case JsonSchema():
            return check_schema(check, text)
        case _:
            assert_never(check)


async def _refuse(worker: WorkerId, task: Task) -> Answer:
    raise ProviderRejected("this check cannot call workers", worker=worker)


def _check_recorded(answer: Answer) -> Verdict:
    if answer.recorded_quality is None:
        raise ConfigError("the grader 'recorded' works only with replay workers")
    return Verdict(verifier="recorded", quality=answer.recorded_quality)
