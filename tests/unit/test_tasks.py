"""Task files and routing folders: read completely, or refused with the place."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ripieno.domain.grader import (
    Exact,
    External,
    JsonSchema,
    Judge,
    MultipleChoice,
    Numeric,
    Pattern,
    Recorded,
    UnitTests,
)
from ripieno.embedded.families import generate_tasks
from ripieno.errors import DataError, MissingExtra
from ripieno.learn.publish import publish_dataset
from ripieno.tasks import make_training_set, read_folder, read_tasks, split_repeats, write_folder, write_tasks
from ripieno.tasks.folder import Form
from ripieno.tasks.tables import write_table
from ripieno.testing.conformance import make_features

FORMS: tuple[Form, ...] = ("parquet", "jsonl", "csv")


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_every_grader_can_be_written_in_a_task_file(tmp_path: Path) -> None:
    graders = [
        ({"kind": "exact", "answers": ["a"]}, Exact(answers=("a",))),
        ({"kind": "numeric", "answer": 2, "tolerance": 0.1}, Numeric(answer=2.0, tolerance=0.1)),
        ({"kind": "choice", "letter": "B", "options": ["A", "B"]}, MultipleChoice(letter="B", options=("A", "B"))),
        ({"kind": "json_schema", "schema": {"type": "object"}}, JsonSchema(schema={"type": "object"})),
        ({"kind": "unit_tests", "tests": "assert f()"}, UnitTests(tests="assert f()")),
        ({"kind": "judge", "rubric": "5 is best"}, Judge(rubric="5 is best")),
        ({"kind": "pattern", "pattern": "[0-9]+"}, Pattern(pattern="[0-9]+")),
        ({"kind": "external", "verifier": "v", "facts": {"x": 1}}, External(verifier="v", facts={"x": 1})),
        ({"kind": "recorded"}, Recorded()),
    ]
    rows = [{"id": str(i), "prompt": "p", "grader": raw} for i, (raw, _) in enumerate(graders)]
    path = write_lines(tmp_path / "t.jsonl", *rows)
    tasks = read_tasks(path)
    assert [task.grader for task in tasks] == [grader for _, grader in graders]
    again = tmp_path / "again.jsonl"
    write_tasks(tasks, again)
    assert read_tasks(again) == tasks


def test_embedded_tasks_survive_a_round_trip(tmp_path: Path) -> None:
    tasks = generate_tasks(train=3, test=2, seed=4)
    path = tmp_path / "t.jsonl"
    write_tasks(tasks, path)
    assert read_tasks(path) == tasks


def test_short_scorers_are_read(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "prompt": "p", "answer": "1,200", "scorer": "last_number"},
        {"id": "2", "prompt": "p", "answer": "D", "scorer": "letter"},
        {"id": "3", "prompt": "p", "answer": "(B)", "scorer": "exact_or_letter"},
        {"id": "4", "prompt": "p", "answer": "yes", "scorer": "exact_or_letter"},
        {"id": "5", "prompt": "p", "answer": "cat", "scorer": "word"},
        {"id": "6", "prompt": "p", "answer": None, "scorer": "python_asserts", "meta": {"tests": ["assert 1"]}},
        {"id": "7", "prompt": "p", "scorer": "python_tests", "meta": {"test": "def check(f): ...", "entry_point": "g"}},
        {"id": "8", "prompt": "p", "answer": "3", "scorer": "reasoning_gym", "meta": {"dataset": "chain_sum"}},
    ]
    graders = [task.grader for task in read_tasks(write_lines(tmp_path / "t.jsonl", *rows))]
    assert graders[0] == Numeric(answer=1200.0)
    assert isinstance(graders[2], MultipleChoice)
    assert graders[2].letter == "B"
    assert graders[3] == Exact(answers=("yes",))
    assert isinstance(graders[6], UnitTests)
    assert graders[6].tests.endswith("check(g)")
    assert isinstance(graders[7], External)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "JSON"),
        ('{"id": "x", "prompt": "p"}', "needs a grader"),
        ('{"id": "x", "prompt": "p", "scorer": "vibes"}', "vibes"),
        ('{"id": "x", "prompt": "p", "scorer": "last_number", "answer": "many"}', "many"),
        ('{"id": "x", "grader": {"kind": "recorded"}}', "at least one message"),
        ('{"id": "x", "prompt": "p", "grader": {"kind": "recorded"}, "colour": 1}', "colour"),
        ('{"id": "ok", "prompt": "p", "grader": {"kind": "recorded"}}', "is also on line 1"),
    ],
)
def test_an_invalid_line_is_named_and_nothing_is_read(tmp_path: Path, line: str, told: str) -> None:
    good = {"id": "ok", "prompt": "p", "grader": {"kind": "recorded"}}
    path = write_lines(tmp_path / "t.jsonl", good, "", line)
    with pytest.raises(DataError, match=told) as caught:
        read_tasks(path)
    assert caught.value.place == "line 3"


def test_missing_empty_and_binary_task_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_tasks(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="has no task"):
        read_tasks(write_lines(tmp_path / "empty.jsonl", ""))
    (tmp_path / "bin.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        read_tasks(tmp_path / "bin.jsonl")


PROMPTS: dict[str, list[object]] = {
    "prompt_id": ["p1", "p2"],
    "prompt": ["hello", "bye"],
    "task": ["a", "b"],
    "source": ["s", "s"],
    "split": ["train", "test"],
}
OUTCOMES: dict[str, list[object]] = {
    "prompt_id": ["p1", "p1", "p2", "p2"],
    "model_id": ["m1", "m1", "m1", "m2"],
    "quality": [1.0, 0.0, 0.5, 1.0],
    "cost_usd": [0.1, None, 0.2, 0.3],
}
MODELS: dict[str, list[object]] = {
    "model_id": ["m1", "m2"],
    "price_in_usd_per_mtok": [1.0, None],
    "context_window": [None, 4096],
}


def make_folder(folder: Path, form: Form = "parquet", **changes: dict[str, list[object]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, columns in {"prompts": PROMPTS, "outcomes": OUTCOMES, "models": MODELS, **changes}.items():
        if form == "parquet":
            pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        else:
            write_table(columns, folder / f"{name}.{form}")
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_survives_a_round_trip(tmp_path: Path, form: Form) -> None:
    tools = PROMPTS | {
        "prompt": ['say "x, y"\nand\u2028é', "bye"],
        "tools_json": ['[{"name": "f"}]', None],
        "domain": ["law/tax", None],
        "mission_criticality": [7.5, None],
        "time_criticality": [1, 2],
    }
    data = read_folder(make_folder(tmp_path / "set", form, prompts=tools))
    assert write_folder(data, tmp_path / "copy", form=form) == form
    again = read_folder(tmp_path / "copy")
    assert data.prompts[0].text == tools["prompt"][0]
    assert (data.prompts[0].domain, data.prompts[1].domain) == ("law/tax", None)
    assert (data.prompts[0].mission_criticality, data.prompts[1].mission_criticality) == (7.5, None)
    np.testing.assert_array_equal(again.input_tokens, data.input_tokens)
    assert again.prompts == data.prompts
    assert again.models == data.models
    assert data.models[0].price_in == 1.0
    np.testing.assert_array_equal(again.quality, data.quality)
    np.testing.assert_array_equal(again.cost_usd, data.cost_usd)
    assert data.prompts[0].task.tools == ({"name": "f"},)


def test_repeats_are_averaged_and_can_be_split(tmp_path: Path) -> None:
    data = read_folder(make_folder(tmp_path / "set"))
    matrix = data.matrix(data.quality)
    assert matrix[0, 0] == 0.5
    assert np.isnan(matrix[0, 1])
    halves = split_repeats(data)
    assert halves is not None
    assert (halves[0][0, 0], halves[1][0, 0]) == (1.0, 0.0)
    rows = data.split_rows("train")
    training = make_training_set(data, [make_features()], rows)
    assert training.counts.tolist() == [[2.0, 0.0]]
    assert training.groups == ("hello",)
    single = {name: values[:1] for name, values in OUTCOMES.items()}
    assert split_repeats(read_folder(make_folder(tmp_path / "one", outcomes=single))) is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("table", "change", "told"),
    [
        ("outcomes", {"quality": [1.0, 0.0, 1.5, 1.0]}, "quality, row 2"),
        ("outcomes", {"quality": [1.0, None, 0.5, 1.0]}, "quality, row 1"),
        ("outcomes", {"quality": ["a", "b", "c", "d"]}, "quality, row 0"),
        ("outcomes", {"cost_usd": [0.1, -1.0, 0.2, 0.3]}, "cost_usd, row 1"),
        ("outcomes", {"cost_usd": [0.1, float("inf"), 0.2, 0.3]}, "cost_usd, row 1"),
        ("outcomes", {"model_id": ["m1", "m1", "m1", "m9"]}, "model_id, row 3"),
        ("outcomes", {"prompt_id": ["p1", "p1", "p9", "p2"]}, "prompt_id, row 2"),
        ("prompts", {"prompt_id": ["p1", "p1"]}, "prompt_id, row 1"),
        ("prompts", {"prompt": ["hello", None]}, "prompt, row 1"),
        ("prompts", {"tools_json": ["[", "[]"]}, "tools_json, row 0"),
        ("prompts", {"tools_json": ["{}", "[]"]}, "tools_json, row 0"),
        ("models", {"model_id": ["m1", "m1"]}, "model_id, row 1"),
    ],
)
def test_a_broken_folder_is_refused_with_file_column_and_row(
    tmp_path: Path, form: Form, table: str, change: dict[str, list[object]], told: str
) -> None:
    base = {"prompts": PROMPTS, "outcomes": OUTCOMES, "models": MODELS}[table]
    folder = make_folder(tmp_path / "set", form, **{table: base | change})
    if form == "csv" and change.get("prompt") == ["hello", None]:
        assert read_folder(folder).prompts[1].text == "", "CSV cannot tell no text from an empty one"
        return
    with pytest.raises(DataError) as caught:
        read_folder(folder)
    assert caught.value.path.endswith(f"{table}.{form}")
    assert caught.value.place == told


@pytest.mark.parametrize(
    ("name", "text", "told", "place"),
    [
        ("prompts.jsonl", '{"prompt_id": "p1"}\n{"prompt_id"', "not JSON", "row 1"),
        ("prompts.jsonl", '\n\n["p1"]\n', "must be a JSON object", "row 0"),
        ("prompts.jsonl", "", "has no rows", None),
        ("prompts.jsonl", '{"prompt_id": "p1"}\n', "the column is missing", "column prompt"),
        ("prompts.csv", "prompt_id,prompt\np1,a,b\n", "has 3 fields, and the header has 2", "row 0"),
        ("prompts.csv", "prompt_id,prompt_id\np1,p2\n", "occurs twice", "column prompt_id"),
        ("prompts.csv", 'prompt_id\n"p1"x\n', "not CSV", "row 0"),
        ("prompts.csv", "", "has no rows", None),
        ("models.jsonl", '{"model_id": "m1", "description": 3}\n', "must be text, got 3", "description, row 0"),
        ("models.jsonl", '{"model_id": "m1", "price_in": "3"}\n', "got '3'", "price_in, row 0"),
        ("models.jsonl", '{"model_id": "m1", "price_in": true}\n', "got True", "price_in, row 0"),
        ("models.jsonl", '{"model_id": "m1", "price_in": [3]}\n', "got [3]", "price_in, row 0"),
        ("models.jsonl", '{"model_id": "m1", "price_in": 1' + "0" * 400 + "}\n", "finite number", "price_in, row 0"),
        ("models.csv", "model_id,price_in\nm1,1e999\n", "must be a finite number", "price_in, row 0"),
    ],
)
def test_an_invalid_table_is_refused_with_its_place(
    tmp_path: Path, name: str, text: str, told: str, place: str | None
) -> None:
    folder = make_folder(tmp_path / "set", "jsonl")
    (folder / name).with_suffix(".jsonl").unlink()
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=re.escape(told)) as caught:
        read_folder(folder)
    assert (caught.value.path, caught.value.place) == (str(folder / name), place)


def test_a_duplicate_or_unreadable_table_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", "jsonl")
    make_folder(folder, "csv")
    with pytest.raises(DataError, match=r"also has the file prompts\.csv"):
        read_folder(folder)
    data = read_folder(make_folder(tmp_path / "one", "csv"))
    assert write_folder(data, folder, form="parquet") == "parquet"
    assert sorted(path.suffix for path in folder.iterdir()) == [".parquet"] * 3, "other forms of a table are replaced"
    assert read_folder(folder).prompts == data.prompts
    (tmp_path / "one" / "models.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        read_folder(tmp_path / "one")


def test_long_fields_and_numbers_as_ids_are_read(tmp_path: Path) -> None:
    long = PROMPTS | {"prompt": ["x" * 200_000, "bye"]}
    for form in FORMS:
        assert len(read_folder(make_folder(tmp_path / form, form, prompts=long)).prompts[0].text) == 200_000
    folder = make_folder(tmp_path / "ids", "jsonl", prompts=PROMPTS | {"prompt_id": ["1", "2"]})
    (folder / "outcomes.jsonl").write_text('{"prompt_id": 2, "model_id": "m1", "quality": 1}\n')
    assert read_folder(folder).prompt_index.tolist() == [1]


def test_without_pyarrow_parquet_names_its_extra_and_folders_are_json_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_folder(make_folder(tmp_path / "set"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for act in (lambda: read_folder(tmp_path / "set"), lambda: write_folder(data, tmp_path / "set", form="parquet")):
        with pytest.raises(MissingExtra) as caught:
            act()
        assert (caught.value.extra, caught.value.hint) == ("data", "pip install 'ripieno[data]'")
    assert len(list((tmp_path / "set").glob("*.parquet"))) == 3
    assert write_folder(data, tmp_path / "copy") == "jsonl"
    assert read_folder(tmp_path / "copy").prompts == data.prompts


def test_the_page_of_a_data_set_published_without_pyarrow_names_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_folder(make_folder(tmp_path / "set", "csv"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    folder = publish_dataset(data, tmp_path / "out", licence="mit", sources={"s": "cc0-1.0"})
    page = (folder / "README.md").read_text()
    named = set(re.findall(r"\w+\.(?:parquet|jsonl)", page))
    assert named == {path.name for path in folder.iterdir()} - {"README.md"}


def test_missing_files_columns_and_rows_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set")
    (folder / "models.parquet").unlink()
    with pytest.raises(DataError, match="the file is missing"):
        read_folder(folder)
    (folder / "models.parquet").write_text("not parquet")
    with pytest.raises(DataError, match="not a parquet file"):
        read_folder(folder)
    with pytest.raises(DataError, match="column split"):
        read_folder(make_folder(tmp_path / "b", prompts={k: v for k, v in PROMPTS.items() if k != "split"}))
    empty = {name: pa.array([], pa.string()) for name in PROMPTS}
    with pytest.raises(DataError, match="no rows"):
        read_folder(make_folder(tmp_path / "c", prompts=empty))


def test_all_shared_sets_are_read(shared_data: Path) -> None:
    names = [folder.name for folder in sorted(shared_data.iterdir()) if (folder / "outcomes.parquet").exists()]
    assert len(names) >= 8 + 1
    for name in names:
        data = read_folder(shared_data / name)
        assert len(data.split_rows("train"))
        assert len(data.split_rows("test"))


def test_all_shared_task_files_are_read(shared_data: Path) -> None:
    for name in ("gsm8k", "mcq", "mbpp", "humaneval", "bbh", "spelling", "sentiment", "reasoning-gym"):
        assert len(read_tasks(shared_data / "tasks" / name / "tasks.jsonl")) > 100
