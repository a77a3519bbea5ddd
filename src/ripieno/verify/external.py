"""Verifier plugins: named checks with facts of their own."""

from collections.abc import Mapping
from typing import Protocol

from ripieno.domain import JsonValue, Verdict
from ripieno.plugins import needs_extra


class Verifier(Protocol):
    """Checks an answer against facts that only this verifier understands."""

    def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
        """Find out what the answer is worth."""
        ...


class ReasoningGymVerifier:
    """Scores an answer with the generator that made the task (package `reasoning-gym`)."""

    def check(self, facts: Mapping[str, JsonValue], text: str) -> Verdict:
        """Score as the generator does; under 0.99 is not accepted, as its partial credit rewards form."""
        with needs_extra("tasks", "the verifier 'reasoning_gym'"):
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
        return Verdict(verifier="reasoning_gym", quality=float(max(scores) >= 0.99), detail=f"scored {max(scores):.2f}")


def _int(value: JsonValue) -> int:
    if not isinstance(value, int):
        raise TypeError(f"must be a whole number, got {value!r}")
    return value
