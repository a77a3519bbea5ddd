"""Arithmetic and algebra: plain, in words, and among words of other families."""

from functools import partial

from ripieno.domain.grader import Numeric
from ripieno.embedded.families.base import Family, Problem, Rng, near_misses, pick, ways, whole
from ripieno.embedded.workers.expression import NUMBER_WORDS

_NAMES = {value: word for word, value in NUMBER_WORDS.items()}


def _plain(rng: Rng) -> Problem:
    a, b, c = whole(rng, 12, 97), whole(rng, 3, 29), whole(rng, 2, 60)
    form = whole(rng, 0, 2)
    text, value = [
        (f"{a} + {b} * {c}", a + b * c),
        (f"({a} - {b}) * {c}", (a - b) * c),
        (f"{a} * {b} - {c}", a * b - c),
    ][form]
    return Problem(blanks={"e": text}, grader=Numeric(answer=value))


def _worded(rng: Rng) -> Problem:
    a, b = whole(rng, 20, 99), whole(rng, 2, 19)
    text, value = [
        (f"{_spell(a)} plus {_spell(b)}", a + b),
        (f"{_spell(a)} minus {_spell(b)}", a - b),
        (f"{_spell(a)} times {_spell(b)}", a * b),
        (f"the product of {a} and {_spell(b)}", a * b),
        (f"the sum of {_spell(a)} and {b}", a + b),
    ][whole(rng, 0, 4)]
    return Problem(blanks={"e": text}, grader=Numeric(answer=value))


def _percent(rng: Rng) -> Problem:
    a, b = 5 * whole(rng, 1, 19), 20 * whole(rng, 2, 40)
    return Problem(blanks={"a": str(a), "b": str(b)}, grader=Numeric(answer=a * b / 100))


def _composed(rng: Rng) -> Problem:
    a, b, p = whole(rng, 10, 60), whole(rng, 10, 60), 10 * whole(rng, 1, 9)
    return Problem(blanks={"a": str(a), "b": str(b), "p": str(p)}, grader=Numeric(answer=p * (a + b) / 100))


def _linear(rng: Rng, *, sign: int, largest: int, letters: tuple[str, ...]) -> Problem:
    x, a, b = whole(rng, 2, 25), whole(rng, 2, 12), whole(rng, 1, largest)
    blanks = {"a": str(a), "b": str(b), "c": str(a * x + sign * b), "x": pick(rng, letters)}
    return Problem(blanks=blanks, grader=Numeric(answer=x))


_equation = partial(_linear, sign=1, largest=40, letters=("x", "y", "n", "t"))
_difference = partial(_linear, sign=-1, largest=20, letters=("x", "z", "k", "m"))


def _spell(value: int) -> str:
    if value in _NAMES:
        return _NAMES[value]
    return f"{_NAMES[value // 10 * 10]}-{_NAMES[value % 10]}"


ARITHMETIC = Family(
    name="arithmetic",
    train=(
        *ways(_plain, "What is {e}?", "Calculate {e}.", "Work out {e} and give me the number.", "{e} = ?"),
        *ways(_worded, "What is {e}?", "Please compute {e}.", "How much is {e}?"),
        *ways(_percent, "What is {a}% of {b}?", "How much is {a} percent of {b} dollars?"),
        *ways(_composed, "What is {p}% of the sum of {a} and {b}?"),
        *near_misses(_plain, "A meter reads {e} units today. Which single number is that?"),
        *near_misses(_worded, "A week has gone by. How many days are {e} days?"),
    ),
    test=(
        *ways(_plain, "Evaluate this for me: {e}", "I need the value of {e}, thanks."),
        *ways(_worded, "Tell me {e}.", "Could you figure out {e} for me?"),
        *ways(_percent, "Find {a}% of {b}."),
        *ways(_composed, "Take {p}% of the sum of {a} and {b}. What do you get?"),
        *near_misses(_plain, "The date on the ticket was torn, but the sum {e} was legible. What is its value?"),
    ),
)

ALGEBRA = Family(
    name="algebra",
    train=(
        *ways(_equation, "Solve for {x}: {a}{x} + {b} = {c}", "If {a}{x} + {b} = {c}, what is {x}?"),
        *ways(_difference, "Find {x} such that {a}{x} - {b} = {c}.", "What is {x} when {a}{x} - {b} = {c}?"),
        *ways(_equation, "Which value of {x} satisfies {a}*{x} + {b} = {c}?"),
        *near_misses(_equation, "In kilometers, {a}{x} + {b} = {c}. How many kilometers is {x}?"),
    ),
    test=(
        *ways(_equation, "Determine {x} from the equation {a}{x} + {b} = {c}.", "Given {a}{x} + {b} = {c}, find {x}."),
        *ways(_difference, "{a}{x} - {b} = {c}. What number is {x}?"),
        *near_misses(_equation, "The date is smudged, yet one reads {a}{x} + {b} = {c}. Find {x}."),
    ),
)
