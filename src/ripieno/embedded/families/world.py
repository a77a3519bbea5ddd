"""Units and dates: abbreviations in a table, long forms, sums, and near misses between the two."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import partial

from ripieno.domain.grader import Exact, Numeric
from ripieno.embedded.families.base import Family, Problem, Rng, near_misses, pick, ways, whole

_SHORT = (
    ("km", "mi", 0.621371),
    ("mi", "km", 1.609344),
    ("kg", "lb", 2.204623),
    ("m", "ft", 3.280840),
    ("in", "cm", 2.54),
)
_LONG = (
    ("kilometers", "miles", 0.621371),
    ("gallons", "liters", 3.785412),
    ("pounds", "kilograms", 0.453592),
    ("hours", "seconds", 3600.0),
    ("inches", "centimeters", 2.54),
    ("yards", "meters", 0.9144),
    ("miles", "feet", 5280.0),
    ("weeks", "hours", 168.0),
)
_ORIGIN = date(1995, 1, 1)
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _conversion(rng: Rng, *, units: Sequence[tuple[str, str, float]]) -> Problem:
    source, target, factor = units[whole(rng, 0, len(units) - 1)]
    amount = whole(rng, 2, 90)
    grader = Numeric(answer=amount * factor, tolerance=0.005)
    return Problem(blanks={"n": str(amount), "a": source, "b": target}, grader=grader)


def _temperature(rng: Rng) -> Problem:
    degrees = whole(rng, -10, 40)
    return Problem(blanks={"n": str(degrees)}, grader=Numeric(answer=degrees * 1.8 + 32, tolerance=0.005))


def _total(rng: Rng) -> Problem:
    a, b = whole(rng, 2, 20), 50 * whole(rng, 1, 19)
    return Problem(blanks={"a": str(a), "b": str(b)}, grader=Numeric(answer=1000 * a + b))


def _day(rng: Rng) -> date:
    return _ORIGIN + timedelta(days=whole(rng, 0, 15000))


def _say(day: date) -> str:
    return f"{day.strftime('%B')} {day.day}, {day.year}"


def _weekday(rng: Rng, *, write: Callable[[date], str]) -> Problem:
    day = _day(rng)
    return Problem(blanks={"d": write(day)}, grader=Exact(answers=(_WEEKDAYS[day.weekday()],)))


def _distance(rng: Rng, *, write: Callable[[date], str]) -> Problem:
    first, days = _day(rng), whole(rng, 5, 400)
    last = first + timedelta(days=days)
    return Problem(blanks={"a": write(first), "b": write(last)}, grader=Numeric(answer=days))


def _iso_shift(rng: Rng) -> Problem:
    day, days = _day(rng), whole(rng, 5, 300)
    later = day + timedelta(days=days)
    return Problem(blanks={"d": day.isoformat(), "n": str(days)}, grader=Exact(answers=(later.isoformat(),)))


def _said_shift(rng: Rng) -> Problem:
    day, count = _day(rng), whole(rng, 2, 30)
    unit, days = pick(rng, ("days", "weeks")), count
    later = day + timedelta(days=days if unit == "days" else 7 * days)
    return Problem(
        blanks={"d": _say(day), "n": f"{count} {unit}"}, grader=Exact(answers=(later.isoformat(), _say(later)))
    )


_short, _long = partial(_conversion, units=_SHORT), partial(_conversion, units=_LONG)
_iso_weekday, _said_weekday = partial(_weekday, write=date.isoformat), partial(_weekday, write=_say)
_iso_distance, _said_distance = partial(_distance, write=date.isoformat), partial(_distance, write=_say)

UNITS = Family(
    name="units",
    train=(
        *ways(_short, "Convert {n} {a} to {b}.", "{n} {a} in {b}?", "What is {n} {a} in {b}?"),
        *ways(_long, "Convert {n} {a} to {b}.", "How many {b} are {n} {a}?", "Express {n} {a} in {b}."),
        *ways(_temperature, "Convert {n} degrees Celsius to Fahrenheit.", "What is {n} Celsius in Fahrenheit?"),
        *ways(_total, "What is {a} kilometers plus {b} meters, in meters?"),
        *near_misses(_long, "The day has come: how many {b} do {n} {a} make?"),
    ),
    test=(
        *ways(_short, "Give me {n} {a} converted to {b}.", "Turn {n} {a} into {b}."),
        *ways(_long, "I have {n} {a}. How many {b} is that?", "Change {n} {a} into {b}, please."),
        *near_misses(_temperature, "It is {n} degrees Celsius on this date. How many Fahrenheit is that?"),
        *ways(_total, "A walk of {a} kilometers and another of {b} meters: how many meters in all?"),
    ),
)

DATES = Family(
    name="dates",
    train=(
        *ways(_iso_weekday, "What day of the week is {d}?", "Which weekday was {d}?"),
        *ways(_said_weekday, "What day of the week was {d}?", "Tell me the weekday of {d}."),
        *ways(_iso_distance, "How many days are there between {a} and {b}?"),
        *ways(_said_distance, "How many days lie between {a} and {b}?", "Count the days from {a} to {b}."),
        *ways(_iso_shift, "What date is {n} days after {d}? Answer as YYYY-MM-DD."),
        *ways(_said_shift, "What date is {n} after {d}? Answer as YYYY-MM-DD."),
        *near_misses(_said_weekday, "Convert {d} to its day of the week."),
        *near_misses(_iso_weekday, "Spell out the weekday of {d}, please."),
    ),
    test=(
        *ways(_iso_weekday, "On which day of the week does {d} fall?"),
        *ways(_said_weekday, "Name the day of the week for {d}.", "On {d}, which weekday was it?"),
        *near_misses(_said_weekday, "A letter is dated {d}. Which weekday was that?"),
        *ways(_iso_distance, "From {a} until {b}, how many days pass?"),
        *ways(_said_distance, "How many days is it from {a} to {b}?"),
        *near_misses(_said_distance, "Subtract the date {a} from {b}: how many days?"),
        *ways(_said_shift, "Starting on {d}, which date comes {n} later? Use YYYY-MM-DD."),
    ),
)
