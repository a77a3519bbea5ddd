"""Check that an answer is JSON of a given schema."""

import json
import re
from collections.abc import Mapping

from ripieno.domain import JsonValue, Verdict
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


def fits_schema(schema: Mapping[str, JsonValue], text: str) -> bool:
    """Whether a text is JSON that fits a schema; a schema that is none, or refers elsewhere, asks for nothing."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing.exceptions import Unresolvable

    try:
        Draft202012Validator.check_schema(dict(schema))
        return check_schema(JsonSchema(schema=schema), text).quality == 1.0
    except (SchemaError, Unresolvable):
        return True
