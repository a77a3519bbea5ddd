"""Verifier plugins: named checks with facts of their own."""

import asyncio
import math
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Protocol

from ripieno.domain import JsonValue, Verdict
from ripieno.errors import NoVerdict, ProviderError, RipienoError
from ripieno.plugins import ForeignCall

EXTERNAL_S = 60.0
"""Seconds that a plugin may take for one answer; later it has no verdict, and its thread is left to itself."""
_AUTHOR = "report it to the author of the plugin, or mend its facts"


class Verifier(Protocol):
    """Checks an answer against facts that only this verifier understands."""

    def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
        """Find out what the answer is worth."""
        ...


class ReasoningGymVerifier:
    """Scores an answer with the generator that made the task (package `reasoning-gym`)."""

    def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
        """Score as the generator does; under 0.99 is not accepted, as its partial credit rewards form."""
        import reasoning_gym

        from ripieno.verify.text import final_answer

        data = reasoning_gym.create_dataset(str(facts["dataset"]), seed=_int(facts["seed"]), size=_int(facts["size"]))
        entry = data[_int(facts["index"])]
        scores = []
        for candidate in (text.strip(), final_answer(text).rstrip(". ")):
            try:
                scores.append(float(data.score_answer(answer=candidate, entry=entry)))
            except (ValueError, TypeError, KeyError, IndexError):
                scores.append(0.0)
        if not all(math.isfinite(score) for score in scores):
            raise NoVerdict(f"the generator scored {scores}, not a number", verifier="reasoning_gym")
        return Verdict(verifier="reasoning_gym", quality=float(max(scores) >= 0.99), detail=f"scored {max(scores):.2f}")


class Guarded:
    """Calls one plugin: a call at a time, in a thread, within its time, and whatever it raises is no verdict.

    Args:
        name: of the plugin.
        verifier: the plugin.
        timeout_s: seconds that one answer may take.
    """

    def __init__(self, name: str, verifier: Verifier, *, timeout_s: float = EXTERNAL_S) -> None:
        self._name = name
        self._verifier = verifier
        self._timeout_s = timeout_s
        self._turn = threading.Lock()

    async def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
        """Have an answer checked.

        Raises:
            ConfigError: the plugin says that the setup is wrong.
            NoVerdict: it failed, took too long, or returned something that is no verdict.
        """
        done: Future[object] = Future()
        done.set_running_or_notify_cancel()
        work = threading.Thread(
            target=self._work, args=(done, facts, text), name=f"ripieno-verifier-{self._name}", daemon=True
        )
        work.start()
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await asyncio.wrap_future(done)
        except TimeoutError as error:
            raise self._fail(f"took over {self._timeout_s:g} s") from error
        except ProviderError as error:
            raise self._fail(f"failed: {error.message}") from error
        if not isinstance(found, Verdict):
            raise self._fail(f"returned {type(found).__name__}, not a Verdict")
        return found

    def _work(self, done: "Future[object]", facts: Mapping[str, JsonValue], text: str) -> None:
        try:
            with ForeignCall() as fault, self._turn:
                done.set_result(self._verifier.check(facts, text))
            if fault.text:
                done.set_exception(self._fail(f"failed: {fault.text}"))
        except RipienoError as error:
            done.set_exception(error)

    def _fail(self, how: str) -> NoVerdict:
        return NoVerdict(f"verifier {self._name!r} {how}", verifier=self._name, hint=_AUTHOR)


def _int(value: JsonValue) -> int:
    if not isinstance(value, int):
        raise TypeError(f"must be a whole number, got {value!r}")
    return value
