"""Criticality: learned from judged prompts, told honestly, and never against what a caller states."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.test_tasks import make_folder

from ripieno.analyze import Analyzer
from ripieno.domain import Objective, Task
from ripieno.encoders.static import StaticEncoder
from ripieno.errors import CheckpointError, DataError
from ripieno.learn import analyze_prompts
from ripieno.learn.criticality import FILE, fit_criticality, load_criticality, save_criticality
from ripieno.tasks import RoutingData, read_folder

GRAVE = "The patient in ward {n} has chest pain, which dose of the drug is safe now?"
LIGHT = "Tell me a joke about {n} penguins on a holiday."


def make_data(folder: Path, *, has_columns: bool = True) -> RoutingData:
    count = 60
    texts = [(GRAVE if i % 2 else LIGHT).format(n=i) for i in range(count)]
    prompts: dict[str, list[object]] = {
        "prompt_id": [f"p{i}" for i in range(count)],
        "prompt": list(texts),
        "task": ["t"] * count,
        "source": ["s"] * count,
        "split": ["train"] * count,
    }
    if has_columns:
        prompts["mission_criticality"] = [9.0 if i % 2 else 1.0 for i in range(count)]
        prompts["time_criticality"] = [8.0 if i % 2 else 2.0 for i in range(count)]
    outcomes: dict[str, list[object]] = {
        "prompt_id": [f"p{i}" for i in range(count)],
        "model_id": ["m"] * count,
        "quality": [1.0] * count,
    }
    return read_folder(make_folder(folder, prompts=prompts, outcomes=outcomes, models={"model_id": ["m"]}))


async def test_criticalities_of_unseen_prompts_are_predicted_and_stated_ones_stay(tmp_path: Path) -> None:
    plain = Analyzer(StaticEncoder())
    data = make_data(tmp_path / "set")
    fitted = fit_criticality(data, await analyze_prompts(plain, data))
    assert fitted.tasks == 60
    assert min(fitted.mission_r2, fitted.time_r2) > 0.5
    save_criticality(fitted.model, tmp_path, encoder="e")
    assert load_criticality(tmp_path, encoder="other") is None
    model = load_criticality(tmp_path, encoder="e")
    assert model is not None
    analyzer = Analyzer(StaticEncoder(), criticality=model)
    grave, light = Task.from_text(GRAVE.format(n=500)), Task.from_text(LIGHT.format(n=500))
    found, easy = await analyzer.analyze(grave), await analyzer.analyze(light)
    assert found.mission_criticality > 6 > 4 > easy.mission_criticality
    assert found.time_criticality > easy.time_criticality
    stated = Objective(mission_criticality=10.0, stated=frozenset({"mission_criticality"}))
    told = await analyzer.analyze(replace(light, objective=stated))
    assert told.mission_criticality == 10.0, "never lowered"
    assert told.time_criticality == easy.time_criticality
    assert (await plain.analyze(grave)).mission_criticality == 3.0


async def test_random_criticalities_have_no_explained_variance(tmp_path: Path) -> None:
    data = make_data(tmp_path / "set")
    rng = np.random.default_rng(0)
    noisy = replace(
        data,
        prompts=tuple(
            replace(p, mission_criticality=float(rng.random() * 10), time_criticality=float(rng.random() * 10))
            for p in data.prompts
        ),
    )
    fitted = fit_criticality(noisy, await analyze_prompts(Analyzer(StaticEncoder()), noisy))
    assert fitted.mission_r2 < 0.05
    assert fitted.time_r2 < 0.05


async def test_data_without_the_columns_and_damaged_files_are_refused(tmp_path: Path) -> None:
    data = make_data(tmp_path / "set", has_columns=False)
    with pytest.raises(DataError, match="0 prompts have both criticalities, at least 20"):
        fit_criticality(data, await analyze_prompts(Analyzer(StaticEncoder()), data))
    (tmp_path / FILE).write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_criticality(tmp_path, encoder="e")
    assert load_criticality(tmp_path / "nowhere", encoder="e") is None
