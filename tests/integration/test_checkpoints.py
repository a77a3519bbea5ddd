"""Checkpoints know the features that they read, and those of the format before stay readable."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.integration.conftest import Serve, open_app, write_pool
from tests.integration.test_app import TASK, make_outcomes, save_checkpoint

from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.errors import CheckpointError
from ripieno.learn import Recipe, analyze_prompts, train
from ripieno.learn.checkpoint import Registry
from ripieno.tasks import read_folder
from ripieno.testing import FixedClock

WEIGHTS = "predictor.safetensors"


def age(registry: Registry, version: str, **changes: object) -> Path:
    """Make a saved checkpoint one of format 3, which names no features; gives its folder."""
    folder = registry.folder / version
    card = json.loads((folder / "card.json").read_text())
    card.pop("features")
    (folder / "card.json").write_text(json.dumps(card | {"format": 3} | changes))
    return folder


async def test_a_checkpoint_that_reads_one_more_scalar_is_refused_when_it_is_loaded(
    serve: Serve, tmp_path: Path
) -> None:
    write_pool(serve(), serve())
    async with open_app() as app:
        data = read_folder(make_outcomes(tmp_path / "set"))
        features = [
            replace(found, shape=np.append(found.shape, np.float32(found.turns)))
            for found in await analyze_prompts(app.analyzer, data)
        ]
        schema = app.analyzer.schema
        assert schema.shape is not None
        wider = replace(schema, shape=(*schema.shape, "turns"))
        trained = train(data, features, recipe=Recipe(), schema=wider, clock=FixedClock())
        version = app.registry.save(trained.checkpoint, trained.card)
        app.registry.promote(version)
        assert (await app.runtime.orchestrator.decide(TASK)).predictor == "prior", "the old router stays"
        assert wider.name in str(app.reload_fault)
        assert schema.name in str(app.reload_fault)
    with pytest.raises(CheckpointError) as caught:
        Installation(load_settings())
    assert wider.name in caught.value.message
    assert schema.name in caught.value.message
    registry = Registry(tmp_path / ".ripieno" / "checkpoints")
    age(registry, version)
    with pytest.raises(CheckpointError, match=r"shape/15\+tools/28'.*shape/14-") as caught:
        registry.load(version, schema=schema)
    assert "ripieno train" in str(caught.value.hint)
    assert registry.load(version, schema=wider)[0].kind == "stack"


@pytest.mark.parametrize("kind", ["stack", "heads"])
async def test_a_checkpoint_of_the_format_before_decides_as_it_did(serve: Serve, tmp_path: Path, kind: str) -> None:
    write_pool(serve(), serve())
    async with open_app() as app:
        data = read_folder(make_outcomes(tmp_path / "set"))
        features = await analyze_prompts(app.analyzer, data)
        recipe = Recipe(kind=kind)
        trained = train(data, features, recipe=recipe, schema=app.analyzer.schema, clock=FixedClock())
        version = app.registry.save(trained.checkpoint, trained.card)
        app.registry.promote(version)
        estimates = (await app.runtime.orchestrator.decide(TASK)).estimates
        age(app.registry, version)
    async with open_app() as again:
        decision = await again.runtime.orchestrator.decide(TASK)
        assert (decision.predictor, decision.estimates) == (version, estimates)
        for schema in (replace(again.analyzer.schema, width=384), replace(again.analyzer.schema, encoder="other")):
            with pytest.raises(CheckpointError):
                again.registry.load(version, schema=schema)


async def test_a_checkpoint_without_an_array_is_damaged(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve())
    async with open_app() as app:
        version = await save_checkpoint(app, make_outcomes(tmp_path / "set"))
        path = app.registry.folder / version / WEIGHTS
        arrays = load_file(path)
        for name in ("featurizer/idf", "base/margin", "newcomer/mean"):
            save_file({kept: value for kept, value in arrays.items() if kept != name}, path)
            with pytest.raises(CheckpointError, match="is damaged"):
                app.registry.load(version, schema=app.analyzer.schema)
