"""Calendar: one worker reads only ISO dates; one reads dates as people write them."""

import re
from datetime import date, timedelta

_ISO = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_WRITTEN = re.compile(
    rf"\b(?:(?:{_MONTHS})\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+\d{{4}}|\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?(?:{_MONTHS}),?\s+\d{{4}}"
    r"|\d{4}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/\d{4})\b",
    re.IGNORECASE,
)
_SHIFT = re.compile(r"(\d+)\s+(day|week|month|year)s?", re.IGNORECASE)


def quick(text: str) -> str:
    """Return the weekday, distance or shift of ISO dates; else Monday."""
    found = []
    for year, month, day in _ISO.findall(text):
        try:
            found.append(date(int(year), int(month), int(day)))
        except ValueError:
            continue
    if not found:
        return "Monday"
    if len(found) > 1:
        return str(abs((found[1] - found[0]).days))
    shift = re.search(r"(\d+) days? (after|before|from|later)", text)
    if shift:
        days = int(shift.group(1)) * (-1 if shift.group(2) == "before" else 1)
        return _moved(found[0], days).isoformat()
    return found[0].strftime("%A")


def exact(text: str) -> str:
    """Do the same for dates in words or numbers, and for weeks, months and years."""
    from dateutil import parser
    from dateutil.relativedelta import relativedelta

    found: list[date] = []
    for written in _WRITTEN.findall(text):
        try:
            found.append(parser.parse(written.replace(" of ", " ")).date())
        except (ValueError, OverflowError):
            continue
    if not found:
        return "Monday"
    if len(found) > 1:
        days = abs((found[1] - found[0]).days)
        return str(days // 7 if re.search(r"\bweeks\b", text, re.IGNORECASE) else days)
    shift = _SHIFT.search(text)
    if shift is None or re.search(r"weekday|day of the week|what day", text, re.IGNORECASE):
        return found[0].strftime("%A")
    sign = -1 if re.search(r"\b(before|ago|earlier|back)\b", text, re.IGNORECASE) else 1
    unit = f"{shift.group(2).lower()}s"
    try:
        moved = found[0] + relativedelta(**{unit: sign * int(shift.group(1))})
    except (ValueError, OverflowError):
        return str(found[0].isoformat())
    return str(moved.isoformat())


def _moved(start: date, days: int) -> date:
    try:
        return start + timedelta(days=days)
    except OverflowError:
        return start
