"""Every decision of a ledger replays to itself, whatever has changed since; what cannot be replayed says why."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.conftest import Serve, open_app, write_pool
from tests.integration.test_app import make_outcomes, save_checkpoint

from ripieno.app import Installation
from ripieno.app.feedback import record_feedback
from ripieno.app.policies import audit_traffic
from ripieno.app.replay import UNRECORDED, Replayed
from ripieno.config import load_settings
from ripieno.domain import (
    Arrival,
    Configured,
    Decided,
    Decision,
    Ensemble,
    Merge,
    Message,
    Mode,
    Objective,
    Plan,
    Privacy,
    Task,
    Verdict,
    Verified,
    WorkerId,
    Workflow,
)
from ripieno.domain.grader import Agreement, Check, Exact, JsonSchema, Judge
from ripieno.domain.memory import Scope
from ripieno.errors import CheckpointError, InvalidTask, NotReplayable, RipienoError
from ripieno.learn.promotion import start_canary
from ripieno.ledger.codec import GENESIS, EntryRow, chain_digest
from ripieno.orchestrator import make_arrival
from ripieno.testing import Reply

A, B, C = (WorkerId(name) for name in "abc")
RUBRIC = Judge(rubric="5 is best, 1 is worst")
CHECKS: Sequence[Check | None] = (
    None, Exact(answers=("4",)), RUBRIC, replace(RUBRIC, worker=B), Agreement(peer=C),
    JsonSchema(schema={"type": "string"}),
)  # fmt: skip
OLD = Path(__file__).parent / "old_decisions.jsonl"
"""Decisions as the version before recorded them: without the setup, and without the check that the request stated."""
RULES = '[[rule]]\nworkers = ["c"]\nkind = "law"\n'
EVERY_MODE = f"[route]\nexploration = 0.1\nmodes = {[mode.value for mode in Mode]}\n"


async def decide_all(app: Installation, tasks: Sequence[tuple[Task, Arrival]]) -> None:
    """Carry tasks through the app; what fails after its decision was recorded does not matter here."""
    for task, arrival in tasks:
        with suppress(RipienoError):
            await app.runtime.orchestrator.run(task, arrival=arrival)


async def record(app: Installation, task: Task, arrival: Arrival) -> Decision | None:
    """Decide a task and record the decision, without a call; None where no workflow can be composed."""
    with suppress(InvalidTask):
        decision = await app.runtime.orchestrator.decide(task, arrival=arrival)
        setup = app.runtime.routing.pick(arrival).setup
        await app.ledger.append(Decided(decision=decision, task=task), Configured(setup=setup))
        return decision
    return None


def read_decided(app: Installation) -> list[Decided]:
    return [stored.entry for stored in app.ledger.read(kinds=("decided",)) if isinstance(stored.entry, Decided)]


async def replay_all(app: Installation) -> list[Replayed]:
    """Replay every decision of the ledger, each to itself."""
    found = []
    for decided in read_decided(app):
        replayed = await app.replays.replay(decided, app.runtime.pool)
        assert replayed.differs == (), (decided.decision.objective, decided.decision.workflow, replayed.decision)
        assert replayed.unrecorded == ()
        found.append(replayed)
    return found


def make_task(app: Installation, text: str = "What is 2 + 2?", kind: str | None = None, **objective: object) -> Task:
    whole = replace(app.runtime.make_objective(), stated=frozenset(objective), **objective)  # type: ignore[arg-type]  # by name
    return Task.from_text(text, objective=whole, kind=kind)


@asynccontextmanager
async def open_trained(tmp_path: Path) -> AsyncIterator[Installation]:
    """The folder's app with a checkpoint in traffic."""
    async with open_app() as app:
        app.registry.promote(await save_checkpoint(app, make_outcomes(tmp_path / "set")))
        yield app


