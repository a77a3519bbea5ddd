"""The router learns to work in several steps where that pays, and only there: replayed from recorded answers."""

from dataclasses import replace

import numpy as np
import pytest

from ripieno.app import Installation
from ripieno.app.feedback import record_feedback
from ripieno.cli.train import TrainingRequest, train_once
from ripieno.config import load_settings
from ripieno.domain import (
    Answer,
    Call,
    Cascade,
    Ensemble,
    Executed,
    Judged,
    Merge,
    Origin,
    Placement,
    Run,
    Solo,
    Task,
    Usage,
    Verdict,
    Verified,
    WorkerId,
)
from ripieno.domain.grader import Agreement, Exact
from ripieno.learn import analyze_prompts
from ripieno.learn.checkpoint import read_workflows
from ripieno.learn.workflow_columns import add_columns, gather_answers, replay
from ripieno.ledger import export_data
from ripieno.testing import Reply, ScriptedServer

A, B, C = (WorkerId(name) for name in ("ash", "birch", "cedar"))
COST = {A: 1e-4, B: 1e-4, C: 2e-2}
RIGHT = {A: 0.75, B: 0.75, C: 0.97}
AGREEMENT = Cascade(stages=(A, C), check=Agreement(peer=B))


def write_settings(servers: list[ScriptedServer]) -> None:
    lines = ["[ledger]", "url = 'sqlite:///ledger.db'", "[route]", "exploration = 0.0", "newcomers = 'free'"]
    for name, server in zip((A, B, C), servers, strict=True):
        lines += [f"[providers.{name}]", 'kind = "openai"', f'base_url = "{server.base_url}"']
        lines += [f"[workers.{name}]", f'provider = "{name}"', f"usd_per_call = {COST[name]}"]
    from pathlib import Path

    Path("ripieno.toml").write_text("\n".join(lines))


def make_task(app: Installation) -> Task:
    return Task.from_text(
        "Riddle 999: which number do I think of, 3?", objective=app.runtime.make_objective(), kind="riddle"
    )


async def measure(app: Installation, *, err_together: bool, seed: int, tasks: int = 240) -> None:
    """Record a campaign: two cheap workers that err apart, or together, and a dear one that hardly errs."""
    rng = np.random.default_rng(seed)
    entries: list[Executed | Judged] = []
    for number in range(tasks):
        task = Task.from_text(f"Riddle {number}: which number do I think of, {rng.integers(1000)}?", kind="riddle")
        draw = rng.random()
        for worker in (A, B, C):
            luck = draw if err_together and worker != C else rng.random()
            is_right = luck < RIGHT[worker]
            wrong = "7" if err_together else f"{rng.integers(8, 1000)}"
            call = Call(
                worker=worker,
                worker_version=app.runtime.pool[worker].version,
                usage=Usage(input_tokens=10, output_tokens=2),
                cost_usd=COST[worker],
                latency_s=0.5,
            )
            split = "test" if number % 3 == 0 else "train"
            run = Run(
                id=f"{seed}/{number}/{worker}",
                task=task.digest,
                origin=Origin.PROFILE,
                calls=(call,),
                answer=Answer(text=f"It is {'42' if is_right else wrong}"),
                placement=Placement(dataset="riddles", item=str(number), split=split),
            )
            entries += [
                Executed(run=run, task=task),
                Judged(run=run.id, verdict=Verdict(verifier="exact", quality=float(is_right))),
            ]
    await app.ledger.append(*entries)


@pytest.fixture
def servers():  # type: ignore[no-untyped-def]  # a fixture
    started = [ScriptedServer([Reply(text="It is 42")]).__enter__() for _ in range(3)]
    yield started
    for server in started:
        server.__exit__(None, None, None)


