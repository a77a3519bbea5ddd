"""Leaving whole kinds of tasks out: what holds everywhere carries over, what a kind alone shows does not."""

from pathlib import Path

import numpy as np
import pytest
from tests.learning.test_predictors import SKILL, THINGS, TOPICS
from tests.unit.test_tasks import make_folder

from ripieno.analyze import Analyzer
from ripieno.encoders.static import StaticEncoder
from ripieno.errors import DataError
from ripieno.evaluate.transfer import leave_dataset_out
from ripieno.learn import analyze_prompts
from ripieno.tasks import RoutingData, read_folder

WORKERS = ("chef", "coder", "even")


def make_data(folder: Path, *, kinds: tuple[str, ...], labels: bool = True) -> RoutingData:
    rng, count = np.random.default_rng(0), 360
    drawn = [kinds[int(place)] for place in rng.integers(len(kinds), size=count)]
    texts = [TOPICS[kind].format(n=i, x=THINGS[i % len(THINGS)]) for i, kind in enumerate(drawn)]
    prompts: dict[str, list[object]] = {
        "prompt_id": [f"p{i}" for i in range(count)],
        "prompt": list(texts),
        "task": [*drawn] if labels else ["t"] * count,
        "source": [*drawn],
        "split": ["test" if i % 3 == 0 else "train" for i in range(count)],
    }
    outcomes: dict[str, list[object]] = {
        "prompt_id": [f"p{i}" for i in range(count) for _ in WORKERS],
        "model_id": [*WORKERS] * count,
        "quality": [float(rng.random() < skill) for kind in drawn for skill in SKILL[kind]],
    }
    return read_folder(make_folder(folder, prompts=prompts, outcomes=outcomes, models={"model_id": [*WORKERS]}))


@pytest.mark.parametrize("labels", [True, False])
async def test_each_kind_or_source_is_left_out_in_turn(tmp_path: Path, labels: bool) -> None:
    data = make_data(tmp_path / "set", kinds=tuple(TOPICS), labels=labels)
    features = await analyze_prompts(Analyzer(StaticEncoder()), data)
    lines = {line.name: line for line in leave_dataset_out(data, features, kind="ridge")}
    assert set(lines) == set(TOPICS)
    assert sum(line.tasks for line in lines.values()) == len(data.split_rows("test"))
    for line in lines.values():
        assert line.gain.low <= line.gain.mean <= line.gain.high
        assert line.router - line.best_single == pytest.approx(line.gain.mean)
    assert lines["code"].best_single < 0.65, "who is best elsewhere is not best at code"


async def test_one_kind_cannot_be_left_out(tmp_path: Path) -> None:
    data = make_data(tmp_path / "set", kinds=("cook",))
    features = await analyze_prompts(Analyzer(StaticEncoder()), data)
    with pytest.raises(DataError, match="fewer than two kinds have 20 held-out tasks"):
        leave_dataset_out(data, features)
