"""Ten families of tasks with computed answers, each with phrasings that training never sees.

Answers come from the numbers that a task was made of, never from the skills that solve it.
"""

from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise

from ripieno.domain.grader import Exact, Numeric
from ripieno.embedded.families.base import Family, Problem, Rng, pick, ways, whole

NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jon", "Kim", "Leo", "Mia", "Noa")
THINGS = ("apple", "pear", "plum", "lemon", "melon", "fig", "peach", "olive", "date", "lime")
WORDS = (
    *("planet", "garden", "silver", "window", "forest", "bridge", "castle", "mirror", "orange", "button"),
    *("pepper", "rocket", "violin", "basket", "candle", "dragon", "engine", "falcon", "guitar", "hammer"),
)
Make = Callable[[Rng], Problem]

_EDITS: dict[str, Callable[[str], str]] = {
    "reverse it": lambda word: word[::-1],
    "write it in capitals": str.upper,
    "drop its first letter": lambda word: word[1:],
    "double it": lambda word: word + word,
    "remove all vowels": lambda word: "".join(letter for letter in word if letter.lower() not in "aeiou"),
    "sort its letters": lambda word: "".join(sorted(word)),
}
_OTHER_WORDS = {
    "spell it backwards": "reverse it",
    "capitalise it": "write it in capitals",
    "cut off the first letter": "drop its first letter",
    "write it twice": "double it",
    "strip the vowels": "remove all vowels",
    "put its letters in order": "sort its letters",
}


def _arithmetic(rng: Rng) -> Problem:
    a, b, c = whole(rng, 2, 30), whole(rng, 2, 30), whole(rng, 2, 12)
    text, value = (
        (f"{a} * ({b} + {c})", a * (b + c)),
        (f"{a} + {b} * {c}", a + b * c),
        (f"({a} + {b}) * {c}", (a + b) * c),
        (f"{a} * {b} - {c}", a * b - c),
    )[whole(rng, 0, 3)]
    return Problem(blanks={"e": text}, grader=Numeric(answer=value))


def _story(formula: Callable[[int, int, int, int], int]) -> Make:
    def make(rng: Rng) -> Problem:
        a, b, c, g = whole(rng, 20, 60), whole(rng, 3, 30), whole(rng, 2, 15), whole(rng, 2, 6)
        blanks = {"n": pick(rng, NAMES), "t": pick(rng, THINGS), "a": str(a), "b": str(b), "c": str(c), "g": str(g)}
        return Problem(blanks=blanks, grader=Numeric(answer=formula(a, b, c, g)))

    return make


def _table(formula: Callable[[int, int, int, int, int], int]) -> Make:
    """Make tasks from a formula of the prices of x and y, the counts k and m, and the paid sum p."""

    def make(rng: Rng) -> Problem:
        chosen = [THINGS[index] for index in rng.permutation(len(THINGS))[:4]]
        prices = [whole(rng, 2, 19) for _ in chosen]
        k, m, p = whole(rng, 2, 9), whole(rng, 2, 9), 50 * whole(rng, 8, 12)
        pairs = list(zip(chosen, prices, strict=True))
        order = [pairs[index] for index in rng.permutation(len(pairs))]
        blanks = {
            "l": ", ".join(f"{thing} {price}" for thing, price in order),
            "j": "{" + ", ".join(f'"{thing}": {price}' for thing, price in order) + "}",
            "n": pick(rng, NAMES),
            "x": chosen[0],
            "y": chosen[1],
            "k": str(k),
            "m": str(m),
            "p": str(p),
        }
        return Problem(blanks=blanks, grader=Numeric(answer=formula(prices[0], prices[1], k, m, p)))

    return make


def _strings(said: dict[str, str]) -> Make:
    """Make tasks of two edits, each in the words of the keys."""

    def make(rng: Rng) -> Problem:
        phrases = list(said)
        first, second = (phrases[index] for index in rng.permutation(len(phrases))[:2])
        word = pick(rng, WORDS)
        answer = _EDITS[said[second]](_EDITS[said[first]](word))
        return Problem(blanks={"w": word, "f": first, "s": second}, grader=Exact(answers=(answer,)))

    return make


def _laps(rng: Rng) -> Problem:
    unit, target, factor = (
        ("km", "metres", 1000.0),
        ("miles", "metres", 1609.344),
        ("kg", "grams", 1000.0),
        ("tonnes", "kilograms", 1000.0),
    )[whole(rng, 0, 3)]
    a, b = whole(rng, 2, 12), whole(rng, 2, 25)
    thing = "bags" if unit in ("kg", "tonnes") else pick(rng, ("laps", "stages", "rounds"))
    blanks = {"n": pick(rng, NAMES), "a": str(a), "b": str(b), "u": unit, "t": target, "h": thing}
    return Problem(blanks=blanks, grader=Numeric(answer=a * b * factor))


