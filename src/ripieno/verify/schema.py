"""Check that an answer is JSON of a given schema."""

import json
import re

from ripieno.domain import Verdict
from ripieno.domain.grader import JsonSchema

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


def check_schema(grader: JsonSchema, text: str) -> Verdict:
    """Whether the whole reply, or its only fenced block, is JSON that fits the schema."""
    from jsonschema import Draft202012Validator

    fenced = _FENCE.findall(text)
    source = fenced[0] if len(fenced) == 1 else text
    try:
        value = json.loads(source, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return Verdict(verifier="json_schema", quality=0.0, detail=f"not JSON: {error}"[:200])
    fault = next(iter(Draft202012Validator(dict(grader.schema)).iter_errors(value)), None)
    if fault is not None:
        place = "/".join(str(part) for part in fault.absolute_path) or "the top"
        return Verdict(verifier="json_schema", quality=0.0, detail=f"at {place}: {fault.message}"[:200])
    return Verdict(verifier="json_schema", quality=1.0)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