@pytest.mark.parametrize("judge", ["", "[profile]\njudge = 'c'\n"])
@pytest.mark.parametrize("policy", ["utility", "rules"])
async def test_every_mode_and_check_replays_to_itself_after_the_settings_have_changed(
    serve: Serve, tmp_path: Path, judge: str, policy: str
) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    servers = [serve([Reply(text="4")]) for _ in range(3)]
    write_pool(*servers, extra=f"{EVERY_MODE}policy = '{policy}'\nrules = 'rules.toml'\n{judge}")
    async with open_app() as app:
        kinds = (None, "law") if policy == "rules" else (None,)
        for mode in (None, *Mode):
            for check, kind in product(CHECKS, kinds):
                task, arrival = make_task(app, mode=mode, kind=kind), make_arrival(app.clock, check=check)
                await (decide_all(app, [(task, arrival)]) if check is None else record(app, task, arrival))
        decided = read_decided(app)
        assert {each.decision.objective.mode for each in decided} == {None, *Mode}
        assert len(decided) >= 50 * len(kinds), "few combinations are refused"
        await replay_all(app)
    (tmp_path / "rules.toml").write_text('[[rule]]\nworkers = ["a"]\n')
    write_pool(
        *servers[:2], extra="[route]\nmodes = ['solo']\npreset = 'cheap'\n[profile]\njudge = 'b'\n[pool]\nmuted = ['a']"
    )
    async with open_app() as app:
        again = await replay_all(app)
        assert app.ledger.verify().entries > len(again)
        if policy == "rules":
            assert {each.decision.worker for each in again if each.decision.kind == "law"} >= {C}


async def test_learned_estimates_presets_incumbents_load_and_tools_replay_to_themselves(
    serve: Serve, tmp_path: Path
) -> None:
    servers = [serve([Reply(text="4")]), serve([Reply(text="4")])]
    path = write_pool(*servers, extra="[route]\nexploration = 0.1\nabstain_price = 0.5\n[profile]\njudge = 'a'")
    path.write_text(path.read_text().replace("usd_per_call", "max_concurrency = 1\nusd_per_call"))
    async with open_trained(tmp_path) as app:
        other = await save_checkpoint(app, make_outcomes(tmp_path / "b", models=("b", "a")))
        canary = start_canary(app.registry, app.ledger, other)
        app.registry.set_canary(canary.model_copy(update={"share": 0.5}))
        told: list[dict[str, Any]] = [
            {}, {"deadline_s": 0.5}, {"quality_floor": 0.9}, {"mission_criticality": 9.0}, {"money_weight": 40.0},
            {"preset": "qos"}, {"preset": "fast", "preference": 0.5}, {"preference": 0.0}, {"privacy": Privacy.LOCAL},
            {"workers": ("b",)}, {"allowed": ("a",)}, {"workers": ("b",), "mode": Mode.VERIFIED},
            {"mode": Mode.CASCADE}, {"abstain_price": 0.0, "mission_criticality": 10.0},
        ]  # fmt: skip
        tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
        turns = (*make_task(app).messages, Message(role="tool", content="4", extra={"tool_call_id": "x"}))
        plain = make_arrival(app.clock)
        own = Verified(worker=B, check=Exact(answers=("4",)))
        for text in ("rice", "", "words " * 3000):
            arrivals = [make_arrival(app.clock, check=Exact(answers=("4",)), incumbent=who) for who in (None, A, B)]
            for objective in told:
                await decide_all(app, [(make_task(app, text, **objective), make_arrival(app.clock))])
            await decide_all(app, [(replace(make_task(app, text), tools=(tool,)), each) for each in arrivals])
        await decide_all(app, [(replace(make_task(app), messages=turns), make_arrival(app.clock, incumbent=A))])
        await decide_all(app, [(make_task(app), replace(plain, workflow=own))])
        await decide_all(app, [(make_task(app), replace(make_arrival(app.clock), memory=Scope(project="p")))])
        pieces = await app.runtime.orchestrator.stream(await app.runtime.orchestrator.start(make_task(app)))
        assert [piece async for piece in pieces]
        servers[1].script = [Reply(hangs=True)]
        servers[1].came.clear()
        waiting = asyncio.create_task(app.runtime.orchestrator.run(make_task(app, workers=("b",))))
        await asyncio.to_thread(servers[1].came.wait)
        loaded = await record(app, make_task(app), make_arrival(app.clock))
        assert loaded is not None
        assert loaded.load == {"b": 1.0}
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        servers[1].script = [Reply(text="4")]
        decisions = [each.decision for each in read_decided(app)]
        assert len({each.predictor.partition("+")[0] for each in decisions}) == 3, "the checkpoint, the canary, none"
        assert any(each.abstains for each in decisions)
        for each in decisions[:20]:
            with suppress(RipienoError):
                await record_feedback(app, each.id, Verdict(verifier="user", quality=float(each.worker == "a")))
        await decide_all(app, [(make_task(app, "rice"), make_arrival(app.clock)) for _ in range(5)])
        assert any("+" in each.decision.predictor for each in read_decided(app))
        await replay_all(app)
        audited, _ = await audit_traffic(app, last=1000)
        assert audited.decisions > 30
    path.write_text(path.read_text().replace("1e-3", "9.0"))
    async with open_app() as app:
        await replay_all(app)


