"""Check that an answer is JSON of a given schema."""

import json
from collections.abc import Mapping

from ripieno.domain import JsonValue, Verdict
from ripieno.domain.grader import JsonSchema
from ripieno.errors import ConfigError
from ripieno.tasks.schemas import TooMuch, find_fault
from ripieno.verify.jailed.extract import list_blocks
from ripieno.verify.reply import refuse_constant


def check_schema(grader: JsonSchema, text: str) -> Verdict:
    """Check whether the whole reply, or its only fenced block, is JSON that fits the schema.

    Raises:
        ConfigError: the schema is refused, so the quality is unknown.
    """
    fenced = [block for tag, block in list_blocks(text) if tag.lower() in ("", "json")]
    source = fenced[0] if len(fenced) == 1 else text
    try:
        value = json.loads(source, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        return Verdict(verifier="json_schema", quality=0.0, detail=f"not JSON: {error}"[:200])
    try:
        fault = find_fault(grader.schema, value)
    except TooMuch as error:
        return Verdict(verifier="json_schema", quality=0.0, detail=str(error)[:200])
    except ValueError as error:
        raise ConfigError(f"a JSON schema cannot be used: {error}") from error
    return Verdict(verifier="json_schema", quality=float(fault is None), detail=(fault or "")[:200])


def fits_schema(schema: Mapping[str, JsonValue], text: str) -> bool:
    """Return whether a text is JSON that fits a schema. An unusable schema accepts every text."""
    try:
        return check_schema(JsonSchema(schema=schema), text).quality == 1.0
    except ConfigError:
        return True