WANTED = TrainingRequest(data=None, dataset="riddles", kind="ridge", seed=0, out=None, least_new=0, has_modes=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_agreement_is_chosen_if_workers_err_independently(servers: list[ScriptedServer], seed: int) -> None:
    write_settings(servers)
    async with Installation(load_settings()) as app:
        await measure(app, err_together=False, seed=seed)
        done = await train_once(app, WANTED)
        assert done is not None
        workflows = read_workflows(done.trained.card)
        assert workflows
        assert "workflows add +" in done.trained.card.verdict
    async with Installation(load_settings()) as app:
        task = Task.from_text(
            "Riddle 999: which number do I think of, 3?", objective=app.runtime.make_objective(), kind="riddle"
        )
        decision = await app.runtime.orchestrator.decide(task)
        assert decision.learned_workflow in workflows
        assert not isinstance(decision.workflow, Solo)
        assert {e.worker for e in decision.estimates} == {A, B, C, *workflows}
        handled, _ = await app.runtime.orchestrator.run(task)
        replayed = await app.replays.replay(app.ledger.decisions.find(handled.id), app.runtime.pool)
        assert (replayed.decision.learned_workflow, replayed.differs) == (decision.learned_workflow, ())
        alone = await app.runtime.orchestrator.decide(replace(task, objective=replace(task.objective, workers=(A, C))))
        assert alone.learned_workflow is None, "who is in it must be allowed"
        asked = await app.runtime.orchestrator.decide(replace(task, objective=replace(task.objective, mode="verified")))  # type: ignore[arg-type]  # a mode's value
        assert isinstance(asked.workflow, Verified)
        assert asked.learned_workflow is None


async def test_agreement_is_not_offered_if_workers_err_together(servers: list[ScriptedServer]) -> None:
    write_settings(servers)
    async with Installation(load_settings()) as app:
        await measure(app, err_together=True, seed=0)
        done = await train_once(app, WANTED)
        assert done is not None
        task = make_task(app)
        decision = await app.runtime.orchestrator.decide(task)
        assert decision.learned_workflow is None
        assert isinstance(decision.workflow, Solo)


async def test_outcomes_of_a_workflow_teach_the_workflow_and_no_worker(servers: list[ScriptedServer]) -> None:
    write_settings(servers)
    async with Installation(load_settings()) as app:
        await measure(app, err_together=False, seed=0)
        await train_once(app, WANTED)
    async with Installation(load_settings()) as app:
        task = Task.from_text(
            "Riddle 999: which number do I think of, 3?", objective=app.runtime.make_objective(), kind="riddle"
        )
        before = await app.runtime.orchestrator.decide(task)
        for _ in range(25):
            decision, run = await app.runtime.orchestrator.run(task)
            assert run.learned_workflow == before.learned_workflow
            await record_feedback(app, decision.id, Verdict(verifier="user", quality=0.0))
            if (await app.runtime.orchestrator.decide(task)).learned_workflow != before.learned_workflow:
                break
        after = await app.runtime.orchestrator.decide(task)
        old = {e.worker: e.quality for e in before.estimates}
        new = {e.worker: e.quality for e in after.estimates}
        assert before.learned_workflow is not None
        assert new[before.learned_workflow] < old[before.learned_workflow]
        assert new[C] == pytest.approx(old[C])


async def test_replayed_outcomes_equal_those_of_the_engine(servers: list[ScriptedServer]) -> None:
    write_settings(servers)
    async with Installation(load_settings()) as app:
        await measure(app, err_together=False, seed=4, tasks=30)
        data = export_data(app.ledger, "riddles")
        (answers,) = gather_answers(app.ledger, data)
        columns = {model.id: column for column, model in enumerate(data.models)}
        quality, cost, _ = replay(AGREEMENT, answers, columns)
        vote = Ensemble(members=(A, B, C), merge=Merge.VOTE)
        voted, paid, _ = replay(vote, answers, columns)
        for row in range(30):
            ash, birch, cedar = (answers.quality[row, columns[worker]] for worker in (A, B, C))
            agree = answers.said[row, columns[A]] == answers.said[row, columns[B]]
            assert quality[row] == (ash if agree else cedar)
            assert cost[row] == pytest.approx(2e-4 + (0 if agree else 2e-2))
            assert voted[row] == (birch if not agree and birch == cedar == 1.0 else ash)
            assert paid[row] == pytest.approx(cost[row])
        wider = add_columns(data, [answers], {WorkerId("agreement:x"): AGREEMENT})
        assert wider.models[-1].id == "agreement:x"
        column = wider.matrix(wider.quality)[:, -1]
        np.testing.assert_array_equal(column, quality)
        assert len(await analyze_prompts(app.analyzer, wider)) == 30
        with pytest.raises(TypeError, match="cannot be replayed"):
            replay(Verified(worker=A, check=Exact(answers=("x",))), answers, columns)
