"""Killed runs of several steps: all end, and no step is repeated."""

import asyncio
import multiprocessing
import os
import random
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.domain import (
    Begun,
    Budget,
    Cascade,
    Executed,
    Op,
    Plan,
    Resolved,
    Run,
    Step,
    Task,
    Turns,
    WorkerId,
    Workflow,
)
from ripieno.domain.grader import Exact
from ripieno.errors import ApprovalDenied, ApprovalPending, InDoubt, NotFound, RipienoError
from ripieno.execute import Executor, Started
from ripieno.orchestrator import make_arrival
from ripieno.testing import FixedClock

STEPS = 12
TASK = Task.from_text("twelve steps")
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["ripieno.app", "ripieno.orchestrator"])


def write_settings(folder: Path, *, card: str = "") -> None:
    lines = ["[ledger]", f'url = "sqlite:///{folder}/ledger.db"', "[providers.here]", 'kind = "callable"']
    for number in range(1, STEPS + 1):
        lines += [f"[workers.w{number}]", 'provider = "here"', 'model = "tests.faults.durable_workers:do_step"', card]
    (folder / "ripieno.toml").write_text("\n".join(lines))


def workflow() -> Cascade:
    stages = tuple(WorkerId(f"w{number}") for number in range(1, STEPS + 1))
    return Cascade(stages=stages, check=Exact(answers=("done",)))


def turns() -> Turns:
    names = tuple(WorkerId(f"w{number}") for number in range(1, STEPS + 1))
    return Turns(worker=names[0], fallbacks=names[1:])


async def begin_or_resume(folder: Path, begun: Workflow) -> None:
    async with Installation(load_settings(folder / "ripieno.toml")) as app:
        unfinished = app.runs.unfinished()
        if unfinished:
            assert not unfinished[0].is_owned, "its process is dead"
            assert await app.runs.resume(unfinished[0]) is not None
        else:
            await app.runtime.orchestrator.run_detailed(TASK, arrival=replace(make_arrival(app.clock), workflow=begun))


def child(folder: Path, kill_at: str, begun: Workflow, told: dict[str, str]) -> None:
    os.environ |= {"DURABLE_FOLDER": str(folder), "DURABLE_KILL": kill_at, "DURABLE_STEPS": str(STEPS)} | told
    os.chdir(folder)
    try:
        asyncio.run(begin_or_resume(folder, begun))
    except RipienoError:
        os._exit(3)


def run_child(folder: Path, kill_at: str = "", *, begun: Workflow | None = None, **told: str) -> int | None:
    process = _FORKS.Process(target=child, args=(folder, kill_at, begun or workflow(), told))
    process.start()
    process.join()
    return process.exitcode


def read_effects(folder: Path) -> list[str]:
    path = folder / "effects.txt"
    return path.read_text().splitlines() if path.exists() else []


async def read_end(folder: Path) -> Run:
    async with Installation(load_settings(folder / "ripieno.toml")) as app:
        app.ledger.verify()
        ends = [
            stored.entry.run for stored in app.ledger.read(kinds=("executed",)) if isinstance(stored.entry, Executed)
        ]
        assert len(ends) == 1
        assert app.ledger.runs.unfinished() == []
        return ends[0]


async def test_a_run_killed_at_each_boundary_ends_and_repeats_no_step(tmp_path: Path) -> None:
    """Kill a run of twelve steps before each of them. Finished steps are not repeated."""
    write_settings(tmp_path)
    for number in range(1, STEPS + 1):
        assert run_child(tmp_path, f"before:{number}") == -signal.SIGKILL
        assert len(read_effects(tmp_path)) == number - 1
    assert run_child(tmp_path) == 0
    assert read_effects(tmp_path) == [f"effect {number}" for number in range(1, STEPS + 1)]
    run = await read_end(tmp_path)
    assert [call.step for call in run.calls] == [str(number) for number in range(1, STEPS + 1)]
    assert run.answer is not None
    assert run.answer.text == "done"


@pytest.mark.parametrize("seed", range(30))
async def test_runs_killed_at_boundaries_drawn_at_random_end_too(tmp_path: Path, seed: int) -> None:
    write_settings(tmp_path)
    rng = random.Random(seed)
    boundaries = sorted(rng.sample(range(1, STEPS + 1), 3))
    for number in boundaries:
        assert run_child(tmp_path, f"before:{number}") == -signal.SIGKILL
    assert run_child(tmp_path) == 0
    assert read_effects(tmp_path) == [f"effect {number}" for number in range(1, STEPS + 1)]
    assert len((await read_end(tmp_path)).calls) == STEPS


