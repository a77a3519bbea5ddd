"""Graders and checks as JSON, in one form for task files and requests."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ripieno.domain import JsonValue, WorkerId, grader, parse_worker_id
from ripieno.domain.grader import Check, Grader
from ripieno.tasks.patterns import compile_pattern
from ripieno.tasks.schemas import read_schema

_Worker = Annotated[WorkerId, AfterValidator(parse_worker_id)]
RUNS_CODE = (grader.UnitTests, grader.External)
"""Checks that run code of an answer or a request, or a plugin on facts of a request."""


def _require(check: Callable[[Any], object]) -> AfterValidator:
    """Validate a value by a function that raises ValueError, and keep the value."""

    def validate(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(validate)


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
    schema_: Annotated[dict[str, object], _require(read_schema)] = Field(alias="schema")


class _TestsRow(_GraderModel):
    kind: Literal["unit_tests"]
    tests: str
    prefix: str = ""
    timeout_s: float = Field(default=5.0, gt=0)


class _PatternRow(_GraderModel):
    kind: Literal["pattern"]
    pattern: Annotated[str, _require(compile_pattern)]


class _JudgeRow(_GraderModel):
    kind: Literal["judge"]
    rubric: str
    reference: str | None = None
    worker: _Worker | None = None


class _ExternalRow(_GraderModel):
    kind: Literal["external"]
    verifier: str
    facts: dict[str, object] = Field(default_factory=dict)


class _RecordedRow(_GraderModel):
    kind: Literal["recorded"]


class _AgreementRow(_GraderModel):
    kind: Literal["agreement"]
    peer: _Worker


class _HumanRow(_GraderModel):
    kind: Literal["human"]
    question: str = grader.Human().question


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
    return cast(Check, _make(row))


def make_grader(row: _Alone | _RecordedRow) -> Grader:
    """Make the grader of a row."""
    return cast(Grader, _make(row))


def _make(row: _GraderModel) -> object:
    fields = row.model_dump(by_alias=True)
    return _CLASSES[fields.pop("kind")](**fields)


def dump_grader(given: Grader) -> dict[str, object]:
    """Convert a grader into a row."""
    fields = {name: getattr(given, name) for name in given.__dataclass_fields__}
    return {"kind": _KIND_OF[type(given)], **fields}


_CLASSES: dict[str, type[Any]] = {
    "exact": grader.Exact,
    "numeric": grader.Numeric,
    "choice": grader.MultipleChoice,
    "json_schema": grader.JsonSchema,
    "pattern": grader.Pattern,
    "unit_tests": grader.UnitTests,
    "judge": grader.Judge,
    "external": grader.External,
    "recorded": grader.Recorded,
    "agreement": grader.Agreement,
    "human": grader.Human,
}
_KIND_OF = {made: kind for kind, made in _CLASSES.items()}