async def test_the_kind_and_the_objective_of_an_equal_text_are_those_of_its_own_request(serve: Serve) -> None:
    """The ledger holds equal tasks once, with the kind and the objective of the first."""
    Path("rules.toml").write_text(RULES)
    write_pool(serve(), serve(), serve(), extra="[route]\npolicy = 'rules'\nrules = 'rules.toml'\n")
    async with open_app() as app:
        asked = [make_task(app), make_task(app, kind="law"), make_task(app, preference=0.1)]
        await decide_all(app, [(task, make_arrival(app.clock)) for task in asked])
        assert [each.decision.worker for each in read_decided(app)] == ["a", "c", "a"]
        await replay_all(app)


async def test_a_named_worker_with_a_workflow_is_estimated_by_the_whole_of_the_features(
    serve: Serve, tmp_path: Path
) -> None:
    write_pool(serve(), serve())
    async with open_trained(tmp_path) as app:
        check = Exact(answers=("4",))
        task = make_task(app, workers=("b",), mode=Mode.VERIFIED)
        decision = await app.runtime.orchestrator.decide(task, arrival=make_arrival(app.clock, check=check))
        assert decision.workflow == Verified(worker=B, check=check)
        assert [estimate.worker for estimate in decision.estimates] == [B]


async def test_a_withheld_text_replays_without_its_vector_and_one_that_was_shown_needs_it(
    serve: Serve, tmp_path: Path
) -> None:
    write_pool(serve(), serve(), extra="[route]\nsensitive = 'local'\n")
    async with open_trained(tmp_path) as app:
        secret = make_task(app, "My password: hunter2222, and my mail is ada@example.org")
        decision = await record(app, secret, make_arrival(app.clock))
        assert decision is not None
        assert decision.inputs is not None
        assert decision.inputs.sensitivity
    write_pool(serve(), serve())
    async with open_app() as app:
        await replay_all(app)
        (decided,) = read_decided(app)
        inputs = await app.replays.restore(decided, app.runtime.pool)
        assert inputs.features.sensitivity == decision.inputs.sensitivity, "though nobody looks for it now"
        unseen = replace(decided, decision=replace(decision, inputs=replace(decision.inputs, is_encoded=False)))
        assert not (await app.replays.restore(unseen, app.runtime.pool)).features.embedding.any()
        empty = replace(decided, task=Task.from_text(""))
        with pytest.raises(NotReplayable, match="the vector of its text"):
            await app.replays.restore(empty, app.runtime.pool)


