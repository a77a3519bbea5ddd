"""Skills: programs that each do one kind of step, text to text. A skill reports text that it cannot read.

Rewriting solves a task of several steps: a reader turns a story into a sum, and a calculator the sum into a number.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta

from ripieno.embedded.workers.expression import evaluate, find_expression

UNKNOWN = "I cannot tell"
"""Reply of a skill to a text that it cannot read."""

_WORDED = (
    (r"\btimes\b|\bmultiplied by\b", "*"),
    (r"\bplus\b|\badded to\b", "+"),
    (r"\bminus\b|\bless\b", "-"),
    (r"\bdivided by\b|\bover\b", "/"),
)
_GAIN = r"(?:buys|gets|finds|receives|adds|earns|gains|wins|picks|collects|are added|is given|arrive|join)"
_LOSS = r"(?:gives away|loses|eats|sells|uses|spends|breaks|drops|lends|donates|are removed|leave|go missing)"
_START = r"(?:has|have|had|starts with|begins with|there are|there were|holds|contains|owns|keeps)"
_EACH = re.compile(r"(\d+) (?:[a-z]+ )?(?:boxes|bags|groups|rows|laps|packs|trays|crates|rounds|stages) of (\d+)")
_AT = re.compile(r"(\d+) (?:[a-z]+ )?(?:at|for|costing) (\d+)(?: each| apiece)?")
_SHARED = re.compile(r"(?:shared|split|divided) (?:equally |evenly )?(?:among|between|by) (\d+)")
_PAID = re.compile(r"(?:pays with|hands over|puts down|gives the clerk) (\d+)")
_UNITS = {
    "km": ("m", 1000.0),
    "kilometres": ("m", 1000.0),
    "m": ("m", 1.0),
    "metres": ("m", 1.0),
    "cm": ("m", 0.01),
    "centimetres": ("m", 0.01),
    "miles": ("m", 1609.344),
    "feet": ("m", 0.3048),
    "kg": ("g", 1000.0),
    "kilograms": ("g", 1000.0),
    "g": ("g", 1.0),
    "grams": ("g", 1.0),
    "tonnes": ("g", 1e6),
    "hours": ("s", 3600.0),
    "minutes": ("s", 60.0),
    "seconds": ("s", 1.0),
    "days": ("s", 86400.0),
}
_UNIT = "|".join(sorted(_UNITS, key=len, reverse=True))
_DAYS = {"day": 1, "week": 7, "fortnight": 14}
_MONTHS = {date(2000, month, 1).strftime("%B"): month for month in range(1, 13)}


def calculate(text: str) -> str:
    """Calculate the arithmetic in a text, in words or signs."""
    plain = text
    for pattern, sign in _WORDED:
        plain = re.sub(pattern, sign, plain)
    expression = find_expression(plain)
    value = evaluate(expression) if expression is not None else None
    return UNKNOWN if value is None else show_number(value)


def read_story(text: str) -> str:
    """Extract the calculation that a story asks for: in signs, with a unit conversion, or days after a date."""
    started = re.search(rf"(\d{{1,2}}) ({'|'.join(_MONTHS)}) (\d{{4}})|(\d{{4}}-\d{{2}}-\d{{2}})", text)
    lasts = re.search(r"(\d+) (day|week|fortnight)s?\b", text)
    if started and lasts:
        day = _read_date(started)
        return f"{day} plus {int(lasts.group(1)) * _DAYS[lasts.group(2)]} days"
    unit = re.search(rf"(\d+) (?:laps|rounds|stages|bags|crates|boxes) of (\d+) ({_UNIT})\b", text)
    target = re.search(rf"(?:how many|in) ({_UNIT})\b", text, re.IGNORECASE)
    if unit and target:
        return f"convert {unit.group(1)} * {unit.group(2)} {unit.group(3)} to {target.group(1)}"
    return _read_sum(text)


def look_up(text: str) -> str:
    """Return the text after its table, with names replaced by their values in the table."""
    table, rest = _split_table(text)
    if not table:
        return UNKNOWN
    for name in sorted(table, key=len, reverse=True):
        value = table[name]
        rest = re.sub(rf"(\d+) {name}(?:s|es)?\b", rf"\1 at {value} each", rest)
        rest = re.sub(
            rf"(?:the |one )?(?:price|value|cost|weight|score) of (?:a |an |the |one )?{name}s?\b", value, rest
        )
    return rest.strip()


def edit(text: str) -> str:
    """Apply the first requested edit to a text. Return the bare word once no edit is left."""
    quoted = re.search(r"'([^']*)'", text)
    if quoted is None:
        return text.strip() if re.fullmatch(r"\s*\S+\s*", text) else UNKNOWN
    word = quoted.group(1)
    found = sorted(
        ((match.start(), match.end(), act) for pattern, act in _EDITS for match in [re.search(pattern, text)] if match),
        key=lambda each: each[0],
    )
    if not found:
        return word
    start, end, act = found[0]
    if len(found) == 1:
        return act(word)
    rest = (text[:start] + text[end:]).replace(f"'{word}'", f"'{act(word)}'", 1)
    return re.sub(r"\s+", " ", rest).strip()


def convert(text: str) -> str:
    """Convert a quantity into another unit."""
    match = re.search(rf"convert (.+?) ({_UNIT}) (?:to|into) ({_UNIT})\b", text, re.IGNORECASE) or re.search(
        rf"express (.+?) ({_UNIT}) in ({_UNIT})\b", text, re.IGNORECASE
    )
    if match is None:
        return UNKNOWN
    amount = evaluate(match.group(1))
    (kind, factor), (target, divisor) = _UNITS[match.group(2).lower()], _UNITS[match.group(3).lower()]
    if amount is None or kind != target:
        return UNKNOWN
    return show_number(amount * factor / divisor)


def count_days(text: str) -> str:
    """Compute the date some days after or before another."""
    match = re.search(r"(\d{4}-\d{2}-\d{2}) (plus|minus) (\d+) days", text)
    if match is None:
        return UNKNOWN
    shift = timedelta(days=int(match.group(3)) * (1 if match.group(2) == "plus" else -1))
    try:
        return (date.fromisoformat(match.group(1)) + shift).isoformat()
    except (ValueError, OverflowError):
        return UNKNOWN


def write_code(text: str) -> str:
    """Write a Python program for the described function that prints its value for the given list."""
    given = re.search(r"\[[-\d, ]+\]", text)
    act = next((code for pattern, code in _AGGREGATES if re.search(pattern, text)), None)
    if given is None or act is None:
        return UNKNOWN
    over = "x * x" if re.search(r"squares?\b", text) else "abs(x)" if re.search(r"absolute values?", text) else "x"
    kept = next((code for pattern, code in _FILTERS if re.search(pattern, text)), "True")
    return f"def f(values):\n    return {act}([{over} for x in values if {kept}])\n\nprint(f({given.group(0)}))"


def find_program(text: str) -> str | None:
    """Find the Python program in a text, which an executing worker runs."""
    fenced = re.search(r"```(?:python)?\n(.*?)```", text, re.DOTALL)
    code = fenced.group(1) if fenced else text
    if "print(" not in code:
        return None
    try:
        compile(code, "program.py", "exec")
    except (SyntaxError, ValueError):
        return None
    return code


def order(text: str) -> str:
    """Find the first or last person from pairwise comparisons."""
    pairs = re.findall(r"([A-Z][a-z]+) is (?:taller|older|faster|heavier) than ([A-Z][a-z]+)", text)
    pairs += [
        (b, a) for a, b in re.findall(r"([A-Z][a-z]+) is (?:shorter|younger|slower|lighter) than ([A-Z][a-z]+)", text)
    ]
    if not pairs:
        return UNKNOWN
    people = {person for pair in pairs for person in pair}
    wants_top = re.search(r"\b(?:tallest|oldest|fastest|heaviest)\b", text) is not None
    place = 1 if wants_top else 0
    ends = people - {pair[place] for pair in pairs}
    return next(iter(ends)) if len(ends) == 1 else UNKNOWN


def take_majority(text: str) -> str:
    """Return the most frequent line, the earliest on ties. Lines without an answer do not count."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and line.strip() != UNKNOWN]
    return Counter(lines).most_common(1)[0][0] if lines else UNKNOWN