async def test_killed_turns_resume_with_their_results(tmp_path: Path) -> None:
    """Each choice depends on the results before it. They are read back, and no call is repeated."""
    write_settings(tmp_path)
    told = {"DURABLE_SAYS": "I cannot tell", "DURABLE_STEPS": "4"}
    for number in (2, 3, 4):
        assert run_child(tmp_path, f"before:{number}", begun=turns(), **told) == -signal.SIGKILL
    assert run_child(tmp_path, begun=turns(), **told) == 0
    made = read_effects(tmp_path)
    assert made == [f"effect {number}" for number in range(1, len(made) + 1)]
    assert len(made) in (4, 5), "the answer is there after four, and may be looked at once more"
    run = await read_end(tmp_path)
    assert [call.step for call in run.calls] == [str(number) for number in range(1, len(made) + 1)]
    assert len({call.worker for call in run.calls[:4]}) == 4, "who had nothing to say is passed over"
    assert run.answer is not None
    assert run.answer.text == "done"


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_effect_with_an_unknown_end_is_not_repeated(tmp_path: Path, moment: str) -> None:
    write_settings(tmp_path, card="has_effects = true")
    assert run_child(tmp_path, f"{moment}:5") == -signal.SIGKILL
    made = read_effects(tmp_path)
    assert run_child(tmp_path) == 3
    assert read_effects(tmp_path) == made, "whether it was done is for a human to find out"
    assert max(Counter(made).values()) == 1
    run = await read_end(tmp_path)
    assert len(run.calls) == 4, "the steps whose end is known"


async def test_a_run_with_a_living_owner_is_not_taken_over(tmp_path: Path) -> None:
    write_settings(tmp_path)
    assert run_child(tmp_path, "before:3") == -signal.SIGKILL
    async with Installation(load_settings(tmp_path / "ripieno.toml")) as app:
        assert app.journals is not None
        found = app.runs.unfinished()[0]
        first = await app.journals.take_over(found)
        assert first is not None
        assert await app.journals.take_over(found) is None, "of two that claim it, one gets it"
        again = app.journals.find(found.claim.run)
        assert again is not None
        assert again.is_owned
        with pytest.raises(NotFound):
            app.ledger.decisions.find("nobody")


async def test_an_approved_run_resumes_once(tmp_path: Path) -> None:
    write_settings(tmp_path, card="has_effects = true\nneeds_approval = true")
    os.environ |= {"DURABLE_FOLDER": str(tmp_path), "DURABLE_KILL": "", "DURABLE_STEPS": "1"}
    async with Installation(load_settings(tmp_path / "ripieno.toml")) as app:
        assert app.journals is not None
        only = replace(TASK, objective=replace(TASK.objective, workers=("w1",)))
        with pytest.raises(ApprovalPending) as pending:
            await app.runtime.orchestrator.run_detailed(only)
        assert not read_effects(tmp_path)
        found = app.journals.find(pending.value.run)
        assert found is not None
        assert found.proposal is not None
        assert found.proposal.arguments == "twelve steps"
        answer = Resolved(
            run=found.claim.run, step=found.proposal.step, digest=found.proposal.digest, is_approved=True, by="ada"
        )
        await app.ledger.append(answer)
        assert await app.ledger.append(replace(answer, is_approved=False, by="bob")) == 0, "the first answer counts"
    async with Installation(load_settings(tmp_path / "ripieno.toml")) as app:
        assert app.journals is not None
        answered = await app.runtime.orchestrator.resume(app.runs.unfinished()[0])
        assert answered is not None
        assert answered.run.answer is not None
        assert answered.run.answer.text == "done"
        assert app.runs.unfinished() == []
    assert read_effects(tmp_path) == ["effect 1"]


async def test_a_plan_waits_for_approval_and_keeps_finished_steps(tmp_path: Path) -> None:
    write_settings(tmp_path)
    os.environ |= {"DURABLE_FOLDER": str(tmp_path), "DURABLE_KILL": "", "DURABLE_STEPS": "2"}
    first, second = WorkerId("w1"), WorkerId("w2")
    steps = Plan(
        steps=(
            Step(worker=first, op=Op.EXTRACT),
            Step(worker=second, op=Op.SOLVE, access=(0,), needs_approval=True),
        )
    )
    async with Installation(load_settings(tmp_path / "ripieno.toml")) as app:
        with pytest.raises(ApprovalPending):
            await app.runtime.orchestrator.run_detailed(TASK, arrival=replace(make_arrival(app.clock), workflow=steps))
        assert read_effects(tmp_path) == ["effect 1"]
        (found,) = app.runs.unfinished()
        assert found.proposal is not None
        assert "effect" not in found.proposal.arguments
        assert "step 1" in found.proposal.arguments, "what would be done is shown as it would be done"
        await app.runs.resolve(found.claim.run, is_approved=True, by="ada")
        answered = await app.runs.resume(app.runs.unfinished()[0])
        assert answered is not None
        assert [call.step for call in answered.run.calls] == ["1", "2"]
    assert read_effects(tmp_path) == ["effect 1", "effect 2"]