async def test_a_plan_is_kept_as_it_was_written(serve: Serve) -> None:
    replies = iter(['{"steps": [{"worker": 0, "op": "solve", "source": "question"}]}', "fine"])
    write_pool(serve(lambda seen: Reply(text=next(replies))), extra="[conductor]\nkind = 'prompted'")
    async with open_app() as app:
        decision, _ = await app.runtime.orchestrator.run(make_task(app, mode=Mode.PLAN))
        assert isinstance(decision.workflow, Plan)
        (again,) = await replay_all(app)
        assert again.decision.workflow == decision.workflow


async def test_a_replay_names_the_missing_input(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve())
    async with open_trained(tmp_path) as app:
        decision = await record(app, make_task(app), make_arrival(app.clock))
        assert decision is not None
        assert decision.inputs is not None
        decided = app.ledger.decisions.find(decision.id)
        lost = replace(decided, decision=replace(decision, inputs=replace(decision.inputs, setup="gone")))
        with pytest.raises(NotReplayable) as caught:
            await app.replays.replay(lost, app.runtime.pool)
        assert (caught.value.decision, "'gone'" in caught.value.missing) == (decision.id, True)
        (app.registry.folder / decision.predictor).rename(tmp_path / "moved")
        with pytest.raises(CheckpointError, match="there is no checkpoint"):
            await app.replays.replay(decided, app.runtime.pool)
        debate = Ensemble(members=(A, B, A), merge=Merge.VOTE, rounds=2)
        removed = replace(decided, decision=replace(decision, workflow=debate))
        with pytest.raises(NotReplayable, match="the workflow 'debate' was removed"):
            await app.replays.replay(removed, app.runtime.pool)
        app.analyzer.encoder.name = "another"
        with pytest.raises(NotReplayable, match="its features were"):
            await app.replays.replay(decided, app.runtime.pool)


def write_old(ledger: Path) -> None:
    """Write decisions in the old form into a ledger, chained as the version before chained them."""
    previous = GENESIS
    with sqlite3.connect(ledger) as database:
        for place, line in enumerate(OLD.read_text().splitlines()):
            row = json.loads(line)
            shell = EntryRow(id=row["id"], kind=row["kind"], body=row["body"], task=row["task"])
            previous = chain_digest(previous, shell, at=float(place))
            database.execute("INSERT OR IGNORE INTO tasks VALUES (?, ?)", (row["task"], row["task_body"]))
            database.execute(
                "INSERT INTO entries (id, kind, at, decision, task, body, digest) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (row["id"], row["kind"], float(place), row["decision"], row["task"], row["body"], previous),
            )


async def test_decisions_of_an_older_version_replay_by_what_they_hold_or_say_what_they_lack(serve: Serve) -> None:
    servers = serve(), serve(), serve()
    write_pool(*servers)
    async with open_app() as app:
        app.ledger.verify()
    write_old(Path("ledger.db"))
    async with open_app() as app:
        assert app.ledger.verify().entries == 13
        refused = []
        for decided in read_decided(app):
            assert decided.decision.inputs is None
            try:
                replayed = await app.replays.replay(decided, app.runtime.pool)
            except NotReplayable as error:
                refused.append(error.missing)
                continue
            assert replayed.differs == (), decided.decision.workflow
            assert replayed.unrecorded == (() if decided.decision.policy == "named" else UNRECORDED)
        assert refused == ["the workflow 'debate' was removed", "the workflow 'mixture' was removed"]
        first = read_decided(app)[0]
        ruled = replace(first, decision=replace(first.decision, policy="rules"))
        with pytest.raises(NotReplayable, match="the text of its rules was not recorded"):
            await app.replays.replay(ruled, app.runtime.pool)
        audited, _ = await audit_traffic(app, last=100)
        assert audited.decisions > 0
    write_pool(servers[0])
    async with open_app() as app:
        with pytest.raises(NotReplayable, match="'b' has left the pool, and its card was not recorded"):
            await app.replays.replay(read_decided(app)[0], app.runtime.pool)
        audited, _ = await audit_traffic(app, last=100)
        assert audited.decisions > 0, "its features are found without the inputs"


