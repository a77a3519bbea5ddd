"""Graders and checks as JSON, in one form for task files and requests."""

from collections.abc import Mapping
from typing import Annotated, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from ripieno.domain import JsonValue, parse_worker_id
from ripieno.domain.grader import (
    Agreement,
    Check,
    Exact,
    External,
    Grader,
    Human,
    JsonSchema,
    Judge,
    MultipleChoice,
    Numeric,
    Pattern,
    Recorded,
    UnitTests,
)
from ripieno.tasks.patterns import compile_pattern
from ripieno.tasks.schemas import read_schema

RUNS_CODE = (UnitTests, External)
"""Checks that run code of an answer or a request, or a plugin on facts of a request."""


class _GraderModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _ExactRow(_GraderModel):
    kind: Literal["exact"]
    answers: tuple[str, ...] = Field(min_length=1)


class _NumericRow(_GraderModel):
    kind: Literal["numeric"]
    answer: float
    tolerance: float = 1e-6


class _ChoiceRow(_GraderModel):
    kind: Literal["choice"]
    letter: str = Field(min_length=1)
    options: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=tuple("ABCDEFGHIJ"), min_length=1)


class _SchemaRow(_GraderModel):
    kind: Literal["json_schema"]
    schema_: dict[str, object] = Field(alias="schema")

    @field_validator("schema_")
    @classmethod
    def _check_schema(cls, schema: dict[str, object]) -> dict[str, object]:
        read_schema(schema)
        return schema


class _TestsRow(_GraderModel):
    kind: Literal["unit_tests"]
    tests: str
    prefix: str = ""
    timeout_s: float = Field(default=5.0, gt=0)


class _PatternRow(_GraderModel):
    kind: Literal["pattern"]
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compile(cls, pattern: str) -> str:
        compile_pattern(pattern)
        return pattern


class _JudgeRow(_GraderModel):
    kind: Literal["judge"]
    rubric: str
    reference: str | None = None
    worker: str | None = None


class _ExternalRow(_GraderModel):
    kind: Literal["external"]
    verifier: str
    facts: dict[str, object] = Field(default_factory=dict)


class _RecordedRow(_GraderModel):
    kind: Literal["recorded"]


class _AgreementRow(_GraderModel):
    kind: Literal["agreement"]
    peer: str


class _HumanRow(_GraderModel):
    kind: Literal["human"]
    question: str = Human().question


_Alone = _ExactRow | _NumericRow | _ChoiceRow | _SchemaRow | _PatternRow | _TestsRow | _JudgeRow | _ExternalRow
GraderRow = Annotated[_Alone | _RecordedRow, Field(discriminator="kind")]
"""A grader in the form of a task file."""
_CheckRow = Annotated[_Alone | _AgreementRow | _HumanRow, Field(discriminator="kind")]
_CHECKS: TypeAdapter[_Alone | _AgreementRow | _HumanRow] = TypeAdapter(_CheckRow)


def read_check(raw: Mapping[str, JsonValue]) -> Check:
    """Read the check of a request.

    Raises:
        ValueError: the value is not a check. The message names the place.
    """
    try:
        row = _CHECKS.validate_python(dict(raw))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "kind"
        raise ValueError(f"check.{where}: {first['msg']}") from error
    match row:
        case _AgreementRow(peer=peer):
            return Agreement(peer=parse_worker_id(peer))
        case _HumanRow(question=question):
            return Human(question=question)
        case _:
            return _make_alone(row)


def make_grader(row: _Alone | _RecordedRow) -> Grader:
    """Make the grader of a row."""
    return Recorded() if isinstance(row, _RecordedRow) else _make_alone(row)


def _make_alone(
    row: _Alone,
) -> Exact | Numeric | MultipleChoice | JsonSchema | Pattern | UnitTests | Judge | External:
    match row:
        case _ExactRow(answers=answers):
            return Exact(answers=answers)
        case _NumericRow(answer=answer, tolerance=tolerance):
            return Numeric(answer=answer, tolerance=tolerance)
        case _ChoiceRow(letter=letter, options=options):
            return MultipleChoice(letter=letter, options=options)
        case _SchemaRow(schema_=schema):
            return JsonSchema(schema=schema)
        case _PatternRow(pattern=pattern):
            return Pattern(pattern=pattern)
        case _TestsRow(tests=tests, prefix=prefix, timeout_s=timeout_s):
            return UnitTests(tests=tests, prefix=prefix, timeout_s=timeout_s)
        case _JudgeRow(rubric=rubric, reference=reference, worker=worker):
            return Judge(rubric=rubric, reference=reference, worker=None if worker is None else parse_worker_id(worker))
        case _ExternalRow(verifier=verifier, facts=facts):
            return External(verifier=verifier, facts=facts)
        case _:
            assert_never(row)


def dump_grader(grader: Grader) -> dict[str, object]:
    """Convert a grader into a row."""
    fields = {name: getattr(grader, name) for name in grader.__dataclass_fields__}
    return {"kind": _KIND_OF[type(grader)], **fields}


_KIND_OF: dict[type, str] = {
    Exact: "exact",
    Numeric: "numeric",
    MultipleChoice: "choice",
    JsonSchema: "json_schema",
    Pattern: "pattern",
    UnitTests: "unit_tests",
    Judge: "judge",
    External: "external",
    Recorded: "recorded",
}
