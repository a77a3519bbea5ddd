"""Verifier plugins: named checks with their own facts."""

import asyncio
import sysconfig
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import msgspec

from ripieno.domain import JsonValue, Verdict
from ripieno.errors import ConfigError, NoVerdict, ProviderError
from ripieno.plugins import ForeignCall, require_extra
from ripieno.providers.callables import call_in_thread
from ripieno.verify.jail import JailLimits
from ripieno.verify.text import final_answer
from ripieno.verify.warm import WarmJail

EXTERNAL_S = 60.0
"""Seconds that a plugin may take for one answer. After them there is no verdict, and its thread is abandoned."""
_AUTHOR = "report it to the author of the plugin, or fix its facts"
MEMORY_BYTES = 4 * 1024 * 1024 * 1024
"""Address space of the generators, whose libraries reserve much more than they use."""
SCORE_S = 20.0
MADE = b"made "
"""Prefix of the jail's reply once the generator has made the task."""


class Verifier(Protocol):
    """Checks an answer against facts that only this verifier understands."""

    def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
        """Check an answer."""
        ...


class ReasoningGymVerifier:
    """Scores an answer with the generator that made the task (package `reasoning-gym`), in a jail.

    Some generators evaluate an answer as Python to score it.
    """

    def __init__(self) -> None:
        libraries = tuple({path for name in ("purelib", "platlib") if (path := sysconfig.get_path(name))})
        limits = JailLimits(memory_bytes=MEMORY_BYTES, libraries=libraries, may_fork=True)
        self._jail = WarmJail("reasoning_gym", seconds=SCORE_S, limits=limits)

    def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
        """Score as the generator does. A score under 0.99 is not accepted, because partial credit rewards form.

        Raises:
            ConfigError: the generator cannot make the task.
            NoJail: there is no jail here, so the quality is unknown.
            NoVerdict: scoring failed or took too long, so the quality is unknown.
            TypeError: a fact has the wrong type.
        """
        require_extra("tasks", "the verifier 'reasoning_gym'", ("reasoning_gym",))
        asked: dict[str, Any] = {
            "dataset": str(facts["dataset"]),
            **{name: _int(facts[name]) for name in ("seed", "size", "index")},
            "candidates": [text.strip(), final_answer(text).rstrip(". ")],
        }
        is_done, said = self._jail.run(msgspec.json.encode(asked))
        if not said.startswith(MADE):
            raise ConfigError(f"the task {asked['dataset'][:60]!r} is not one that the package reasoning-gym can make")
        if not is_done:
            raise NoVerdict("the scoring failed or took too long", verifier="reasoning_gym")
        score = msgspec.json.decode(said.removeprefix(MADE), type=float)
        return Verdict(verifier="reasoning_gym", quality=float(score >= 0.99), detail=f"scored {score:.2f}")


class Guarded:
    """Calls one plugin: one call at a time, in a thread, with a timeout. An exception means no verdict."""

    def __init__(self, name: str, verifier: Verifier, *, timeout_s: float = EXTERNAL_S) -> None:
        self._name = name
        self._verifier = verifier
        self._timeout_s = timeout_s
        self._turn = threading.Lock()

    async def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
        """Check an answer with the plugin.

        Raises:
            ConfigError: the plugin reports a wrong setup.
            NoVerdict: the plugin failed, took too long, or returned something else than a verdict.
        """
        check = partial(self._run_check, facts, text)
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await call_in_thread(check, name=f"ripieno-verifier-{self._name}")
        except TimeoutError as error:
            raise self._fail(f"took over {self._timeout_s:g} s") from error
        except ProviderError as error:
            raise self._fail(f"failed: {error.message}") from error
        if not isinstance(found, Verdict):
            raise self._fail(f"returned {type(found).__name__}, not a Verdict")
        return found

    def _run_check(self, facts: Mapping[str, JsonValue], text: str) -> object:
        with ForeignCall() as fault, self._turn:
            return self._verifier.check(facts, text)
        raise self._fail(f"failed: {fault.text}")

    def _fail(self, how: str) -> NoVerdict:
        return NoVerdict(f"verifier {self._name!r} {how}", verifier=self._name, hint=_AUTHOR)


def _int(value: JsonValue) -> int:
    if not isinstance(value, int):
        raise TypeError(f"must be an integer, got {value!r}")
    return value