def show_number(value: float) -> str:
    """Format a number as an answer."""
    rounded = round(value, 6)
    return str(int(rounded)) if rounded == int(rounded) else f"{rounded:.6f}".rstrip("0")


SKILLS: dict[str, Callable[[str], str]] = {
    "calculate": calculate,
    "read": read_story,
    "look_up": look_up,
    "edit": edit,
    "convert": convert,
    "dates": count_days,
    "code": write_code,
    "order": order,
    "vote": take_majority,
}
"""Skills by name, without `execute`, which needs a sandbox."""

_EDITS: tuple[tuple[str, Callable[[str], str]], ...] = (
    (r"\brevers\w*(?: it| the word)?|\b(?:write|spell) it backwards", lambda word: word[::-1]),
    (r"\b(?:write|put) it in capitals|\bcapitali[sz]e it|\bmake it upper case", str.upper),
    (r"\bdrop its first letter|\bremove the first letter|\bcut off the first letter", lambda word: word[1:]),
    (r"\bdouble it|\bwrite it twice|\brepeat it", lambda word: word * 2),
    (r"\bremove (?:all|the|its) vowels|\bstrip the vowels", lambda word: re.sub(r"[aeiouAEIOU]", "", word)),
    (r"\bsort its letters|\bput its letters in order", lambda word: "".join(sorted(word))),
)
_AGGREGATES = (
    (r"\bsum\b|\btotal\b|\badds? up\b", "sum"),
    (r"\blargest\b|\bmaximum\b|\bgreatest\b", "max"),
    (r"\bsmallest\b|\bminimum\b|\bleast\b", "min"),
    (r"\bhow many\b|\bnumber (?:of|among)\b|\bcounts?\b", "len"),
)
_FILTERS = (
    (r"\beven\b", "x % 2 == 0"),
    (r"\bodd\b", "x % 2 == 1"),
    (r"\bpositive\b|\babove zero\b", "x > 0"),
    (r"\bnegative\b|\bbelow zero\b", "x < 0"),
)


