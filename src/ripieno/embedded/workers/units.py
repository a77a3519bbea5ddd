"""Unit converters: a short table of factors, and all units of pint."""

import re
from functools import cache

from ripieno.embedded.workers.expression import write_number

_FACTORS = {
    "km": ("m", 1000.0),
    "m": ("m", 1.0),
    "cm": ("m", 0.01),
    "mi": ("m", 1609.344),
    "ft": ("m", 0.3048),
    "in": ("m", 0.0254),
    "kg": ("g", 1000.0),
    "g": ("g", 1.0),
    "lb": ("g", 453.59237),
    "oz": ("g", 28.349523125),
}
_ASKED = re.compile(r"(-?\d+(?:\.\d+)?)\s*([A-Za-z]+)\b.*?\b(?:in|to|into|as)\s+([A-Za-z]+)\b", re.DOTALL)
_AMOUNT = re.compile(r"(-?\d+(?:\.\d+)?)\s*((?:degrees? |square |cubic )?[A-Za-z]+(?:\s+per\s+[A-Za-z]+)?)")
_TARGETS = (
    re.compile(r"how many\s+((?:square |cubic )?[a-z]+(?:\s+per\s+[a-z]+)?)", re.IGNORECASE),
    re.compile(
        r"\b(?:in|to|into|as)\s+(?:degrees? )?((?:square |cubic )?[a-z]+(?:\s+per\s+[a-z]+)?)\b"
        r"(?!.*\b(?:to|into|in|as)\b)",
        re.IGNORECASE | re.DOTALL,
    ),
)
_ALIASES = {"celsius": "degC", "fahrenheit": "degF", "c": "degC", "f": "degF", "degrees celsius": "degC"}


def quick(text: str) -> str:
    """Convert between ten abbreviated units; else return the first number of the text."""
    match = _ASKED.search(text)
    if match is None:
        numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
        return str(numbers[0]) if numbers else "1"
    amount, source, target = match.groups()
    known, wanted = _FACTORS.get(source), _FACTORS.get(target)
    if known is None or wanted is None or known[0] != wanted[0]:
        return amount
    return write_number(round(float(amount) * known[1] / wanted[1], 4))


def exact(text: str) -> str:
    """Convert, or add, any units that pint knows; else return the first number of the text."""
    import pint

    registry = _registry()
    target = next((found.group(1) for pattern in _TARGETS if (found := pattern.search(text))), None)
    total = None
    for number, name in _AMOUNT.findall(text):
        try:
            quantity = registry.Quantity(float(number), _unit(name))
            total = quantity if total is None else total + quantity
        except (pint.PintError, AttributeError, ValueError, TypeError, AssertionError, KeyError):
            continue
    try:
        if total is not None and target is not None:
            return write_number(round(float(total.to(_unit(target)).magnitude), 4))
    except (pint.PintError, AttributeError, ValueError, TypeError, AssertionError, KeyError):
        pass
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
    return str(numbers[0]) if numbers else "1"


def _unit(name: str) -> str:
    plain = re.sub(r"\s+", " ", re.sub(r"^degrees? ", "", name.strip(), flags=re.IGNORECASE))
    alias = _ALIASES.get(plain.lower())
    if alias:
        return alias
    plain = re.sub(
        r"^square (\w+)", r"\1**2", re.sub(r"^cubic (\w+)", r"\1**3", plain, flags=re.IGNORECASE), flags=re.IGNORECASE
    )
    return plain.replace(" per ", "/") if len(plain) <= 2 else plain.replace(" per ", "/").lower()


@cache
def _registry():  # type: ignore[no-untyped-def]  # pint's own class
    import pint

    return pint.UnitRegistry(autoconvert_offset_to_baseunit=True)
