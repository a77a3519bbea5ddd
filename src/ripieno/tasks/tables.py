"""Tables of routing data: one file of columns, as parquet, JSON Lines or CSV, read completely or not at all.

JSON Lines and CSV need only the package; parquet needs the extra `data`.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ripieno.errors import DataError
from ripieno.plugins import needs_extra

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Indices = np.ndarray[tuple[int], np.dtype[np.int64]]

ENDINGS = ("parquet", "jsonl", "csv")
LONGEST_FIELD = 64 * 1024 * 1024
"""Most characters of one field of a CSV file. Python's default limit of 131,072 is too small for prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTable:
    """Columns of one file. Rows are counted from 0, without the header."""

    path: str
    rows: int
    columns: Mapping[str, Sequence[object]]
    """Values of each column; None if a value is missing."""
    reads_text: bool = False
    """Whether all values are texts, as in a CSV file, where an empty text is a missing number."""

    def numbers(self, name: str) -> Floats:
        """Return the values of a number column; NaN if a value is missing.

        Raises:
            DataError: a value is not a number.
        """
        values = self.columns[name]
        if set(map(type, values)) <= {float, int, type(None)}:
            with suppress(OverflowError):  # the loop below names the row
                return np.array(values, dtype=np.float64)
        numbers = np.empty(self.rows)
        for row, value in enumerate(values):
            try:
                numbers[row] = self._to_number(value)
            except (ValueError, OverflowError) as error:
                place = f"{name}, row {row}"
                raise DataError(f"must be a finite number, got {value!r}", path=self.path, place=place) from error
        return numbers

    def _to_number(self, value: object) -> float:
        if value is None or (self.reads_text and value == ""):
            return math.nan
        if isinstance(value, bool) or isinstance(value, str) is not self.reads_text:
            raise ValueError("not a number")
        if isinstance(value, str | int | float):
            return float(value)
        raise ValueError("not a number")

    def find(self, name: str, known: Mapping[str, int], where: str) -> Indices:
        """Return the place of each value of a column among the known ones.

        Raises:
            DataError: a value is unknown. The error names the known ones by `where`.
        """
        places = np.array([known.get(str(value), -1) for value in self.columns[name]], dtype=np.int64)
        unknown = np.flatnonzero(places < 0)
        if len(unknown):
            row = int(unknown[0])
            raise DataError(
                f"{self.columns[name][row]!r} is not in {where}", path=self.path, place=f"{name}, row {row}"
            )
        return places


def find_table(folder: Path, name: str) -> Path:
    """Find the file of a table: `NAME.parquet`, `NAME.jsonl` or `NAME.csv`.

    Raises:
        DataError: there is no such file, or more than one.
    """
    found = [path for ending in ENDINGS if (path := folder / f"{name}.{ending}").exists()]
    if not found:
        raise DataError(
            "the file is missing",
            path=str(folder / f"{name}.parquet"),
            hint="a data set has prompts, outcomes and models, each as .parquet, .jsonl or .csv",
        )
    if len(found) > 1:
        raise DataError(f"this table also has the file {found[1].name}", path=str(found[0]), hint="remove one of them")
    return found[0]


def read_table(path: Path, *, aliases: Mapping[str, str]) -> DataTable:
    """Read a table in the format of its extension.

    Raises:
        DataError: the content does not match the extension.
        MissingExtra: the file is parquet, and the extra `data` is not installed.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path, aliases)
    try:
        rows = _read_csv(path) if path.suffix == ".csv" else _read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the file cannot be read: {error}", path=str(path)) from error
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {aliases.get(name, name): [row.get(name) for row in rows] for name in names}
    return DataTable(path=str(path), rows=len(rows), columns=columns, reads_text=path.suffix == ".csv")


def write_table(columns: Mapping[str, Sequence[object]], path: Path, *, whole: Sequence[str] = ()) -> None:
    """Write a table in the format of its extension: `.jsonl`, `.csv`, or parquet for any other.

    None stands for a missing value. `whole` names the columns of integers.

    Raises:
        MissingExtra: the format is parquet, and the extra `data` is not installed. Nothing was written.
    """
    names = list(columns)
    match path.suffix:
        case ".jsonl":
            with path.open("w", encoding="utf-8") as file:
                for row in zip(*columns.values(), strict=True):
                    file.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n")
        case ".csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(names)
                writer.writerows(zip(*columns.values(), strict=True))
        case _:
            _write_parquet(columns, path, whole)


def _read_lines(path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"not JSON: {error}", path=str(path), place=f"row {len(rows)}") from error
            if not isinstance(row, dict):
                raise DataError("must be a JSON object", path=str(path), place=f"row {len(rows)}")
            rows.append(row)
    return rows


def _read_csv(path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    usual = csv.field_size_limit(LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            names = next(reader, [])
            if len(set(names)) < len(names):
                twice = next(name for place, name in enumerate(names) if name in names[:place])
                raise DataError("the column occurs twice", path=str(path), place=f"column {twice}")
            for row in reader:
                if len(row) != len(names):
                    fault = f"has {len(row)} fields, and the header has {len(names)}"
                    raise DataError(fault, path=str(path), place=f"row {len(rows)}")
                rows.append(dict(zip(names, row, strict=True)))
    except csv.Error as error:
        raise DataError(f"not CSV: {error}", path=str(path), place=f"row {len(rows)}") from error
    finally:
        csv.field_size_limit(usual)
    return rows


def _read_parquet(path: Path, aliases: Mapping[str, str]) -> DataTable:
    with needs_extra("data", f"reading {path.name}"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not a parquet file ({type(error).__name__})", path=str(path)) from error
    columns = {aliases.get(name, name): table.column(name).to_pylist() for name in table.column_names}
    return DataTable(path=str(path), rows=table.num_rows, columns=columns)


def _write_parquet(columns: Mapping[str, Sequence[object]], path: Path, whole: Sequence[str]) -> None:
    with needs_extra("data", f"writing {path.name}"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    made = {}
    for name, values in columns.items():
        is_text = any(isinstance(value, str) for value in values)
        is_number = any(isinstance(value, int | float) for value in values)
        kind = pa.int64() if name in whole else pa.float64() if is_number and not is_text else pa.string()
        made[name] = pa.array(values, kind)
    pq.write_table(pa.table(made), path, compression="zstd")
