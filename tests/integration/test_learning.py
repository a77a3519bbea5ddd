"""Learning from traffic, end to end: feedback, replay, newcomers, canaries, budgets and abstention."""

import json
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import aiohttp
import numpy as np
import pytest
from safetensors.numpy import load, save
from tests.integration.conftest import Serve, open_app, write_pool
from tests.integration.test_app import TASK, make_outcomes, save_checkpoint

from ripieno.app import Installation
from ripieno.app.feedback import record_feedback
from ripieno.app.probing import make_prober
from ripieno.config import load_settings
from ripieno.domain import Estimate, Executed, Judged, Staged, Task, Verdict, list_workers
from ripieno.domain.grader import Exact, GradedTask
from ripieno.errors import Abstained, CheckpointError, ConfigError, GateRefused, NotFound
from ripieno.evaluate.offpolicy import estimate_difference
from ripieno.gateway.serve import bind_socket, running
from ripieno.learn.logs import make_log, read_decisions
from ripieno.learn.promotion import CANARY_OUTCOMES, start_canary
from ripieno.measure import Probing, name_probes
from ripieno.route.explain import explain
from ripieno.route.predictors.online import EPOCH
from ripieno.testing import FixedClock, Reply

STILL = "[route]\nexploration = 0.0\n"


async def promote_checkpoint(app: Installation, tmp_path: Path) -> str:
    version = await save_checkpoint(app, make_outcomes(tmp_path / "set"))
    app.registry.promote(version)
    return version


def judge(quality: float) -> Verdict:
    return Verdict(verifier="user", quality=quality)


