"""Checks on texts: find the final answer of a reply, and compare it."""

import re
import string

from ripieno.domain import Verdict
from ripieno.domain.grader import Exact, MultipleChoice, Numeric, Pattern
from ripieno.errors import ConfigError
from ripieno.tasks.patterns import matches

LONGEST_ANSWER = 20_000
"""Characters at the end of a reply that are searched for its final answer."""
_MARKER = re.compile(r"(?:final answer|answer|result)\s*(?:is\b|:|=)+\s*", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![\w.])[-−+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?:/\d+)?(?![\w])"
)
_HEDGE = re.compile(r"\b(?:or|and/or|either|possibly|maybe|perhaps)\b", re.IGNORECASE)
_DENIAL = re.compile(
    r"\b(?:not|isn't|isnt|never|no longer|cannot be|can't be)\s*(?:the\s+|a\s+|an\s+)?$", re.IGNORECASE
)
_LETTER = re.compile(r"^[\s(\[*]*([A-Za-z])(?:[*]*[)\].:](?:\s|$)|[\s)\].:*]*$)")
_OUTER = string.punctuation + string.whitespace + "“”‘’«»…"


def final_answer(text: str) -> str:
    """Return the final answer of a reply: after the last marker, else the last line with words."""
    text = text[-LONGEST_ANSWER:]
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    markers = list(_MARKER.finditer(text))
    if markers:
        rest = text[markers[-1].end() :].strip()
        return rest.splitlines()[0] if rest else ""
    return lines[-1].strip()


def normalise(text: str) -> str:
    """Normalise to lower case, single spaces and no outer punctuation."""
    return " ".join(text.casefold().split()).strip(_OUTER)


def check_exact(grader: Exact, text: str) -> Verdict:
    """Check whether the final answer is an accepted one. Hedged and denied answers fail."""
    wanted = [normalise(answer) or answer for answer in grader.answers]
    longest = max(LONGEST_ANSWER, *map(len, grader.answers))
    for candidate in (text if len(text) <= longest else "", final_answer(text)):
        if normalise(candidate) in wanted:
            return _accept("exact")
    tail = normalise(final_answer(text))
    for answer in wanted:
        if tail.endswith(f" {answer}") and _is_plain(tail[: -len(answer)], answer):
            return _accept("exact")
    return _reject("exact", f"final answer {final_answer(text)[:60]!r}")


def check_numeric(grader: Numeric, text: str) -> Verdict:
    """Check whether the last number of the final answer is the right one."""
    numbers = find_numbers(final_answer(text)) or find_numbers(text[-LONGEST_ANSWER:])
    if not numbers:
        return _reject("numeric", "no number in the answer")
    if _HEDGE.search(final_answer(text)) and len(set(numbers)) > 1:
        return _reject("numeric", "the answer offers several numbers")
    given = numbers[-1]
    allowed = grader.tolerance * max(abs(grader.answer), 1.0)
    if abs(given - grader.answer) <= allowed:
        return _accept("numeric")
    return _reject("numeric", f"{given:g} is not {grader.answer:g}")


def check_choice(grader: MultipleChoice, text: str) -> Verdict:
    """Check whether the final answer chooses exactly the right letter."""
    letters = "".join(re.escape(option) for option in grader.options)
    final = final_answer(text)
    alone = re.fullmatch(rf"[\s(\[*]*([{letters}])(?:[\s).\]:*].*)?", final, re.IGNORECASE | re.DOTALL)
    if alone and not _HEDGE.search(final[alone.end(1) :][:12]):
        chosen = {alone.group(1).upper()}
    else:
        chosen = set(re.findall(rf"(?<![A-Za-z'])\(?([{letters}])\)?(?![A-Za-z'])", final))
    if chosen == {grader.letter.upper()}:
        return _accept("choice")
    return _reject("choice", f"chose {', '.join(sorted(chosen)) or 'nothing'}")


def check_pattern(grader: Pattern, text: str) -> Verdict:
    """Check whether the final answer, or the whole text, matches a regular expression (RE2).

    Raises:
        ConfigError: the pattern is refused, so the quality is unknown.
    """
    try:
        is_met = any(matches(grader.pattern, candidate) for candidate in (text.strip(), final_answer(text)))
    except ValueError as error:
        raise ConfigError(f"a pattern cannot be used: {error}") from error
    return _accept("pattern") if is_met else _reject("pattern", "no match")


def check_agreement(ours: str, theirs: str, *, peer: str) -> Verdict:
    """Check whether two texts have the same final answer."""
    if reduce_answer(ours) == reduce_answer(theirs):
        return _accept("agreement")
    return _reject("agreement", f"{peer} says {final_answer(theirs)[:60]!r}")


def reduce_answer(text: str) -> str:
    """Return the final answer in canonical form: its number, its option letter, or its words."""
    final = final_answer(text)
    plain = normalise(final)
    letter = _LETTER.match(final)
    if letter:
        return letter.group(1).lower()
    numbers = find_numbers(final)
    if len(set(numbers)) == 1 and not _HEDGE.search(final):
        return f"{numbers[0]:.10g}"
    return plain


def find_numbers(text: str) -> list[float]:
    """Find all numbers of a text in order, including thousands commas and simple fractions."""
    found = []
    for match in _NUMBER.findall(text.replace("−", "-")):
        value = _parse_number(match.replace(",", ""))
        if value is not None:
            found.append(value)
    return found


def _parse_number(text: str) -> float | None:
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        return None


def _is_plain(before: str, answer: str) -> bool:
    """Return whether the words before an answer leave it unchanged: no other candidate, no denial."""
    if _DENIAL.search(before) or _HEDGE.search(before):
        return False
    return not before.rstrip().endswith((",", ";", "/", "&")) and f"not {answer}" not in before


def _accept(verifier: str) -> Verdict:
    return Verdict(verifier=verifier, quality=1.0)


def _reject(verifier: str, detail: str) -> Verdict:
    return Verdict(verifier=verifier, quality=0.0, detail=detail)
