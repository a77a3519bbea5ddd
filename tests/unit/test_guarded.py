"""Failing verifier plugins: no verdict, whatever goes wrong, and no effect on others."""

import threading
from collections.abc import Mapping

import pytest

from ripieno.domain import Answer, JsonValue, Task, Verdict
from ripieno.domain.grader import Agreement, External
from ripieno.errors import ConfigError, NoVerdict, ProviderTimeout
from ripieno.verify import Grading
from ripieno.verify.external import Guarded

TASK = Task.from_text("x")


class Plugin:
    """Does what the test sets."""

    def __init__(self, found: object) -> None:
        self.found = found

    def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
        if isinstance(self.found, Exception):
            raise self.found
        if isinstance(self.found, float):
            return Verdict(verifier="own", quality=self.found)
        return self.found  # type: ignore[return-value]  # a plugin may return anything


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (RuntimeError("boom"), "failed: RuntimeError: boom"),
        (ProviderTimeout("too late", worker="w"), "failed: too late"),
        (float("nan"), "quality must be in"),
        (11.0, "quality must be in"),
        (-0.1, "quality must be in"),
        (None, "returned NoneType, not a Verdict"),
        ("1.0", "returned str, not a Verdict"),
    ],
)
async def test_a_plugin_that_fails_gives_no_verdict(found: object, told: str) -> None:
    grading = Grading({"own": Plugin(found)})
    with pytest.raises(NoVerdict, match=told) as caught:
        await grading.grade(External(verifier="own", facts={}), TASK, Answer(text="a"), author="w")
    assert caught.value.verifier == "own"
    with pytest.raises(NoVerdict, match=told):
        await grading.check(External(verifier="own", facts={}), TASK, Answer(text="a"), author="w", ask=never_asked)


async def never_asked(worker: str, task: Task) -> Answer:
    raise AssertionError(worker)


async def test_a_setup_error_of_a_plugin_passes_through() -> None:
    grading = Grading({"own": Plugin(ConfigError("no dictionary"))})
    with pytest.raises(ConfigError, match="no dictionary"):
        await grading.grade(External(verifier="own", facts={}), TASK, Answer(text="a"), author="w")


async def test_a_plugin_that_never_returns_times_out() -> None:
    released = threading.Event()

    class Stuck:
        def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
            released.wait()
            return Verdict(verifier="stuck", quality=1.0)

    guarded = Guarded("stuck", Stuck(), timeout_s=0.01)
    with pytest.raises(NoVerdict, match=r"took over 0\.01 s"):
        await guarded.check({}, "a")
    released.set()
    patient = Guarded("good", Plugin(0.5))
    assert (await patient.check({}, "a")).quality == 0.5


@pytest.mark.parametrize(
    "theirs",
    [Answer(text=""), Answer(text="  \n"), Answer(text="The answer is 4", finish_reason="length")],
    ids=["empty", "blank", "cut_off"],
)
async def test_an_incomplete_answer_of_a_peer_gives_no_verdict(theirs: Answer) -> None:
    async def ask(worker: str, task: Task) -> Answer:
        return theirs

    with pytest.raises(NoVerdict, match="is empty or cut off"):
        await Grading({}).check(Agreement(peer="p"), TASK, Answer(text=""), author="w", ask=ask)  # type: ignore[arg-type]  # ids
