"""Calculators: one reads plain expressions; one reads words and solves equations."""

import re
from collections.abc import Callable
from fractions import Fraction
from math import isfinite

from ripieno.embedded.workers.expression import evaluate, find_expression, read_number_words, write_number

LARGEST_DENOMINATOR = 1_000_000
"""Largest denominator of the fraction that approximates a value."""
_WORDED = (
    (r"(-?[\d.]+)\s*(?:%|percent) of (-?[\d.]+)", r"(\1/100*\2)"),
    (r"the sum of (-?[\d.]+) and (-?[\d.]+)", r"(\1+\2)"),
    (r"the product of (-?[\d.]+) and (-?[\d.]+)", r"(\1*\2)"),
    (r"the difference between (-?[\d.]+) and (-?[\d.]+)", r"(\1-\2)"),
    (r"subtract (-?[\d.]+) from (-?[\d.]+)", r"(\2-\1)"),
    (r"add (-?[\d.]+) (?:to|and) (-?[\d.]+)", r"(\1+\2)"),
    (r"multiply (-?[\d.]+) (?:by|and|with) (-?[\d.]+)", r"(\1*\2)"),
    (r"divide (-?[\d.]+) by (-?[\d.]+)", r"(\1/\2)"),
    (r"\b(?:plus|added to)\b", "+"),
    (r"\b(?:minus|less)\b", "-"),
    (r"\b(?:times|multiplied by)\b", "*"),
    (r"\b(?:divided by|over)\b", "/"),
)
_EQUATION = re.compile(r"[-+]?[\d.]*\s*\*?\s*[a-z]?(?:\s*[-+*]\s*[\d.]*\s*\*?\s*[a-z]?)*\s*=\s*[-+\d.a-z*\s]+")
_TERM = re.compile(r"([-+]?)\s*([\d.]*)\s*\*?\s*([a-z]?)")


def quick(text: str) -> str:
    """Evaluate the longest plain expression; else return the last number of the text."""
    expression = find_expression(text)
    value = evaluate(expression) if expression else None
    if value is None:
        numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
        return str(numbers[-1]) if numbers else "0"
    return write_number(value)


def symbolic(text: str) -> str:
    """Solve a linear equation if there is one; else read operations in words."""
    solved = _solve(text)
    if solved is not None:
        return solved
    plain = read_number_words(text.lower())
    for _ in range(3):
        for pattern, form in _WORDED[:8]:
            plain = re.sub(pattern, _filler(form), plain)
    for pattern, form in _WORDED[8:]:
        plain = re.sub(pattern, form, plain)
    expression = find_expression(plain)
    if expression is None:
        numbers = re.findall(r"-?\d+(?:\.\d+)?", plain)
        return str(numbers[-1]) if numbers else "0"
    return write_number(_simplify(expression))


def _filler(form: str) -> Callable[[re.Match[str]], str]:
    return lambda match: _work_out(match.expand(form))


def _work_out(expression: str) -> str:
    value = evaluate(expression)
    return expression if value is None else write_number(value)


def _simplify(expression: str) -> float:
    """Evaluate with rational arithmetic, so that thirds and sevenths keep their digits."""
    value = evaluate(expression)
    if value is None or not isfinite(value):
        return value or 0.0
    return float(Fraction(value).limit_denominator(LARGEST_DENOMINATOR))


def _solve(text: str) -> str | None:
    lowered = read_number_words(text.lower())
    for pattern, form in ((r"\bequals\b|\bis equal to\b", "="), *_WORDED[8:10]):
        lowered = re.sub(pattern, form, lowered)
    for match in _EQUATION.finditer(lowered):
        left, _, right = match.group().partition("=")
        names = set(re.findall(r"(?<![a-z])[a-z](?![a-z])", match.group()))
        if len(names) != 1:
            continue
        (slope, constant), (other_slope, other_constant) = _read_side(left), _read_side(right)
        if slope != other_slope:
            return write_number(float((other_constant - constant) / (slope - other_slope)))
    return None


def _read_side(side: str) -> tuple[Fraction, Fraction]:
    """Read one side of a linear equation: the factor of the unknown, and the constant."""
    slope, constant = Fraction(0), Fraction(0)
    for sign, digits, letter in _TERM.findall(re.split(r"(?<=[\da-z])\s+(?=[a-z]{2})|[.?!]\s|[.?!]$", side.strip())[0]):
        if not digits.strip(".") and not letter:
            continue
        value = Fraction(digits) if _is_number(digits) else Fraction(1)
        signed = -value if sign == "-" else value
        if letter:
            slope += signed
        else:
            constant += signed
    return slope, constant


def _is_number(digits: str) -> bool:
    return re.fullmatch(r"\d+\.?\d*|\.\d+", digits) is not None