_objectives = st.builds(
    Objective,
    preference=st.floats(0.0, 1.0),
    preset=st.sampled_from(["balanced", "best", "cheap", "fast", "private", "qos"]),
    deadline_s=st.none() | st.floats(0.01, 60.0),
    quality_floor=st.floats(0.0, 1.0),
    mission_criticality=st.floats(0.0, 10.0),
    time_criticality=st.floats(0.0, 10.0),
    workers=st.sampled_from([(), ("a",), ("a", "b"), ("b", "c")]),
    allowed=st.sampled_from([(), ("b",), ("a", "c")]),
    stated=st.sampled_from([frozenset(), frozenset({"mission_criticality"})]),
    abstain_price=st.none() | st.floats(0.0, 2.0),
    money_weight=st.floats(0.0, 100.0),
    mode=st.none() | st.sampled_from(Mode),
)
_workflows: st.SearchStrategy[Workflow | None] = st.none() | st.builds(
    Verified, worker=st.sampled_from([A, B, C]), check=st.just(Exact(answers=("4",)))
)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as opened:
        yield opened


def test_random_objectives_masks_and_loads_replay_to_themselves(
    serve: Serve, tmp_path: Path, runner: asyncio.Runner
) -> None:
    write_pool(serve(), serve(), serve(), extra=f"{EVERY_MODE}[profile]\njudge = 'b'")
    app = Installation(load_settings())
    app.registry.promote(runner.run(save_checkpoint(app, make_outcomes(tmp_path / "set"))))

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        objective=_objectives,
        workflow=_workflows,
        check=st.sampled_from(CHECKS),
        incumbent=st.none() | st.sampled_from([A, B, C]),
        kind=st.none() | st.just("law"),
        resting=st.sets(st.sampled_from([A, B, C]), max_size=2),
        load=st.dictionaries(st.sampled_from([A, B, C]), st.floats(0.0, 20.0)),
        text=st.text(max_size=40),
    )
    def check_one(
        objective: Objective, workflow: Workflow | None, check: Check | None, incumbent: WorkerId | None,
        kind: str | None, resting: set[WorkerId], load: dict[WorkerId, float], text: str,
    ) -> None:  # fmt: skip
        arrival = replace(make_arrival(app.clock, check=check, incumbent=incumbent), workflow=workflow)
        task = Task.from_text(text, objective=objective, kind=kind)
        conditions = replace(
            app.runtime.availability.conditions(), unhealthy=dict.fromkeys(resting, "timeout"), load=load
        )
        router = app.runtime.routing.pick(arrival)
        try:
            features = runner.run(app.analyzer.analyze(task))
            decision = router.decide(router.gather(task, features, conditions, arrival=arrival))
        except RipienoError:
            return
        app.ledger.append_now([Decided(decision=decision, task=task), Configured(setup=router.setup)])
        replayed = runner.run(app.replays.replay(app.ledger.decisions.find(decision.id), app.runtime.pool))
        assert replayed.differs == ()

    check_one()
    runner.run(app.close())


async def test_a_decision_grows_by_little_and_the_texts_of_a_check_are_recorded_once(serve: Serve) -> None:
    write_pool(serve(), serve(), serve(), extra="[profile]\njudge = 'c'\n")
    async with open_app() as app:
        reference = "the reference answer of this task " * 100
        check = replace(RUBRIC, reference=reference)
        for mode in (None, Mode.VERIFIED, Mode.CASCADE):
            await decide_all(app, [(make_task(app, mode=mode), make_arrival(app.clock, check=check))])
        assert [each.decision.inputs.check for each in read_decided(app)] == [None, check, check]  # type: ignore[union-attr]  # all have inputs
        assert app.ledger.count("configured") == 1
        with sqlite3.connect("ledger.db") as database:
            bodies = [
                body for (body,) in database.execute("SELECT body FROM entries WHERE kind = 'decided' ORDER BY seq")
            ]
        assert [body.count(reference) for body in bodies] == [0, 1, 1]
        for body in bodies:
            assert len(json.dumps(json.loads(body)["inputs"])) < 200
