"""Task files: JSON lines with one graded task each. A file is read completely or not at all."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from ripieno.domain import Message, Task
from ripieno.domain.grader import Exact, External, GradedTask, Grader, MultipleChoice, Numeric, UnitTests
from ripieno.errors import DataError
from ripieno.tasks.graders import GraderRow, dump_grader, make_grader


class _MessageRow(BaseModel, extra="forbid", frozen=True):
    role: str
    content: str


class _Row(BaseModel, extra="forbid", frozen=True):
    id: str = Field(min_length=1)
    family: str = "task"
    prompt: str | None = None
    messages: tuple[_MessageRow, ...] = ()
    grader: GraderRow | None = None
    split: Literal["train", "test"] = "train"
    template: str = ""
    answer: str | None = None
    scorer: str | None = None
    """The short form: the name of a scorer, which uses `answer` and `meta`."""
    meta: dict[str, object] = Field(default_factory=dict)


def read_tasks(path: Path) -> list[GradedTask]:
    """Read a task file.

    Raises:
        DataError: the file is missing or empty, a line is not a task, or an id occurs twice. It names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", path=str(path)) from error
    tasks: list[GradedTask] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        task = _parse_line(line, path=str(path), place=f"line {number}")
        if task.id in line_of:
            raise DataError(
                f"id {task.id!r} is also on line {line_of[task.id]}", path=str(path), place=f"line {number}"
            )
        line_of[task.id] = number
        tasks.append(task)
    if not tasks:
        raise DataError("the file has no task", path=str(path))
    return tasks


def write_tasks(tasks: Iterable[GradedTask], path: Path) -> None:
    """Write tasks as JSON lines. `read_tasks` reads them back."""
    lines = [json.dumps(_dump(task), ensure_ascii=False) for task in tasks]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _parse_line(line: str, *, path: str, place: str) -> GradedTask:
    try:
        row = _Row.model_validate_json(line)
        messages = tuple(Message(role=m.role, content=m.content) for m in row.messages)
        if row.prompt is not None:
            messages = (*messages, Message(role="user", content=row.prompt))
        task = Task(messages=messages, kind=row.family)
        grader = _make_short(row) if row.grader is None else make_grader(row.grader)
        return GradedTask(
            id=row.id, task=task, grader=grader, family=row.family, split=row.split, template=row.template
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "JSON"
        raise DataError(f"{where}: {first['msg']}", path=path, place=place) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(str(error), path=path, place=place) from error


def _make_short(row: _Row) -> Grader:
    make = _SHORT.get(row.scorer or "")
    if make is None:
        raise ValueError(f"needs a grader, or one of the scorers {', '.join(sorted(_SHORT))}; got {row.scorer!r}")
    return make(row.answer or "", row.meta)


def _letter(answer: str, meta: Mapping[str, object]) -> Grader:
    return MultipleChoice(letter=answer.strip("() "), options=tuple("ABCDEFGHIJKLMNOPQR"))


def _exact_or_letter(answer: str, meta: Mapping[str, object]) -> Grader:
    return _letter(answer, meta) if answer.startswith("(") else Exact(answers=(answer,))


def _asserts(answer: str, meta: Mapping[str, object]) -> Grader:
    tests = meta["tests"]
    lines = [str(meta.get("setup", "")), *(map(str, tests) if isinstance(tests, list) else [str(tests)])]
    return UnitTests(tests="\n".join(lines))


_SHORT: dict[str, Callable[[str, Mapping[str, object]], Grader]] = {
    "last_number": lambda answer, meta: Numeric(answer=float(answer.replace(",", ""))),
    "letter": _letter,
    "word": lambda answer, meta: Exact(answers=(answer,)),
    "exact_or_letter": _exact_or_letter,
    "python_asserts": _asserts,
    "python_tests": lambda answer, meta: UnitTests(tests=f"{meta['test']}\ncheck({meta['entry_point']})"),
    "reasoning_gym": lambda answer, meta: External(verifier="reasoning_gym", facts={**meta, "answer": answer}),
}


def _dump(task: GradedTask) -> dict[str, object]:
    return {
        "id": task.id,
        "family": task.family,
        "messages": [{"role": m.role, "content": m.text} for m in task.task.messages],
        "grader": dump_grader(task.grader),
        "split": task.split,
        "template": task.template,
    }
