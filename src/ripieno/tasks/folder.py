"""Routing data: one folder of prompts, outcomes and models, each as parquet, JSON Lines or CSV."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

import numpy as np

from ripieno.domain import JsonValue, Message, Task
from ripieno.errors import DataError
from ripieno.tasks.tables import ENDINGS, DataTable, Floats, Indices, find_table, read_table, write_table

PROMPT_COLUMNS = ("prompt_id", "prompt", "task", "source", "split")
OUTCOME_COLUMNS = ("prompt_id", "model_id", "quality", "cost_usd", "latency_s", "input_tokens", "output_tokens")
MODEL_COLUMNS = ("model_id", "price_in", "price_out", "context_window", "description")
WHOLE = ("input_tokens", "output_tokens", "context_window")
"""Columns of integers."""
CRITICALITY_COLUMNS = ("mission_criticality", "time_criticality")
ALIASES = {"price_in_usd_per_mtok": "price_in", "price_out_usd_per_mtok": "price_out"}

Form = Literal["parquet", "jsonl", "csv"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One row of the prompts."""

    id: str
    text: str
    kind: str
    source: str
    split: str
    group: str = ""
    """A split never separates prompts of one group; empty means that the text is the group."""
    tools: tuple[Mapping[str, JsonValue], ...] = ()
    domain: str | None = None
    """A finer label than the kind, from the optional column `domain`."""
    mission_criticality: float | None = None
    """Cost of a wrong answer, in [0, 10], from the optional column of that name."""
    time_criticality: float | None = None

    @property
    def task(self) -> Task:
        """Return the prompt as a task of one user message."""
        return Task(messages=(Message(role="user", content=self.text),), tools=self.tools, kind=self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One row of the models."""

    id: str
    price_in: float | None = None
    """USD per million input tokens."""
    price_out: float | None = None
    context_window: int | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutingData:
    """A data set: n prompts, m models, k outcomes. NaN means an unknown cost, latency or count."""

    name: str
    prompts: tuple[Prompt, ...]
    models: tuple[Model, ...]
    prompt_index: Indices
    """Row of the prompt of each outcome, shape (k,)."""
    model_index: Indices
    """Row of the model of each outcome, shape (k,)."""
    quality: Floats
    cost_usd: Floats
    latency_s: Floats
    input_tokens: Floats
    output_tokens: Floats

    def split_rows(self, split: str) -> Indices:
        """Return the rows of the prompts of one split."""
        return np.array([row for row, prompt in enumerate(self.prompts) if prompt.split == split], dtype=np.int64)

    def matrix(self, values: Floats) -> np.ndarray:
        """Return the mean of `values` for each (prompt, model), shape (n, m); NaN if a pair has none."""
        shape = (len(self.prompts), len(self.models))
        known = ~np.isnan(values)
        flat = self.prompt_index[known] * shape[1] + self.model_index[known]
        sums = np.bincount(flat, weights=values[known], minlength=shape[0] * shape[1])
        counts = np.bincount(flat, minlength=shape[0] * shape[1])
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(shape)

    def counts(self) -> np.ndarray:
        """Count the outcomes of each (prompt, model), shape (n, m)."""
        shape = (len(self.prompts), len(self.models))
        flat = self.prompt_index * shape[1] + self.model_index
        return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def read_folder(folder: Path) -> RoutingData:
    """Read a routing-data folder. Each table may be parquet, JSON Lines or CSV.

    Raises:
        DataError: a file, a column or a value is broken. The error names file, column and first bad row.
        MissingExtra: a file is parquet, and the extra `data` is not installed.
    """
    prompts_at, outcomes_at, models_at = (find_table(folder, name) for name in ("prompts", "outcomes", "models"))
    prompts = _read_prompts(prompts_at)
    models = _read_models(models_at)
    table = _open_table(outcomes_at, ("prompt_id", "model_id", "quality"))
    prompt_row = {prompt.id: row for row, prompt in enumerate(prompts)}
    model_row = {model.id: row for row, model in enumerate(models)}
    quality = _floats(table, "quality", is_required=True)
    _refuse(quality, (quality < 0.0) | (quality > 1.0), "quality must be in [0, 1]", table, "quality")
    numbers = {name: _floats(table, name, is_required=False) for name in OUTCOME_COLUMNS[3:]}
    for name, values in numbers.items():
        _refuse(values, values < 0.0, "must not be negative", table, name)
    return RoutingData(
        name=folder.resolve().name,
        prompts=prompts,
        models=models,
        prompt_index=table.find("prompt_id", prompt_row, prompts_at.name),
        model_index=table.find("model_id", model_row, models_at.name),
        quality=quality,
        **numbers,
    )


def write_folder(data: RoutingData, folder: Path, *, form: Form | None = None) -> Form:
    """Write a data set in the same layout. The folder is created, and existing files of the layout are replaced.

    The default format is parquet if the extra `data` is installed, else JSON Lines.

    Returns:
        The format of the files.

    Raises:
        MissingExtra: the format is parquet, and the extra `data` is not installed. No file was changed.
    """
    chosen: Form = form or ("parquet" if find_spec("pyarrow") is not None else "jsonl")
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"prompts": _list_prompts(data), "outcomes": _list_outcomes(data), "models": _list_models(data)}
    for name, columns in tables.items():
        write_table(columns, folder / f"{name}.{chosen}", whole=WHOLE)
        for ending in set(ENDINGS) - {chosen}:
            (folder / f"{name}.{ending}").unlink(missing_ok=True)
    return chosen


def _list_prompts(data: RoutingData) -> dict[str, list[object]]:
    rows = [(prompt.id, prompt.text, prompt.kind, prompt.source, prompt.split) for prompt in data.prompts]
    columns: dict[str, list[object]] = {name: [row[place] for row in rows] for place, name in enumerate(PROMPT_COLUMNS)}
    if any(prompt.domain for prompt in data.prompts):
        columns["domain"] = [prompt.domain or "" for prompt in data.prompts]
    if any(prompt.mission_criticality is not None for prompt in data.prompts):
        columns |= {name: [getattr(prompt, name) for prompt in data.prompts] for name in CRITICALITY_COLUMNS}
    if any(prompt.tools for prompt in data.prompts):
        columns["tools_json"] = [json.dumps(prompt.tools, default=list) for prompt in data.prompts]
    return columns


def _list_outcomes(data: RoutingData) -> dict[str, list[object]]:
    return {
        "prompt_id": [data.prompts[row].id for row in data.prompt_index],
        "model_id": [data.models[row].id for row in data.model_index],
        **{name: _nullable(getattr(data, name), is_whole=name in WHOLE) for name in OUTCOME_COLUMNS[2:]},
    }


def _list_models(data: RoutingData) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = {"model_id": [model.id for model in data.models]}
    return columns | {name: [getattr(model, name) for model in data.models] for name in MODEL_COLUMNS[1:]}


def keep_models(data: RoutingData, keep: Sequence[int]) -> RoutingData:
    """Return the data set with only these models, in this order."""
    place = {column: index for index, column in enumerate(keep)}
    rows = np.flatnonzero(np.isin(data.model_index, list(keep)))
    columns = np.array([place[int(column)] for column in data.model_index[rows]], dtype=np.int64)
    kept = {name: getattr(data, name)[rows] for name in ("prompt_index", *OUTCOME_COLUMNS[2:])}
    return replace(data, models=tuple(data.models[column] for column in keep), model_index=columns, **kept)


def _read_prompts(path: Path) -> tuple[Prompt, ...]:
    table = _open_table(path, PROMPT_COLUMNS)
    columns = {name: _check_texts(table.columns[name], name, table.path) for name in PROMPT_COLUMNS}
    _refuse_repeats(columns["prompt_id"], "prompt_id", str(path))
    tools, domains = _optional(table, "tools_json"), _optional(table, "domain")
    criticalities = {name: _floats(table, name, is_required=False) for name in CRITICALITY_COLUMNS}
    return tuple(
        Prompt(
            id=name,
            text=text,
            kind=kind,
            source=source,
            split=split,
            tools=_parse_tools(tools[row], row, str(path)),
            domain=domains[row],
            mission_criticality=_known(criticalities["mission_criticality"][row]),
            time_criticality=_known(criticalities["time_criticality"][row]),
        )
        for row, (name, text, kind, source, split) in enumerate(zip(*columns.values(), strict=True))
    )


def _optional(table: DataTable, name: str) -> list[str | None]:
    """Return an optional column of texts. An empty text counts as None."""
    if name not in table.columns:
        return [None] * table.rows
    values = ["" if value is None else value for value in table.columns[name]]
    return [text or None for text in _check_texts(values, name, table.path)]


def _read_models(path: Path) -> tuple[Model, ...]:
    table = _open_table(path, ("model_id",))
    names = _check_texts(table.columns["model_id"], "model_id", table.path)
    _refuse_repeats(names, "model_id", str(path))
    numbers = {name: _floats(table, name, is_required=False) for name in MODEL_COLUMNS[1:4]}
    texts = _optional(table, "description")
    return tuple(
        Model(
            id=name,
            price_in=_known(numbers["price_in"][row]),
            price_out=_known(numbers["price_out"][row]),
            context_window=None if np.isnan(numbers["context_window"][row]) else int(numbers["context_window"][row]),
            description=texts[row],
        )
        for row, name in enumerate(names)
    )


def _open_table(path: Path, required: Sequence[str]) -> DataTable:
    table = read_table(path, aliases=ALIASES)
    if not table.rows:
        raise DataError("the file has no rows", path=str(path))
    for name in required:
        if name not in table.columns:
            raise DataError("the column is missing", path=str(path), place=f"column {name}")
    return table


def _check_texts(values: Sequence[object], name: str, path: str) -> list[str]:
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"must be text, got {value!r}", path=path, place=f"{name}, row {row}")
    return cast(list[str], values)


def _floats(table: DataTable, name: str, *, is_required: bool) -> Floats:
    if name not in table.columns:
        return np.full(table.rows, np.nan)
    values = table.numbers(name)
    _refuse(values, np.isinf(values) | (np.isnan(values) & is_required), "must be a finite number", table, name)
    return values


def _refuse(values: Floats, is_bad: np.ndarray, rule: str, table: DataTable, name: str) -> None:
    """Refuse a column by its first bad value, if there is one."""
    bad = np.flatnonzero(is_bad)
    if len(bad):
        row = int(bad[0])
        raise DataError(f"{rule}, got {values[row]!r}", path=table.path, place=f"{name}, row {row}")


def _refuse_repeats(values: Sequence[str], name: str, path: str) -> None:
    seen: set[str] = set()
    for row, value in enumerate(values):
        if value in seen:
            raise DataError(f"{value!r} occurs twice", path=path, place=f"{name}, row {row}")
        seen.add(value)


def _parse_tools(raw: str | None, row: int, path: str) -> tuple[Mapping[str, JsonValue], ...]:
    if not raw:
        return ()
    try:
        tools = json.loads(raw)
    except ValueError as error:
        raise DataError(f"not JSON: {error}", path=path, place=f"tools_json, row {row}") from error
    if not isinstance(tools, list):
        raise DataError("must be a JSON list", path=path, place=f"tools_json, row {row}")
    return tuple(tool for tool in tools if isinstance(tool, dict))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _nullable(values: Floats, *, is_whole: bool) -> list[object]:
    return [None if np.isnan(value) else (int(value) if is_whole else float(value)) for value in values]
