"""The turn-level head pays where a result shows a wrong plan, and agrees with the engine."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.integration.conftest import open_app

from ripieno.conductor.policy import ACTIONS, STOP
from ripieno.conductor.tiny import BUNDLED, load_policy
from ripieno.conductor.turns import BUNDLED_HEAD, PastTurn, TurnPolicy, load_turn_policy, save_turn_policy, to_step
from ripieno.domain import Op, Step, Turns, WorkerId
from ripieno.encoders.static import StaticEncoder
from ripieno.errors import CheckpointError
from ripieno.evaluate import conductor as proof
from ripieno.execute import Executor, Started, Turn
from ripieno.learn.turns import TurnRecipe, train_turns
from ripieno.workbench.scenes import Stage
from ripieno.workbench.turns import TurnRun, find_outcomes
from ripieno.workbench.world import BenchPool, World

SHORT = TurnRecipe(pools=6, generations=20, population=4, common_tasks=16, checked_tasks=64)
NAMES = ("calculate-train-2", "read-train-2", "look_up-train-2", "edit-train-2", "general-train-small", "vote-train-0")


@pytest.fixture(scope="module")
def stage():  # type: ignore[no-untyped-def]  # a fixture
    with World(tasks=60, seed=2) as world:
        yield Stage(world, StaticEncoder())


def test_a_head_beats_its_base_plans_on_unseen_workers(stage: Stage) -> None:
    exam = proof.make_exam(stage.world, pools=30, tasks=2, seed=1)
    head, card = load_turn_policy(BUNDLED_HEAD, encoder=stage.encoder_name)
    assert card["parameters"] == head.size
    planned = proof.sit(stage.world, exam, proof.write_plans(head.base, stage, exam))
    turned = proof.sit_policies(stage, exam, [head]).runs[0]
    gained = np.mean([each.reward for each in turned]) - np.mean([each.reward for each in planned])
    assert gained > 0.01
    assert max(each.steps for each in turned) <= 5


def test_a_new_head_equals_its_base_until_a_worker_has_no_answer(stage: Stage) -> None:
    exam = proof.make_exam(stage.world, pools=10, tasks=2, seed=1)
    base, _ = load_policy(BUNDLED, encoder=stage.encoder_name)
    planned = proof.sit(stage.world, exam, proof.write_plans(base, stage, exam))
    turned = proof.sit_policies(stage, exam, [TurnPolicy.init(base)]).runs[0]
    same = [one == other for one, other in zip(planned, turned, strict=True)]
    assert 0.7 < np.mean(same) < 1.0
    for plan, turn, is_same in zip(planned, turned, same, strict=True):
        assert is_same or turn.steps >= plan.steps, "more is done only where something was missing"


def test_an_interrupted_training_resumes_and_refuses_another_recipe(stage: Stage, tmp_path: Path) -> None:
    base, _ = load_policy(BUNDLED, encoder=stage.encoder_name)
    seen: list[int] = []

    class CutError(Exception):
        """The process ends here."""

    def cut(name: str, step: int, steps: int, words: str) -> None:
        seen.append(step)
        if step == 15:
            raise CutError

    with pytest.raises(CutError):
        train_turns(stage, base, SHORT, tmp_path, on_progress=cut)
    seen.clear()
    train_turns(stage, base, SHORT, tmp_path, on_progress=lambda name, step, steps, words: seen.append(step))
    assert seen[0] == 11, "the state of step 10 was kept"
    assert seen[-1] == 20
    seen.clear()
    (tmp_path / "progress.json").write_text(json.dumps(asdict(SHORT)))
    train_turns(stage, base, SHORT, tmp_path, on_progress=lambda name, step, steps, words: seen.append(step))
    assert seen == [20], "earlier versions kept only the recipe"
    with pytest.raises(CheckpointError, match="another recipe"):
        train_turns(stage, base, replace(SHORT, seed=9), tmp_path, on_progress=cut)
    (tmp_path / "state.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        train_turns(stage, base, SHORT, tmp_path, on_progress=cut)


def test_a_head_is_read_back_and_one_that_does_not_fit_is_refused(stage: Stage, tmp_path: Path) -> None:
    head, _ = load_turn_policy(BUNDLED_HEAD, encoder=stage.encoder_name)
    path = tmp_path / "head.safetensors"
    save_turn_policy(path, head, encoder=stage.encoder_name, card={"name": "x"})
    again, card = load_turn_policy(path, encoder=stage.encoder_name)
    assert card == {"name": "x"}
    assert all(np.allclose(again.head[name], head.head[name]) for name in head.head)
    with pytest.raises(CheckpointError, match="was trained with the encoder"):
        load_turn_policy(path, encoder="another")
    tensors = load_file(path)
    save_file(
        tensors, path, metadata={"format": "turns-9", "encoder": stage.encoder_name, "actions": "[]", "card": "{}"}
    )
    with pytest.raises(CheckpointError, match="another format"):
        load_turn_policy(path, encoder=stage.encoder_name)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_turn_policy(path, encoder=stage.encoder_name)


class Replayed:
    """A director that repeats the workbench's choices."""

    def __init__(self, chosen: Sequence[tuple[int, int]]) -> None:
        self._chosen = chosen

    async def choose(self, seen: Sequence[Turn]) -> Step | None:
        if len(seen) == len(self._chosen):
            return None
        happened = [PastTurn(0, 0, turn.text) for turn in seen]
        action, worker = self._chosen[len(seen)]
        return to_step(action, WorkerId(NAMES[worker]), happened)