def _dates(formula: Callable[[int, int, int], int]) -> Make:
    """Make tasks from a formula of days: the count k, the days of its unit, and the count z of days."""

    def make(rng: Rng) -> Problem:
        day = date(2024, 1, 1) + timedelta(days=whole(rng, 0, 1200))
        unit, days = (("weeks", 7), ("fortnights", 14))[whole(rng, 0, 1)]
        k, z = whole(rng, 2, 9), whole(rng, 11, 90)
        said = f"{day.day} {day.strftime('%B')} {day.year}"
        blanks = {"d": said, "i": day.isoformat(), "k": str(k), "u": unit, "z": str(z)}
        answer = day + timedelta(days=formula(k, days, z))
        return Problem(blanks=blanks, grader=Exact(answers=(answer.isoformat(),)))

    return make


def _code(rng: Rng) -> Problem:
    values = [whole(rng, -9, 20) for _ in range(whole(rng, 5, 8))] + [2, 3, -1]
    goal, over, kept = pick(rng, tuple(_GOALS)), pick(rng, tuple(_OVER)), pick(rng, tuple(_KEPT))
    answer = _GOALS[goal]([_OVER[over](x) for x in values if _KEPT[kept](x)])
    return Problem(blanks={"g": goal, "s": over, "f": kept, "v": str(values)}, grader=Numeric(answer=float(answer)))


_GOALS: dict[str, Callable[[list[int]], int]] = {
    "the sum": sum,
    "the largest": max,
    "the smallest": min,
    "the number": len,
}
_OVER: dict[str, Callable[[int], int]] = {"squares": lambda x: x * x, "values": int, "absolute values": abs}
_KEPT: dict[str, Callable[[int], bool]] = {
    "even": lambda x: x % 2 == 0,
    "odd": lambda x: x % 2 == 1,
    "positive": lambda x: x > 0,
}


