"""Workers of the workbench: exact tools, faulty clones of them, and expensive generalists that do all steps.

All of them execute. A clone fails on a fixed share of texts, so that its results can be cached. A generalist does the
same steps as the tools, and may fail at each.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ripieno.workbench.skills import SKILLS, UNKNOWN, find_program

Execute = Callable[[str], str | None]
"""Runs a program in a sandbox."""

MOST_INNER_STEPS = 4
"""Most steps of a generalist on one text."""
_ORDER = ("look_up", "execute", "code", "edit", "convert", "dates", "order", "read", "calculate")
"""Order in which a generalist tries the skills."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchWorker:
    """One worker: its skills, failure rate and cost."""

    id: str
    skills: tuple[str, ...]
    slip: float
    """Share of texts on which a step fails, in [0, 1]."""
    cost: float
    """Cost of one call, in thousandths of a US dollar."""
    latency_s: float
    split: str
    """`train`, or `test` for workers that training never sees."""
    weak: tuple[str, ...] = ()
    """Skills of a generalist at which it fails more often."""
    weak_slip: float = 0.0
    known: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_generalist(self) -> bool:
        """Return whether it does all steps of a task itself."""
        return len(self.skills) > 1

    @property
    def can_run(self) -> bool:
        """Return whether it executes programs."""
        return self.skills == ("execute",)

    def act(self, text: str, execute: Execute) -> str:
        """Return the result for a text. The same text gives the same result."""
        if text not in self.known:
            self.known[text] = self._solve(text, execute)
        return self.known[text]

    def _solve(self, text: str, execute: Execute) -> str:
        if not self.is_generalist:
            return self._step(self.skills[0], text, execute)
        for _ in range(MOST_INNER_STEPS):
            if _ANSWER.fullmatch(text):
                break
            for skill in _ORDER:
                result = self._step(skill, text, execute)
                if result not in (UNKNOWN, text):
                    text = result
                    break
            else:
                break
        return text

    def _step(self, skill: str, text: str, execute: Execute) -> str:
        if skill == "execute":
            program = find_program(text)
            result = UNKNOWN if program is None else execute(program) or UNKNOWN
        else:
            result = SKILLS[skill](text)
        slip = self.weak_slip if skill in self.weak else self.slip
        draw, pick = _draw(self.id, skill, text)
        return result if result == UNKNOWN or draw >= slip else garble(result, pick)


def garble(text: str, pick: int) -> str:
    """Change a text in one place: a number becomes wrong, or a letter is lost."""
    numbers = list(re.finditer(r"\d+", text))
    if numbers:
        match = numbers[pick % len(numbers)]
        value = int(match.group(0)) + (1 + pick % 3) * (1 if pick % 2 else -1)
        return text[: match.start()] + str(abs(value) if value else 4) + text[match.end() :]
    place = pick % max(len(text), 1)
    return text[:place] + text[place + 1 :] or UNKNOWN


_ANSWER = re.compile(r"\s*\S+\s*")
"""One word or number: no step is left to do."""


def _draw(worker: str, skill: str, text: str) -> tuple[float, int]:
    digest = hashlib.blake2b(f"{worker}\x1f{skill}\x1f{text}".encode(), digest_size=12).digest()
    return int.from_bytes(digest[:6], "big") / 2**48, int.from_bytes(digest[6:], "big")


WORDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "calculate": (
        (
            *("evaluates arithmetic", "a calculator for sums", "works out numeric expressions", "does the maths"),
            *("adds, subtracts, multiplies and divides", "computes numbers", "desk calculator", "arithmetic engine"),
        ),
        ("computes the value of an arithmetic expression", "a pocket calculator", "evaluates sums and products"),
    ),
    "read": (
        (
            *("turns a word problem into an expression", "reads stories into formulas", "writes a story as a sum"),
            *("understands word problems and notes the formula", "extracts the calculation from a text"),
            *("reading comprehension for quantities", "parses story problems", "states a described problem in symbols"),
        ),
        ("translates text problems into arithmetic", "reads a story and notes the calculation it needs"),
    ),
    "look_up": (
        (
            *("looks values up in a table", "fills in prices from a list", "replaces names by values from a record"),
            *("table search", "reads entries out of JSON records", "finds the price of an item in a list"),
            *("a database of the given table", "substitutes values for names"),
        ),
        ("finds entries of a table or record and puts them in", "price lookup"),
    ),
    "edit": (
        (
            *("edits strings, one operation at a time", "changes a word as told", "text edits: reverse, capitals, cut"),
            *("string manipulation", "transforms words letter by letter", "applies one string operation"),
            *("a text editor for single words", "reverses, doubles or capitalises words"),
        ),
        ("applies the next string operation to a word", "rewrites words letter by letter"),
    ),
    "convert": (
        (
            *("converts units of measurement", "kilometres, kilograms, hours into other units", "unit conversion"),
            *("turns miles into metres", "measures in other units", "conversion of physical quantities"),
            *("length and weight conversion", "a converter for units"),
        ),
        ("changes a quantity into another unit", "metric and imperial converter"),
    ),
    "dates": (
        (
            *("counts days on the calendar", "date arithmetic", "adds days to a date", "a calendar tool"),
            *("computes due dates", "date and time calculations", "finds a later date", "works with calendar dates"),
        ),
        ("calendar computations", "finds the date so many days later"),
    ),
    "code": (
        (
            *("writes small Python programs", "programs a function from its description", "generates code"),
            *("a coding model", "writes source code for a specification", "software developer for short functions"),
            *("implements a described function in Python", "code writer"),
        ),
        ("a programmer for short functions", "turns a specification into Python"),
    ),
    "execute": (
        (
            *("executes Python programs", "runs code and gives its output", "a Python interpreter"),
            *("executes source code in a sandbox", "runs scripts", "prints what a program prints"),
            *("code runner", "an execution environment for Python"),
        ),
        ("runs a given program in a sandbox", "code execution"),
    ),
    "order": (
        (
            *(
                "solves ordering puzzles",
                "finds who is first or last from comparisons",
                "logic of who is taller or older",
            ),
            *("ranks people by comparisons", "logic puzzle solver", "sorts out who is the tallest"),
            *("reasoning about order", "deduces the ranking from facts"),
        ),
        ("ranks people from pairwise facts", "a solver for comparison riddles"),
    ),
    "vote": (
        (
            *("takes the majority of several results", "votes among answers", "majority vote"),
            *("counts which result comes most often", "settles a vote"),
        ),
        ("picks the answer that most results share",),
    ),
    "general": (
        (
            *("a general language model", "answers anything, at a price", "an all-round assistant model"),
            *("a chat model for every kind of question", "large language model", "frontier model, good at most things"),
            *("versatile model", "an assistant that can do everything"),
        ),
        ("a large model for all kinds of tasks", "general-purpose assistant"),
    ),
}
"""Descriptions of a worker of each skill: those that training sees, and those that it does not."""

_SLIPS = ((0.02, 1.0, 0.6), (0.12, 0.5, 0.3), (0.28, 0.2, 0.1))
"""Failure rate, cost and latency of the exact tool of a skill, of its clone, and of its cheap clone."""
_GENERALISTS = (
    ("strong", 0.25, 9.0, 6.0, (), 0.0),
    ("maths", 0.18, 7.0, 5.0, ("edit", "dates", "order", "look_up"), 0.55),
    ("words", 0.18, 7.0, 5.0, ("calculate", "convert", "code", "execute"), 0.5),
    ("small", 0.42, 3.0, 2.0, (), 0.0),
)


def make_workers() -> tuple[BenchWorker, ...]:
    """Make all workers: for each split, three of each skill, and four generalists."""
    made: list[BenchWorker] = []
    for split, shift in (("train", 0.0), ("test", 0.02)):
        for skill in (*_ORDER, "vote"):
            for place, (slip, cost, latency) in enumerate(_SLIPS):
                if skill == "vote" and place:
                    continue
                worker = BenchWorker(
                    id=f"{skill}-{split}-{place}",
                    skills=(skill,),
                    slip=0.0 if skill == "vote" else slip + shift,
                    cost=0.05 if skill == "vote" else cost * _price_factor(skill),
                    latency_s=latency,
                    split=split,
                )
                made.append(worker)
        for name, slip, cost, latency, weak, weak_slip in _GENERALISTS:
            made.append(
                BenchWorker(
                    id=f"general-{split}-{name}",
                    skills=_ORDER,
                    slip=slip + shift,
                    cost=cost,
                    latency_s=latency,
                    split=split,
                    weak=weak,
                    weak_slip=weak_slip + shift,
                )
            )
    return tuple(made)


def _price_factor(skill: str) -> float:
    """Return the price factor of a skill: reading and programming need a model, and cost more than a calculator."""
    return {"read": 1.2, "code": 1.5, "look_up": 0.8}.get(skill, 0.4)
