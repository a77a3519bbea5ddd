"""The tiny policy: its gradient against differences, its plans, and its file."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from ripieno.conductor import Roster
from ripieno.conductor.base import Brief
from ripieno.conductor.policy import ACTIONS, NUMBERS, STOP, Cursor, Scene, TinyPolicy, list_choices
from ripieno.conductor.tiny import describe_plan, load_policy, load_tiny, save_policy
from ripieno.domain import Binding, Estimate, Op, Task, Worker, WorkerId
from ripieno.encoders.static import StaticEncoder
from ripieno.errors import CheckpointError
from ripieno.testing.conformance import make_features


def make_scene(rng: np.random.Generator, *, count: int = 6, workers: int = 5) -> Scene:
    numbers = rng.normal(size=(count, workers, NUMBERS))
    numbers[:, :, 5] = rng.random((count, workers)) < 0.4
    present = rng.random((count, workers)) < 0.8
    present[:, 0] = True
    words = rng.normal(size=(count, workers, 8)) * present[:, :, None]
    return Scene(rng.normal(size=(count, 10)), words, numbers * present[:, :, None], present)


def make_policy(rng: np.random.Generator, *, most_steps: int = 5) -> TinyPolicy:
    return TinyPolicy.init(tasks=10, words=8, rng=rng, most_steps=most_steps)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_gradient_is_that_of_the_log_probability(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene, policy = make_scene(rng), make_policy(rng)
    cursor = Cursor(np.array([0, 1, 2, 3, 1, 2]), np.array([STOP, 0, 3, 4, 1, 6]), np.array([-1, 0, 0, 1, 0, 0]))
    scene.present[:, 1] = True
    action, worker = np.array([0, 3, STOP, 6, 4, 7]), np.zeros(6, dtype=np.int64)
    weight = rng.normal(size=6)

    def value() -> float:
        _, logs = policy.gradient(policy.look(scene, cursor), action, worker, weight)
        return float((logs * weight).sum())

    gradient, _ = policy.gradient(policy.look(scene, cursor), action, worker, weight)
    for name, array in policy.parameters.items():
        place = tuple(int(rng.integers(size)) for size in array.shape)
        kept, step = array[place], 1e-6
        array[place] = kept + step
        above = value()
        array[place] = kept - step
        below = value()
        array[place] = kept
        # central differences of float64 hold about six digits at this step
        assert gradient[name][place] == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-6), name


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), most=st.integers(1, 5))
def test_every_plan_it_writes_is_valid(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    scene, policy = make_scene(rng), make_policy(rng, most_steps=most)
    for plans in (policy.write(scene), policy.write(scene, rng=rng)):
        for row, plan in enumerate(plans):
            assert 1 <= len(plan) <= most
            for place, (action, worker) in enumerate(plan):
                op, source = ACTIONS[action]
                assert scene.present[row, worker]
                assert source == 0 or place >= source
                assert op is not Op.RUN or scene.numbers[row, worker, 5] > 0.5
                assert op is not Op.VERIFY or worker != plan[place - 1][1], "nobody verifies himself"


def test_the_choices_of_a_plan_are_listed_in_order() -> None:
    cursor, actions, workers = list_choices([(1, 2), (3, 0)], most_steps=5)
    assert cursor.step.tolist() == [0, 1, 2]
    assert cursor.worker.tolist() == [-1, 2, 0]
    assert actions.tolist() == [1, 3, STOP]
    assert workers[:2].tolist() == [2, 0]
    _, full, _ = list_choices([(0, 1)], most_steps=1)
    assert full.tolist() == [0], "what is full needs no end"
    assert describe_plan([(1, 2), (3, 0)]) == "2 extract question; 0 solve prev"


def test_a_policy_survives_its_file_and_a_wrong_file_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    policy, path = make_policy(rng, most_steps=3), tmp_path / "new" / "p.safetensors"
    save_policy(path, policy, encoder="e", card={"name": "n"})
    again, card = load_policy(path, encoder="e")
    scene = make_scene(rng)
    assert again.write(scene) == policy.write(scene)
    assert (again.most_steps, card["name"], again.size) == (3, "n", policy.size)
    with pytest.raises(CheckpointError, match="trained with the encoder 'e'"):
        load_policy(path, encoder="other")
    for data in (b"", b"junk" * 10, save({"key": np.zeros(2)})):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_policy(path, encoder="e")
    facts = {"format": "99", "encoder": "e", "most_steps": "5", "actions": json.dumps([]), "card": "{}"}
    path.write_bytes(save({"key": np.zeros(2)}, metadata=facts))
    with pytest.raises(CheckpointError, match="another format"):
        load_policy(path, encoder="e")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_policy(tmp_path / "missing", encoder="e")


def test_the_conductor_writes_a_plan_for_real_workers(tmp_path: Path) -> None:
    encoder = StaticEncoder()
    features = make_features()
    policy = TinyPolicy.init(
        tasks=encoder.dimensions + len(features.shape), words=encoder.dimensions, rng=np.random.default_rng(1)
    )
    save_policy(tmp_path / "p", policy, encoder=encoder.name, card={"name": "n"})
    conductor = load_tiny(tmp_path / "p", encoder)
    workers = tuple(
        Worker(id=WorkerId(name), binding=Binding(provider="p", model="m"), notes=notes, is_tool=True)
        for name, notes in (("a", "a calculator"), ("b", ""))
    )
    known = Estimate(worker=WorkerId("a"), quality=0.9, quality_sd=0.1, cost_usd=1e-3, latency_s=0.5, mean_quality=0.4)
    brief = Brief(
        task=Task.from_text("2 + 2?"), features=features, roster=Roster(workers), estimates={WorkerId("a"): known}
    )
    written = asyncio.run(conductor.write(brief))
    assert written.plan is not None
    assert {step.worker for step in written.plan.steps} <= {"a", "b"}
    assert written.plan.author == conductor.version
    assert written.plan.fallbacks[0] == "a"
    nobody = Brief(task=Task.from_text("x"), features=features, roster=Roster(()), estimates={})
    assert asyncio.run(conductor.write(nobody)).plan is None