async def test_the_workbench_and_the_engine_agree_on_turns(stage: Stage) -> None:
    """Parity: reward and engine see the same results, and skip the same ones."""
    world = stage.world
    lines = ["[ledger]", "url = 'sqlite:///ledger.db'", "[providers.bench]", 'kind = "callable"']
    for name in NAMES:
        target = f"tests.learning.bench_workers:{name.replace('-', '_')}"
        lines += [f"[workers.{name}]", 'provider = "bench"', f'model = "{target}"', "is_tool = true"]
    Path("ripieno.toml").write_text("\n".join(lines))
    workers = tuple(next(worker for worker in world.workers if worker.id == name) for name in NAMES)
    zeros = np.zeros((len(workers), len(world.families)))
    pool = BenchPool(workers=workers, words=NAMES, family_probes=zeros, skill_probes=np.zeros(len(workers)))
    rng = np.random.default_rng(7)
    passed_over = 0
    async with open_app() as app:
        for _ in range(80):
            family = world.families[int(rng.integers(5))]
            task = world.tasks["train", family][int(rng.integers(60))]
            played = TurnRun(task, pool)
            chosen = draw_turns(rng, world, played)
            outcome = find_outcomes(world, [played])[0]
            passed_over += any(each.is_nothing for each in played.happened)
            decision = await app.runtime.orchestrator.decide(task.task)
            turns = Turns(
                worker=decision.worker, fallbacks=tuple(w for w in app.runtime.pool.ids if w != decision.worker)
            )
            decision = replace(decision, workflow=turns)
            started = Started(
                decision=decision, task=task.task, setup=app.runtime.routing.router.setup, director=Replayed(chosen)
            )
            answered = await Executor(app.runtime.caller, app.runtime.grading).execute(started)
            assert answered.answer.text == played.underway.results[-1]
            assert len(answered.run.calls) == outcome.steps
    assert passed_over > 20


def draw_turns(rng: np.random.Generator, world: World, played: TurnRun) -> list[tuple[int, int]]:
    chosen: list[tuple[int, int]] = []
    allowed = [place for place, (op, _) in enumerate(ACTIONS) if op is not Op.RUN]
    while True:
        told = [each for each in played.happened if not each.is_nothing]
        is_silent = bool(played.happened) and played.happened[-1].is_nothing
        last = played.happened[-1] if played.happened else None
        is_verdict = last is not None and last.action < STOP and ACTIONS[last.action][0] is Op.VERIFY
        action = int(rng.choice(allowed))
        if ACTIONS[action][0] is Op.VERIFY and (not told or is_silent or is_verdict):
            continue
        worker = int(rng.integers(len(NAMES)))
        if ACTIONS[action][0] is Op.VERIFY and last is not None and worker == last.worker:
            continue
        chosen.append((action, worker))
        if not played.make(world, action, worker) or rng.random() < 0.2:
            return chosen
