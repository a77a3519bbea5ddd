"""One answer against the grader of its task."""

from collections.abc import Mapping
from typing import assert_never

from ripieno.domain import Answer, Task, Verdict
from ripieno.domain.grader import Choice, Exact, External, Grader, JsonSchema, Judge, Numeric, Recorded, UnitTests
from ripieno.errors import ConfigError
from ripieno.verify.external import Verifier
from ripieno.verify.judge import JudgeVerifier
from ripieno.verify.sandbox import check_tests
from ripieno.verify.schema import check_schema
from ripieno.verify.text import check_choice, check_exact, check_numeric


class Grading:
    """Holds the verifiers that need something from outside: plugins, and the judge."""

    def __init__(self, verifiers: Mapping[str, Verifier], *, judge: JudgeVerifier | None = None) -> None:
        self._verifiers = verifiers
        self._judge = judge

    async def grade(self, grader: Grader, task: Task, answer: Answer, *, author: str) -> Verdict:
        """Find out what an answer is worth.

        Raises:
            ConfigError: the grader needs a verifier or a judge that is not configured.
            ProviderError: the judge failed.
        """
        match grader:
            case Exact():
                return check_exact(grader, answer.text)
            case Numeric():
                return check_numeric(grader, answer.text)
            case Choice():
                return check_choice(grader, answer.text)
            case JsonSchema():
                return check_schema(grader, answer.text)
            case UnitTests():
                return await check_tests(grader, answer.text)
            case Judge():
                return await self._find_judge().check(grader, task, answer.text, author=author)
            case External(verifier=name, facts=facts):
                return self._find(name).check(facts, answer.text)
            case Recorded():
                return _check_recorded(answer)
            case _:
                assert_never(grader)

    def _find(self, name: str) -> Verifier:
        if name not in self._verifiers:
            raise ConfigError(f"no verifier is called {name!r}", hint="`ripieno plugins list` shows those installed")
        return self._verifiers[name]

    def _find_judge(self) -> JudgeVerifier:
        if self._judge is None:
            raise ConfigError("a task wants a judge, and none is configured", key="profile.judge")
        return self._judge


def _check_recorded(answer: Answer) -> Verdict:
    if answer.recorded_quality is None:
        raise ConfigError("the grader 'recorded' only fits replay workers")
    return Verdict(verifier="recorded", quality=answer.recorded_quality)