def _trace(rng: Rng) -> Problem:
    a, b, n = whole(rng, 1, 9), whole(rng, 2, 9), whole(rng, 3, 6)
    code, value = (
        (f"total = {a}\nfor i in range({n}):\n    total += i * {b}\nprint(total)", a + b * n * (n - 1) // 2),
        (f"values = [{a}, {b}, {n}]\nprint(sum(v * v for v in values) - {a})", a * a + b * b + n * n - a),
        (f"x = {a}\nfor i in range({n}):\n    x = x * 2 + {b}\nprint(x)", a * 2**n + b * (2**n - 1)),
    )[whole(rng, 0, 2)]
    return Problem(blanks={"c": code}, grader=Numeric(answer=value))


def _ordering(rng: Rng) -> Problem:
    people = [NAMES[index] for index in rng.permutation(len(NAMES))[: whole(rng, 3, 5)]]
    more, less, top, bottom = (
        ("taller", "shorter", "tallest", "shortest"),
        ("older", "younger", "oldest", "youngest"),
        ("faster", "slower", "fastest", "slowest"),
    )[whole(rng, 0, 2)]
    facts = [
        f"{a} is {more} than {b}." if rng.random() < 0.5 else f"{b} is {less} than {a}." for a, b in pairwise(people)
    ]
    rng.shuffle(facts)
    wants_top = rng.random() < 0.5
    answer = people[0] if wants_top else people[-1]
    blanks = {"f": " ".join(facts), "q": top if wants_top else bottom}
    return Problem(blanks=blanks, grader=Exact(answers=(answer,)))


_SAID = {phrase: phrase for phrase in _EDITS}
_CHANGE = _table(lambda x, y, k, m, p: p - k * x - m * y)
_WEEKS, _PLAIN_DAYS = _dates(lambda k, days, z: k * days), _dates(lambda k, days, z: z)

FAMILIES: tuple[Family, ...] = (
    Family(
        name="arithmetic",
        train=ways(_arithmetic, "What is {e}?", "Compute {e}.", "Give the value of {e}.", "{e} = ?"),
        test=ways(_arithmetic, "Work out {e} for me.", "Please evaluate {e}."),
    ),
    Family(
        name="story",
        train=(
            *ways(
                _story(lambda a, b, c, g: a + b - c),
                "{n} has {a} {t}s, buys {b} more and gives away {c}. How many {t}s are left?",
                "A basket holds {a} {t}s. {n} adds {b} and eats {c}. How many {t}s does it hold now?",
                "There are {a} {t}s on a table. {n} uses {c}, then finds {b} more. How many are there now?",
            ),
            *ways(
                _story(lambda a, b, c, g: g * b - c),
                "{n} keeps {g} boxes of {b} {t}s and loses {c}. How many {t}s remain?",
            ),
        ),
        test=ways(
            _story(lambda a, b, c, g: a + b - c),
            "{n} owns {a} {t}s. After a walk {n} collects {b} more, and drops {c} on the way. What is the new count?",
            "In a shop there were {a} {t}s; {c} go missing and {b} are added. How many does the shop have?",
        ),
    ),
    Family(
        name="table",
        train=(
            *ways(
                _table(lambda x, y, k, m, p: x * k),
                "Prices: {l}. What is the price of {x} times {k}?",
                "Given {j}, what is the price of {x} multiplied by {k}?",
            ),
            *ways(_table(lambda x, y, k, m, p: x + y), "Values: {l}. Give the value of {x} plus the value of {y}."),
        ),
        test=(
            *ways(_table(lambda x, y, k, m, p: y * m), "Scores: {l}. How much is the score of {y} times {m}?"),
            *ways(_table(lambda x, y, k, m, p: x + k), "Here is a record: {j}. Work out the value of {x} plus {k}."),
        ),
    ),
    Family(
        name="table_story",
        train=ways(
            _CHANGE,
            "Prices: {l}. {n} buys {k} {x}s and {m} {y}s and pays with {p}. How much change is due?",
            "Menu: {l}. {n} orders {k} {x}s and {m} {y}s. {n} hands over {p}. How much comes back?",
        ),
        test=ways(_CHANGE, "Catalogue: {l}. For {k} {x}s and {m} {y}s, {n} puts down {p}. What does the clerk return?"),
    ),
    Family(
        name="strings",
        train=ways(
            _strings(_SAID),
            "Take the word '{w}', {f}, then {s}.",
            "Start with '{w}': first {f}, after that {s}. What do you get?",
        ),
        test=ways(_strings(_OTHER_WORDS), "Given '{w}', {f} and finally {s}. What is the result?"),
    ),
    Family(
        name="units",
        train=ways(
            _laps,
            "{n} completes {a} {h} of {b} {u}. How many {t} is that?",
            "A plan has {a} {h} of {b} {u} each. Give the total in {t}.",
        ),
        test=ways(_laps, "Over a season {n} manages {a} {h} of {b} {u}; state the sum in {t}."),
    ),
    Family(
        name="dates",
        train=(
            *ways(_WEEKS, "A course starts on {d} and lasts {k} {u}. On what date does it end?"),
            *ways(
                _PLAIN_DAYS,
                "The loan of {i} runs for {z} days. When is it due?",
                "From {d} on, the shop is closed for {z} days. When does it open?",
            ),
        ),
        test=(
            *ways(_WEEKS, "Signed on {i}, the contract ends {k} {u} later. Which day is that?"),
            *ways(_PLAIN_DAYS, "Seeds sown on {d} sprout after {z} days. Give that date."),
        ),
    ),
    Family(
        name="code",
        train=ways(
            _code,
            "Write a Python function giving {g} of the {s} of all {f} numbers of a list. What does it give on {v}?",
            "Program a function for {g} among the {s} of the {f} numbers of a list, and apply it to {v}.",
        ),
        test=ways(
            _code,
            "A function should find {g} of {s} over only the {f} numbers. Which value does your function give on {v}?",
        ),
    ),
    Family(
        name="trace",
        train=ways(
            _trace, "What does this program print?\n```python\n{c}\n```", "Give the output of:\n```python\n{c}\n```"
        ),
        test=ways(_trace, "Run this in your head and tell the result.\n```python\n{c}\n```"),
    ),
    Family(
        name="ordering",
        train=ways(_ordering, "{f} Who is the {q}?", "Facts: {f} Name the {q} one."),
        test=ways(_ordering, "We know this: {f} Then who must be the {q}?"),
    ),
)
CHAINS: dict[str, tuple[str, ...]] = {
    "arithmetic": ("calculate",),
    "story": ("read", "calculate"),
    "table": ("look_up", "calculate"),
    "table_story": ("look_up", "read", "calculate"),
    "strings": ("edit", "edit"),
    "units": ("read", "convert"),
    "dates": ("read", "dates"),
    "code": ("code", "execute"),
    "trace": ("execute",),
    "ordering": ("order",),
}
"""The skills that solve each family, in order. A conductor has to learn them."""
