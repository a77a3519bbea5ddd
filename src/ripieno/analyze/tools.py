"""Cheap scalars of the tools that a task offers: their number, their complexity, and their overlap with the text."""

import json
import re
from collections.abc import Mapping, Sequence

import numpy as np

from ripieno.domain import JsonValue, Vector

TYPES = (
    "string",
    "integer",
    "number",
    "float",
    "boolean",
    "array",
    "object",
    "dict",
    "any",
    "tuple",
    "hashmap",
    "char",
)
MOST_TOOL_CHARACTERS = 20_000

_WORDS = re.compile(r"[a-z]{3,}")
_NUMBERS = re.compile(r"\d+(?:\.\d+)?")
_KINDS = {kind: re.compile(rf'"type": "{kind}"') for kind in TYPES}


def measure_tools(text: str, tools: Sequence[Mapping[str, JsonValue]]) -> Vector:
    """Measure the offered tools against a text: shape (len(NAMES),), all finite, zeros without tools."""
    if not tools:
        return np.zeros(len(NAMES), dtype=np.float32)
    return np.array(list(_measure(text, [_function(tool) for tool in tools]).values()), dtype=np.float32)


def _measure(text: str, functions: Sequence[Mapping[str, JsonValue]]) -> dict[str, float]:
    packed = json.dumps(functions, default=str)[:MOST_TOOL_CHARACTERS].lower()
    names = " ".join(str(function.get("name", "")) for function in functions)
    parameters, required = _count_parameters(functions)
    said, named = set(_WORDS.findall(text.lower())), set(_WORDS.findall(names.lower().replace("_", " ")))
    return {
        "count": float(len(functions)),
        "log_parameters": np.log1p(parameters),
        "log_required": np.log1p(required),
        "has_dotted_name": float("." in names),
        "has_underscored_name": float("_" in names),
        "has_capitals": float(names != names.lower()),
        "words_covered": len(said & set(_WORDS.findall(packed))) / (1 + len(said)),
        "name_words_covered": len(said & named) / (1 + len(named)),
        "has_default": float('"default"' in packed),
        "says_optional": float("optional" in packed or "default is" in packed),
        "numbers_a_parameter": len(_NUMBERS.findall(text)) / (1 + parameters),
        "commas_a_parameter": text.count(",") / (1 + parameters),
        "conjunctions": float(text.count(" and ")),
        "questions": float(text.count("?")),
        "quotes": float(text.count("'")),
        "log_characters": np.log1p(len(text)),
        **{f"log_{kind}": np.log1p(len(pattern.findall(packed))) for kind, pattern in _KINDS.items()},
    }


def _function(tool: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return the function of a tool, from the form of chat completions or the bare form."""
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


def _count_parameters(functions: Sequence[Mapping[str, JsonValue]]) -> tuple[int, int]:
    parameters, required = 0, 0
    for function in functions:
        schema = function.get("parameters")
        if not isinstance(schema, Mapping):
            continue
        properties, needed = schema.get("properties"), schema.get("required")
        parameters += len(properties) if isinstance(properties, Mapping) else 0
        required += len(needed) if isinstance(needed, Sequence) else 0
    return parameters, required


NAMES = tuple(_measure("", ()))