def _read_sum(text: str) -> str:
    terms: list[tuple[int, str]] = []
    spans: list[tuple[int, int]] = []

    def add_term(match: re.Match[str], sign: str, value: str) -> None:
        if all(match.end() <= start or match.start() >= end for start, end in spans):
            spans.append(match.span())
            terms.append((match.start(), f"{sign} {value}"))

    paid = _PAID.search(text)
    inner = "-" if paid else "+"
    if paid:
        add_term(paid, "+", paid.group(1))
    for match in [*_EACH.finditer(text), *_AT.finditer(text)]:
        lost = re.search(rf"{_LOSS}\W+$", text[: match.start()]) is not None
        add_term(match, "-" if lost else inner, f"{match.group(1)} * {match.group(2)}")
    for match in re.finditer(rf"{_LOSS} (\d+)|(\d+) (?:(?!and)[a-z]+ )?{_LOSS}", text):
        add_term(match, "-", match.group(1) or match.group(2))
    for match in re.finditer(rf"{_GAIN} (\d+)|(\d+) (?:(?!and)[a-z]+ )?{_GAIN}|{_START} (\d+)", text, re.IGNORECASE):
        add_term(match, "+", match.group(1) or match.group(2) or match.group(3))
    if not terms:
        return UNKNOWN
    joined = " ".join(term for _, term in sorted(terms)).removeprefix("+ ")
    shared = _SHARED.search(text)
    if shared:
        return f"({joined}) / {shared.group(1)}"
    return joined if len(terms) > 1 or "*" in joined else UNKNOWN


def _split_table(text: str) -> tuple[dict[str, str], str]:
    """Return a table of names and numbers, and the text without it."""
    braces = re.search(r"\{[^{}]*\}", text)
    if braces:
        try:
            found = json.loads(braces.group(0))
        except ValueError:
            return {}, text
        return {str(name): str(value) for name, value in found.items()}, text[: braces.start()] + text[braces.end() :]
    listed = re.search(
        r"(?:Prices|Values|Weights|Scores|Menu|Catalogue|Stock list): ((?:[a-z]+ \d+, )*[a-z]+ \d+)\.", text
    )
    if listed is None:
        return {}, text
    pairs = ((part.split(" ")[0], part.split(" ")[1]) for part in listed.group(1).split(", "))
    return dict(pairs), text[: listed.start()] + text[listed.end() :]


def _read_date(match: re.Match[str]) -> str:
    if match.group(4):
        return match.group(4)
    return date(int(match.group(3)), _MONTHS[match.group(2)], int(match.group(1))).isoformat()