async def test_feedback_changes_the_next_decision_and_every_decision_replays(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        version = await promote_checkpoint(app, tmp_path)
        seen, decisions = [], []
        for _ in range(60):
            decision, _ = await app.runtime.orchestrator.run(TASK)
            decisions.append(decision)
            seen.append(decision.worker)
            await record_feedback(app, decision.id, judge(float(decision.worker == "a")))
        assert (seen[0], seen[-1]) == ("b", "a"), "an answer that is never accepted is asked for no longer"
        assert decisions[0].predictor == version
        assert decisions[1].predictor.startswith(f"{version}+")
        for decision in (decisions[0], decisions[7], decisions[-1]):
            assert (await app.replays.replay(app.ledger.decisions.find(decision.id), app.runtime.pool)).differs == ()
    async with open_app() as again:
        assert (await again.runtime.orchestrator.decide(TASK)).worker == "a", "what was learned survives the process"


async def test_a_start_from_a_snapshot_reaches_the_same_beliefs(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        version = await promote_checkpoint(app, tmp_path)
        decision, run = await app.runtime.orchestrator.run(TASK)
        rng = np.random.default_rng(0)
        for _ in range(EPOCH // 100 + 1):
            batch: list[Executed | Judged] = []
            for _ in range(100):
                name, worker = uuid4().hex, app.runtime.pool[rng.choice(["a", "b"])]
                call = replace(run.calls[0], worker=worker.id, worker_version=worker.version)
                batch.append(Executed(run=replace(run, id=name, decision=None, calls=(call,))))
                batch.append(Judged(run=name, verdict=judge(float(rng.random() < 0.7))))
            app.ledger.append_now(batch)
        await app.catch_up()
        learned = (await app.runtime.orchestrator.decide(TASK)).estimates
    folder = app.registry.folder / version
    (snapshot,) = folder.glob("learnt-*.safetensors")

    async def estimate() -> tuple[int, tuple[Estimate, ...]]:
        async with Installation(load_settings(), clock=FixedClock()) as again:
            estimator = again.runtime.routing.router.estimator
            assert estimator is not None
            return estimator.state.folded, (await again.runtime.orchestrator.decide(TASK)).estimates

    assert await estimate() == (EPOCH + 100, learned), "from the snapshot"
    whole = snapshot.read_bytes()
    arrays, head = load(whole), json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    of_more_groups = arrays | {"covariance": np.pad(arrays["covariance"], ((0, 0), (0, 1), (0, 1)))}
    for damaged in (
        save(of_more_groups, metadata=head["__metadata__"]),
        whole[: len(whole) // 2],
        b"",
        whole.replace(b'"digest":"', b'"digest":"0', 1),
    ):
        snapshot.write_bytes(damaged)
        assert await estimate() == (EPOCH + 100, learned), "from the ledger alone"
    assert [path.name for path in folder.glob("learnt-*.safetensors")] == [snapshot.name]
    again, before = load(snapshot.read_bytes()), load(whole)
    assert all(np.array_equal(again[name], before[name], equal_nan=True) for name in before), (
        "it was made again, to the same"
    )
    write_pool(serve(), serve(), extra=f"{STILL}[pool]\nmuted = ['a']\n")
    folded, _ = await estimate()
    assert folded == EPOCH + 100
    assert decision.predictor == version


async def test_outcomes_of_another_process_are_learned_while_serving(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app, open_app() as other:
        await promote_checkpoint(app, tmp_path)
        before = (await app.runtime.orchestrator.decide(TASK)).estimates[1].quality
        for _ in range(10):
            decision, _ = await other.runtime.orchestrator.run(TASK)
            await record_feedback(other, decision.id, judge(0.0))
        await app.catch_up()
        assert (await app.runtime.orchestrator.decide(TASK)).estimates[1].quality < before


async def test_feedback_on_what_is_unknown_or_judged_already(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        await promote_checkpoint(app, tmp_path)
        with pytest.raises(NotFound, match="no decision is recorded under 'nobody'"):
            await record_feedback(app, "nobody", judge(1.0))
        decision, run = await app.runtime.orchestrator.run(TASK)
        await record_feedback(app, decision.id, judge(0.0))
        once = (await app.runtime.orchestrator.decide(TASK)).estimates
        again = await record_feedback(app, decision.id, judge(1.0))
        assert again.nth == 1
        assert (await app.runtime.orchestrator.decide(TASK)).estimates == once, (
            "a second finding waits for the next training"
        )
        assert [j.verdict.quality for j in app.ledger.runs.verdicts_of(run.id)] == [0.0, 1.0]


async def test_a_new_worker_is_masked_probed_and_then_takes_its_tasks(serve: Serve, tmp_path: Path) -> None:
    wrong, right = serve([Reply(text="no")]), serve([Reply(text="no")])
    path = write_pool(wrong, right, extra=STILL)
    async with open_app() as app:
        version = await promote_checkpoint(app, tmp_path)
        with pytest.raises(NotFound, match="no decision"):
            app.ledger.decisions.find("x")
        write_pool(wrong, right, serve([Reply(text="yes")]), extra=STILL)
        decision = await app.runtime.orchestrator.decide(TASK)
        assert decision.predictor == version, "nothing was trained anew"
        assert set(list_workers(decision.workflow)) == {"b", "a"}, "a worker nothing is known of does not even stand in"
        only = Task.from_text("What?", objective=app.runtime.make_objective())
        named = await app.runtime.orchestrator.decide(only_for(only, "c"))
        assert named.worker == "c", "who is asked for by name answers"
        tasks = tuple(
            GradedTask(id=f"t{i}", task=Task.from_text(f"question {i} about rice"), grader=Exact(answers=("yes",)),
                       family="f")
            for i in range(60)
        )  # fmt: skip
        probing = Probing(worker=app.runtime.pool["c"].id, tasks=tasks, budget=12)
        short = await make_prober(app).run(probing, app.runtime.pool, known=set())
        assert (short.probes, short.standing) == (12, "trial")
        known = app.ledger.campaigns.run_ids(name_probes(app.runtime.pool["c"].id))
        assert len(known) == 12
        longer = Probing(worker=app.runtime.pool["c"].id, tasks=tasks, budget=40)
        found = await make_prober(app).run(longer, app.runtime.pool, known=known)
        assert len(app.ledger.campaigns.run_ids(name_probes(app.runtime.pool["c"].id))) == found.probes
        assert found.quality > short.quality > 0.6
        if found.standing == "free":
            assert (await app.runtime.orchestrator.decide(tasks[50].task)).worker in {"c", "b"}
        assert path.is_file()


async def test_probing_needs_a_checkpoint(serve: Serve) -> None:
    write_pool(serve(), serve())
    async with open_app() as app:
        with pytest.raises(ConfigError, match="no checkpoint decides yet"):
            make_prober(app)


def only_for(task: Task, worker: str) -> Task:
    return replace(task, objective=replace(task.objective, workers=(worker,)))


@pytest.mark.parametrize(("quality", "fate"), [(0.0, False), (1.0, True)])
async def test_a_canary_is_rolled_back_by_bad_outcomes_and_promoted_by_good_ones(
    serve: Serve, tmp_path: Path, quality: float, fate: bool
) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        incumbent = await promote_checkpoint(app, tmp_path)
        candidate = await save_checkpoint(app, make_outcomes(tmp_path / "other", models=("b", "a")))
        app.registry.set_canary(start_canary(app.registry, app.ledger, candidate).model_copy(update={"share": 1.0}))
        for _ in range(CANARY_OUTCOMES):
            decision, run = await app.runtime.orchestrator.run(TASK)
            assert (decision.predictor, decision.worker) == (candidate, "a"), "the incumbent would take b"
            await app.ledger.append(Judged(run=run.id, verdict=judge(quality)))
        await app.catch_up()
        assert app.registry.canary() is None
        assert app.registry.current() == (candidate if fate else incumbent)
        staged = [s.entry for s in app.ledger.read(kinds=("staged",))]
        assert [(e.stage, e.passed) for e in staged if isinstance(e, Staged)] == [("canary", fate)]
        assert (await app.runtime.orchestrator.decide(TASK)).predictor.startswith(candidate if fate else incumbent)
        if not fate:
            with pytest.raises(GateRefused, match="is in quarantine: as a canary it falls"):
                app.registry.promote(candidate)
            app.registry.release(candidate)
            assert app.registry.promote(candidate) == incumbent


async def test_a_canary_gets_its_share_and_no_more(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        incumbent = await promote_checkpoint(app, tmp_path)
        candidate = await save_checkpoint(app, make_outcomes(tmp_path / "other"))
        start_canary(app.registry, app.ledger, candidate)
        deciders = [(await app.runtime.orchestrator.decide(TASK)).predictor for _ in range(600)]
        assert set(deciders) == {incumbent, candidate}
        assert 10 <= deciders.count(candidate) <= 60
        app.registry.canary_pointer.write_text("{")
        assert (await app.runtime.orchestrator.decide(TASK)).predictor in {incumbent, candidate}, "the old brain stays"
        assert "canary's file" in str(app.reload_fault)
        with pytest.raises(CheckpointError, match="canary's file"):
            app.registry.canary()


async def test_a_budget_moves_traffic_to_the_cheap_worker(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra=STILL + "budget_usd_per_task = 0.0012\npreference = 1.0\n")
    async with open_app() as app:
        await promote_checkpoint(app, tmp_path)
        taken, spent = [], 0.0
        for _ in range(120):
            decision, run = await app.runtime.orchestrator.run(TASK)
            taken.append(decision.worker)
            spent += run.cost_usd or 0.0
        assert taken[0] == "b"
        assert {"a", "b"} == set(taken)
        assert spent / 120 == pytest.approx(0.0012, rel=0.1)
        paced = next(d for d in reversed(list(app.ledger.read(kinds=("decided",)))) if hasattr(d.entry, "decision"))
        decided = app.ledger.decisions.find(paced.entry.id.removeprefix("decided:"))
        assert (await app.replays.replay(decided, app.runtime.pool)).differs == ()


async def test_no_answer_differs_from_a_failure(serve: Serve, tmp_path: Path) -> None:
    servers = serve(), serve()
    write_pool(*servers, extra=STILL + "abstain_price = 0.0\n[gateway]\nport = 0\n")
    async with Installation(load_settings()) as app:
        await promote_checkpoint(app, tmp_path)
        listener = bind_socket(app.runtime.settings.gateway)
        async with running(app, listener) as address, aiohttp.ClientSession() as session:
            grave = {"mission_criticality": 10}
            body = {"model": "auto", "messages": [{"role": "user", "content": TASK.text}], "ripieno": grave}
            async with session.post(f"{address}/v1/chat/completions", json=body) as response:
                told = await response.json()
            assert response.status == 422
            assert told["error"]["code"] == "abstained"
            assert "no answer is worth more than the best expected answer" in told["error"]["message"]
            calm = body | {"ripieno": {"mission_criticality": 0}}
            async with session.post(f"{address}/v1/chat/completions", json=calm) as response:
                assert response.status == 200
            stream = body | {"stream": True}
            async with session.post(f"{address}/v1/chat/completions", json=stream) as response:
                assert response.status == 422
        with pytest.raises(Abstained) as caught:
            await app.runtime.orchestrator.run(grave_task(app))
        recorded = app.ledger.decisions.find(caught.value.decision)
        assert recorded.decision.abstains
        assert app.ledger.runs.of_decision(recorded.decision.id) == []
        assert recorded.decision.reasons[0].startswith("no answer is worth more")


def grave_task(app: Installation) -> Task:
    return replace(TASK, objective=replace(app.runtime.make_objective(), mission_criticality=10.0))


@pytest.mark.parametrize("text", ["word " * 420_000, "\x00", "  ", "。。。", "🙂"])
async def test_prompts_of_megabytes_and_of_no_words_are_decided(serve: Serve, tmp_path: Path, text: str) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        await promote_checkpoint(app, tmp_path)
        decision = await app.runtime.orchestrator.decide(Task.from_text(text))
        assert decision.worker in {"a", "b"}
        assert all(0.0 <= e.quality <= 1.0 for e in decision.estimates)


async def test_a_worker_removed_after_training_is_ignored(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    write_pool(server, serve(), extra=STILL)
    async with open_app() as app:
        version = await promote_checkpoint(app, tmp_path)
        for _ in range(3):
            decision, _ = await app.runtime.orchestrator.run(TASK)
            await record_feedback(app, decision.id, judge(0.0))
        assert decision.worker == "b"
        write_pool(server, extra=STILL)
        alone = await app.runtime.orchestrator.decide(TASK)
        assert (alone.worker, alone.predictor) == ("a", version), "outcomes of who has left are passed over"
        await app.catch_up()
        assert (await app.runtime.orchestrator.decide(TASK)).worker == "a"


async def test_a_truncated_checkpoint_is_refused_and_the_running_one_stays(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        version = await promote_checkpoint(app, tmp_path)
        assert (await app.runtime.orchestrator.decide(TASK)).predictor == version
        other = await save_checkpoint(app, make_outcomes(tmp_path / "other"))
        weights = app.registry.folder / other / "predictor.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        app.registry.promote(other)
        assert (await app.runtime.orchestrator.decide(TASK)).predictor == version
        assert "is damaged" in str(app.reload_fault)


async def test_logged_traffic_estimates_the_value_of_another_policy(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra="[route]\nexploration = 0.19\npreference = 1.0\n")
    async with open_app() as app:
        await promote_checkpoint(app, tmp_path)
        for number in range(60):
            decision, _ = await app.runtime.orchestrator.run(Task.from_text(f"question {number} about rice"))
            if number % 10:
                await record_feedback(app, decision.id, judge(float(decision.worker == "b")))
        rows = list(read_decisions(app.ledger))
        assert len(rows) == 60
        assert all(row.is_realised for row in rows)
        judged = [row for row in rows if row.quality is not None]
        assert len(judged) == 54
        log, workers = make_log(judged)
        assert workers == ("a", "b")
        target = np.zeros((54, 2))
        target[:, 1] = 1.0
        found = estimate_difference(log, target)
        assert found.low <= found.mean <= found.high
        assert found.mean > -0.05, "b is always right"
        assert app.ledger.campaigns.find_source("nowhere") == ""
        explained = explain(replace(judged[0].decision, policy_facts={"has_ladder": False}))
        assert {span.worker for span in explained.spans} <= {"a", "b"}