async def test_an_approval_is_of_one_version_of_the_worker_and_no_other(tmp_path: Path) -> None:
    write_settings(tmp_path, card="needs_approval = true")
    only = replace(TASK, objective=replace(TASK.objective, workers=("w1",)))
    async with Installation(load_settings(tmp_path / "ripieno.toml")) as app:
        with pytest.raises(ApprovalPending):
            await app.runtime.orchestrator.run_detailed(only)
        assert app.journals is not None
        found = app.runs.unfinished()[0]
        assert found.proposal is not None
        await app.ledger.append(
            Resolved(
                run=found.claim.run, step=found.proposal.step, digest=found.proposal.digest, is_approved=True, by="ada"
            )
        )
    text = (tmp_path / "ripieno.toml").read_text()
    (tmp_path / "ripieno.toml").write_text(text.replace("durable_workers:do_step", "durable_workers:_append", 1))
    async with Installation(load_settings(tmp_path / "ripieno.toml")) as app:
        assert app.journals is not None
        with pytest.raises(ApprovalPending):
            await app.runtime.orchestrator.resume(app.runs.unfinished()[0])
        assert not read_effects(tmp_path)


async def test_an_expired_approval_counts_as_denied(tmp_path: Path) -> None:
    write_settings(tmp_path, card="needs_approval = true")
    only = replace(TASK, objective=replace(TASK.objective, workers=("w1",)))
    clock = FixedClock()
    async with Installation(load_settings(tmp_path / "ripieno.toml"), clock=clock) as app:
        with pytest.raises(ApprovalPending):
            await app.runtime.orchestrator.run_detailed(only)
        assert app.journals is not None
        clock.advance(25 * 3600.0)
        with pytest.raises(ApprovalDenied, match="no answer in time"):
            await app.runtime.orchestrator.resume(app.runs.unfinished()[0])
        late = app.runs.unfinished()
        assert late == []
    assert not read_effects(tmp_path)


async def test_earlier_calls_count_against_the_budget_of_a_resumed_run(tmp_path: Path) -> None:
    write_settings(tmp_path)
    os.environ |= {"DURABLE_FOLDER": str(tmp_path), "DURABLE_KILL": "", "DURABLE_STEPS": "12"}
    asked = replace(TASK, budget=Budget(calls=4))
    async with Installation(load_settings(tmp_path / "ripieno.toml")) as app:
        answered = await app.runtime.orchestrator.run_detailed(
            asked, arrival=replace(make_arrival(app.clock), workflow=workflow())
        )
        assert len(answered.run.calls) == 4
        assert app.journals is not None
        journal = app.journals.open(answered.decision.id)
        journal.read()
        started = Started(
            decision=answered.decision, task=asked, setup=app.runtime.routing.router.setup, journal=journal
        )
        again = await Executor(app.runtime.caller, app.runtime.grading).execute(started)
        assert len(again.run.calls) == 4
        assert again.run.ended_early is not None
    assert len(read_effects(tmp_path)) == 4


async def test_an_error_names_the_step_of_a_started_effect(tmp_path: Path) -> None:
    write_settings(tmp_path, card="has_effects = true")
    async with Installation(load_settings(tmp_path / "ripieno.toml")) as app:
        decision = await app.runtime.orchestrator.decide(
            replace(TASK, objective=replace(TASK.objective, workers=("w1",)))
        )
        await app.ledger.append(Begun(run=decision.id, step="1", worker=decision.worker))
        assert app.journals is not None
        journal = app.journals.open(decision.id)
        journal.read()
        started = Started(decision=decision, task=TASK, setup=app.runtime.routing.router.setup, journal=journal)
        with pytest.raises(InDoubt, match="step '1'") as doubt:
            await Executor(app.runtime.caller, app.runtime.grading).execute(started)
        assert (doubt.value.run, doubt.value.step, doubt.value.worker) == (decision.id, "1", decision.worker)
        assert started.recorder.calls == ()
