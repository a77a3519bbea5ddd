"""Verifier plugins: named checks with facts of their own."""

import sysconfig
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from ripieno.domain import JsonValue, Verdict
from ripieno.errors import ConfigError
from ripieno.verify.jail import Limits
from ripieno.verify.text import final_answer
from ripieno.verify.warm import WarmJail

MEMORY_BYTES = 4 * 1024 * 1024 * 1024
"""Address space of the generators: their libraries reserve much that they never touch."""
SCORE_S = 20.0
"""That scoring one answer may take."""
MADE = b"made "
"""What the jail says once the generator has made the task."""


class Verifier(Protocol):
    """Checks an answer against facts that only this verifier understands."""

    def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
        """Find out what the answer is worth."""
        ...


class ReasoningGymVerifier:
    """Scores an answer with the generator that made the task (package `reasoning-gym`), in a jail.

    Some of its generators evaluate an answer as Python to score it.
    """

    def __init__(self) -> None:
        libraries = tuple({path for name in ("purelib", "platlib") if (path := sysconfig.get_path(name))})
        limits = Limits(memory_bytes=MEMORY_BYTES, libraries=libraries, may_fork=True)
        self._jail = WarmJail("reasoning_gym", seconds=SCORE_S, limits=limits)

    def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
        """Score as the generator does; under 0.99 is not accepted, as its partial credit rewards form.

        Raises:
            ConfigError: the generator does not make the task.
            NoJail: no jail can be had here, so nothing is known of the answer.
            TypeError: a fact is not of its kind.
        """
        asked: dict[str, Any] = {
            "dataset": str(facts["dataset"]),
            **{name: _int(facts[name]) for name in ("seed", "size", "index")},
            "candidates": [text.strip(), final_answer(text).rstrip(". ")],
        }
        is_done, said = self._jail.run(msgspec.json.encode(asked))
        if not said.startswith(MADE):
            raise ConfigError(f"the task {asked['dataset'][:60]!r} cannot be made by the package reasoning-gym")
        if not is_done:
            return Verdict(verifier="reasoning_gym", quality=0.0, detail="scoring it failed, or took too long")
        score = msgspec.json.decode(said.removeprefix(MADE), type=float)
        return Verdict(verifier="reasoning_gym", quality=float(score >= 0.99), detail=f"scored {score:.2f}")


def _int(value: JsonValue) -> int:
    if not isinstance(value, int):
        raise TypeError(f"must be a whole number, got {value!r}")
    return value
