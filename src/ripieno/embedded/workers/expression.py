"""Arithmetic from text, with a whitelisted syntax tree instead of evaluated code."""

import ast
import operator
import re
from collections.abc import Callable

LARGEST_POWER = 64
_OPERATORS: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_SYMBOLS = str.maketrans({"×": "*", "÷": "/", "−": "-", "–": "-", "·": "*"})
_EXPRESSION = re.compile(r"[-+(]*\s*\d[\d\s.+\-*/%()]*")

_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBER_WORDS = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}


def find_expression(text: str) -> str | None:
    """Find the longest part of a text that looks like arithmetic."""
    found = [match.strip() for match in _EXPRESSION.findall(text.translate(_SYMBOLS))]
    found = [match for match in found if re.search(r"\d\s*[-+*/%]\s*[(\d]", match)]
    return max(found, key=len) if found else None


def evaluate(expression: str) -> float | None:
    """Evaluate an arithmetic expression; None if it is invalid."""
    cleaned = expression.rstrip(" .+-*/%(")
    while cleaned.count(")") > cleaned.count("(") and cleaned.endswith(")"):
        cleaned = cleaned[:-1]
    try:
        return _value(ast.parse(cleaned, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def write_number(value: float) -> str:
    """Format integers without a point, and others with up to six digits."""
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else f"{value:.6g}"


def read_number_words(text: str) -> str:
    """Replace number words up to ninety-nine by digits."""
    words = "|".join(sorted(NUMBER_WORDS, key=len, reverse=True))
    tens = "|".join(_TENS)
    joined = re.sub(
        rf"\b({tens})[-\s]({'|'.join(_UNITS[1:10])})\b",
        lambda m: str(NUMBER_WORDS[m.group(1).lower()] + NUMBER_WORDS[m.group(2).lower()]),
        text,
        flags=re.IGNORECASE,
    )
    return re.sub(rf"\b({words})\b", lambda m: str(NUMBER_WORDS[m.group(1).lower()]), joined, flags=re.IGNORECASE)


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            exponent = _value(right)
            if abs(exponent) > LARGEST_POWER:
                raise ValueError("the exponent is too large")
            return float(_value(left) ** exponent)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
        case _:
            raise ValueError(f"{type(node).__name__} is not arithmetic")
