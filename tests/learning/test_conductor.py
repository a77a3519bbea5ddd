"""The conductor learns on the workbench from nothing, resumes after an interruption, and agrees with the engine."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.integration.conftest import open_app

from ripieno.conductor.policy import TinyPolicy
from ripieno.conductor.tiny import describe_plan
from ripieno.domain import Op, Plan, Step, WorkerId
from ripieno.encoders.static import StaticEncoder
from ripieno.errors import CheckpointError, DataError
from ripieno.evaluate import conductor as proof
from ripieno.learn.conductor import ConductorRecipe, Training
from ripieno.learn.lessons import Quest, Reward, draw_pools, find_lessons, read_lessons
from ripieno.orchestrator import make_arrival
from ripieno.workbench.scenes import Stage
from ripieno.workbench.world import BenchPool, BenchStep, World

SHORT = ConductorRecipe(
    pools=10, teach_steps=150, reinforce_steps=10, polish_generations=2, common_tasks=32, search_tasks=4
)


@pytest.fixture(scope="module")
def bench():  # type: ignore[no-untyped-def]  # a fixture
    with World(tasks=60, seed=2) as world:
        yield world, Stage(world, StaticEncoder())


@pytest.mark.simulation
def test_teaching_and_rollouts_gain_on_unseen_workers_and_templates(bench: tuple[World, Stage], tmp_path: Path) -> None:
    world, stage = bench
    exam = proof.make_exam(world, pools=12, tasks=2, seed=1)
    untrained = TinyPolicy.init(tasks=stage.task_size, words=stage.words_size, rng=np.random.default_rng(0))
    for seed in (0, 1):
        training = Training(stage, replace(SHORT, seed=seed), tmp_path / str(seed))
        policy = training.run()
        before = proof.sit(world, exam, proof.write_plans(untrained, stage, exam))
        after = proof.sit(world, exam, proof.write_plans(policy, stage, exam))
        gained = np.mean([each.reward for each in after]) - np.mean([each.reward for each in before])
        assert gained > 0.2, f"seed {seed}: {gained:.3f}"
        rewards = [float(point["reward"]) for point in training.progress.curve]
        assert rewards[-1] > rewards[0]


@pytest.mark.simulation
def test_an_interrupted_training_resumes_to_the_same_result(bench: tuple[World, Stage], tmp_path: Path) -> None:
    _, stage = bench
    recipe = replace(SHORT, teach_steps=75, reinforce_steps=0, polish_generations=1)
    whole = Training(stage, recipe, tmp_path / "whole").run()

    class CutError(Exception):
        """The process ends here."""

    def cut(name: str, step: int, steps: int, seen: str) -> None:
        if (name, step) == ("teach", 60):
            raise CutError

    with pytest.raises(CutError):
        Training(stage, recipe, tmp_path / "cut", on_progress=cut).run()
    facts = json.loads((tmp_path / "cut" / "progress.json").read_text())
    assert (facts["progress"]["stage"], facts["progress"]["step"]) == ("teach", 50)
    again = Training(stage, recipe, tmp_path / "cut")
    assert again.progress.step == 50
    resumed = again.run()
    for name, value in whole.parameters.items():
        np.testing.assert_array_equal(resumed.parameters[name], value)
    finished = Training(stage, recipe, tmp_path / "cut").run()
    np.testing.assert_array_equal(finished.parameters["query"], resumed.parameters["query"])
    with pytest.raises(CheckpointError, match="another recipe"):
        Training(stage, replace(recipe, seed=9), tmp_path / "cut")
    (tmp_path / "cut" / "progress.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        Training(stage, recipe, tmp_path / "cut")


@pytest.mark.simulation
def test_equal_seeds_give_equal_policies(bench: tuple[World, Stage], tmp_path: Path) -> None:
    _, stage = bench
    recipe = replace(SHORT, pools=4, teach_steps=10, reinforce_steps=3, polish_generations=1)
    made = [
        Training(stage, replace(recipe, seed=seed), tmp_path / name).run()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    np.testing.assert_array_equal(made[0].parameters["query"], made[1].parameters["query"])
    assert not np.array_equal(made[0].parameters["query"], made[2].parameters["query"])


def test_a_plan_has_the_same_reward_in_either_form(bench: tuple[World, Stage], tmp_path: Path) -> None:
    """Parity: the reward and the data file are the same objects for all sizes of conductor."""
    world, _ = bench
    pools = draw_pools(world, seed=0, count=3)
    path = tmp_path / "lessons.jsonl"
    lessons = find_lessons(world, pools, path, quest=Quest(seed=0, tasks=4))
    assert read_lessons(path) == lessons
    reward = Reward(world=world)
    raw = [json.loads(line) for line in path.read_text().splitlines()]
    for lesson, row in zip(lessons, raw, strict=True):
        pool = pools[lesson.pool]
        for plan, told in zip(lesson.plans, row["plans"], strict=True):
            for task in world.tasks["train", lesson.family][:5]:
                assert reward.of_json(task, pool, told["json"]) == reward.of_words(task, pool, plan)
            assert told["words"] == describe_plan(plan)
    task = world.tasks["train", "story"][0]
    assert reward.of_json(task, pools[0], "no plan") == -0.1
    assert sum(lessons[0].weights) == pytest.approx(1.0)


def test_an_interrupted_search_resumes_and_a_damaged_file_is_refused(
    bench: tuple[World, Stage], tmp_path: Path
) -> None:
    world, _ = bench
    pools = draw_pools(world, seed=0, count=2)
    whole = find_lessons(world, pools, tmp_path / "whole", quest=Quest(seed=0, tasks=3))
    text = (tmp_path / "whole").read_text()
    cut = tmp_path / "cut"
    cut.write_text(text[: int(len(text) * 0.7)])
    assert find_lessons(world, pools, cut, quest=Quest(seed=0, tasks=3)) == whole
    assert cut.read_text() == text
    cut.write_text("{}\n" + text)
    with pytest.raises(DataError, match="line 1"):
        read_lessons(cut)


async def test_the_workbench_and_the_engine_agree_on_plans(bench: tuple[World, Stage], tmp_path: Path) -> None:
    """Parity: reward and engine see the same answers, calls and verdicts."""
    world, _ = bench
    names = (
        "calculate-train-2",
        "read-train-2",
        "look_up-train-2",
        "edit-train-2",
        "general-train-small",
        "vote-train-0",
    )
    lines = ["[ledger]", "url = 'sqlite:///ledger.db'", "[providers.bench]", 'kind = "callable"']
    for name in names:
        target = f"tests.learning.bench_workers:{name.replace('-', '_')}"
        lines += [f"[workers.{name}]", 'provider = "bench"', f'model = "{target}"', "is_tool = true"]
    Path("ripieno.toml").write_text("\n".join(lines))
    workers = tuple(next(worker for worker in world.workers if worker.id == name) for name in names)
    zeros = np.zeros((len(workers), len(world.families)))
    pool = BenchPool(workers=workers, words=names, family_probes=zeros, skill_probes=np.zeros(len(workers)))
    rng = np.random.default_rng(7)
    async with open_app() as app:
        for _ in range(60):
            family = world.families[int(rng.integers(5))]
            task = world.tasks["train", family][int(rng.integers(60))]
            steps = draw_steps(rng, len(workers))
            done = world.carry_out(task.task.text, steps, pool)
            arrival = replace(make_arrival(app.clock), workflow=to_plan(steps, pool))
            answered = await app.runtime.orchestrator.run_detailed(task.task, arrival=arrival)
            assert answered.run.answer is not None
            assert answered.run.answer.text == done.results[-1]
            assert len(answered.run.calls) == len(done.results)


def to_plan(steps: list[BenchStep], pool: BenchPool) -> Plan:
    made = []
    for place, step in enumerate(steps):
        access = () if step.source == 0 else (place - 1,) if step.source == 1 else tuple(range(place))
        made.append(Step(worker=WorkerId(pool.workers[step.worker].id), op=step.op, access=access))
    return Plan(steps=tuple(made))


def draw_steps(rng: np.random.Generator, workers: int) -> list[BenchStep]:
    steps = [BenchStep(int(rng.integers(workers)), Op.SOLVE, 0)]
    for _ in range(int(rng.integers(0, 4))):
        op = (Op.SOLVE, Op.TRANSFORM, Op.VERIFY)[int(rng.integers(3))]
        others = [worker for worker in range(workers) if op is not Op.VERIFY or worker != steps[-1].worker]
        steps.append(BenchStep(int(rng.choice(others)), op, 1))
    if len(steps) > 1 and rng.random() < 0.4 and len(steps) < 5:
        steps.append(BenchStep(int(rng.integers(workers)), Op.MERGE, 2))
    return steps
