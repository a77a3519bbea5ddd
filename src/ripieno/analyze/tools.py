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
NAMES = (
    "count",
    "log_parameters",
    "log_required",
    "has_dotted_name",
    "has_underscored_name",
    "has_capitals",
    "words_covered",
    "name_words_covered",
    "has_default",
    "says_optional",
    "numbers_a_parameter",
    "commas_a_parameter",
    "conjunctions",
    "questions",
    "quotes",
    "log_characters",
    *(f"log_{kind}" for kind in TYPES),
)
MOST_TOOL_CHARACTERS = 20_000

_WORDS = re.compile(r"[a-z]{3,}")
_NUMBERS = re.compile(r"\d+(?:\.\d+)?")
_KINDS = {kind: re.compile(rf'"type": "{kind}"') for kind in TYPES}


def measure_tools(text: str, tools: Sequence[Mapping[str, JsonValue]]) -> Vector:
    """Measure the offered tools against a text: shape (len(NAMES),), all finite, zeros without tools."""
    if not tools:
        return np.zeros(len(NAMES), dtype=np.float32)
    functions = [_function(tool) for tool in tools]
    packed = json.dumps(functions, default=str)[:MOST_TOOL_CHARACTERS].lower()
    names = " ".join(str(function.get("name", "")) for function in functions)
    parameters, required = _count_parameters(functions)
    said, named = set(_WORDS.findall(text.lower())), set(_WORDS.findall(names.lower().replace("_", " ")))
    values = (
        float(len(functions)),
        np.log1p(parameters),
        np.log1p(required),
        float("." in names),
        float("_" in names),
        float(names != names.lower()),
        len(said & set(_WORDS.findall(packed))) / (1 + len(said)),
        len(said & named) / (1 + len(named)),
        float('"default"' in packed),
        float("optional" in packed or "default is" in packed),
        len(_NUMBERS.findall(text)) / (1 + parameters),
        text.count(",") / (1 + parameters),
        float(text.count(" and ")),
        float(text.count("?")),
        float(text.count("'")),
        np.log1p(len(text)),
        *(np.log1p(len(pattern.findall(packed))) for pattern in _KINDS.values()),
    )
    return np.array(values, dtype=np.float32)


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
