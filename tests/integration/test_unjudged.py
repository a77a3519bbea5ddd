"""Answers without a verdict: counted, reported, judged again from the record, and never a number."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.integration.conftest import Serve, open_app, write_pool
from tests.integration.test_learning import STILL, promote_checkpoint
from tests.integration.test_workflows import TASK, A, B, C, Told, asked, carry, steps_of, take_turns

from ripieno.app import Installation
from ripieno.app.probing import make_prober
from ripieno.cli.main import cli
from ripieno.config import load_settings
from ripieno.domain import (
    Cascade,
    Ensemble,
    Executed,
    Finding,
    Judged,
    Merge,
    Op,
    Plan,
    Step,
    Verdict,
    Verified,
)
from ripieno.domain.grader import Agreement, GradedTask, Human, Judge
from ripieno.domain.task import Task
from ripieno.errors import ApprovalPending, GateRefused, NotFound, NoVerdict
from ripieno.evaluate.sequential import BettingTest
from ripieno.learn.checks import pair_checks
from ripieno.learn.logs import read_logged
from ripieno.ledger import Ledger
from ripieno.measure import Campaign, Probing
from ripieno.measure.shadow import Rivals, Shadow, Shadowing, WorkerPair
from ripieno.route.utility import Scales
from ripieno.testing import FixedClock, ReceivedRequest, Reply, ScriptedServer

JUDGE = "[profile]\njudge = 'c'"
NOTHING = Reply(text="I would say 7/10 or 8/10")


def write_tasks(count: int, *, held_out: int = 0) -> Path:
    grader = {"kind": "judge", "rubric": "5 = right; 1 = wrong"}
    lines = [
        {"id": f"t{i}", "prompt": f"question {i} about {'rice' if i % 2 else 'law'}", "grader": grader,
         "split": "test" if i < held_out else "train"}
        for i in range(count)
    ]  # fmt: skip
    path = Path("tasks.jsonl")
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def judged_tasks(count: int) -> tuple[GradedTask, ...]:
    return tuple(
        GradedTask(id=f"t{i}", task=Task.from_text(f"question {i} about rice"), grader=Judge(rubric="r"), family="f")
        for i in range(count)
    )


def run(*words: str) -> tuple[str, str]:
    found = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout, found.stderr


def profile(*options: str) -> tuple[dict[str, object], str]:
    said, told = run("profile", "tasks.jsonl", "--worker", "a", "--worker", "b", "--json", *options)
    return json.loads(said), told


def count_calls(server: ScriptedServer) -> int:
    return len(server.seen)


async def test_a_judge_is_asked_for_json_and_again_if_unreadable(serve: Serve) -> None:
    judge = serve([NOTHING, Reply(text="{}"), Reply(text='{"grade": 5}')])
    write_pool(serve(), serve(), judge, extra=JUDGE)
    async with open_app() as app:
        campaign = Campaign(name="c", tasks=judged_tasks(1), workers=("a",))
        done = await app.runtime.make_profiler().run(campaign, app.runtime.pool)
        assert (done.accepted, done.unjudged) == (1.0, {})
    shapes = [seen.body["response_format"]["json_schema"]["schema"]["required"] for seen in judge.seen]  # type: ignore[index]  # JSON
    assert shapes == [["grade"]] * 3
    assert "could not be read" in asked(judge)[1]
    assert [seen.body["max_tokens"] for seen in judge.seen] == [512, 2048, 8192], "a judge that reasons gets more room"


async def test_a_judge_that_refuses_the_schema_is_asked_in_words(serve: Serve) -> None:
    def answer(request: ReceivedRequest) -> Reply:
        return Reply(status=400) if "response_format" in request.body else Reply(text='{"grade": 3}')

    write_pool(serve(), serve(), serve(answer), extra=JUDGE)
    async with open_app() as app:
        done = await app.runtime.make_profiler().run(
            Campaign(name="c", tasks=judged_tasks(1), workers=("a",)), app.runtime.pool
        )
        assert (done.accepted, done.unjudged) == (0.5, {})


@pytest.mark.parametrize("broken", [NOTHING, Reply(status=400), Reply(text=""), Reply(text='{"grade": 11}')])
def test_answers_of_a_failed_judge_are_judged_later(serve: Serve, broken: Reply) -> None:
    workers, judge = [serve(), serve()], serve([broken])
    write_pool(*workers, judge, extra=JUDGE)
    write_tasks(6)
    found, _ = profile()
    assert (found["samples"], found["measured"], found["unjudged"]) == (12, 12, {"a": 6, "b": 6})
    assert not found["judged_again"]
    reasons = found["unjudged_reasons"]
    assert isinstance(reasons, dict)
    assert sum(reasons.values()) == 12
    with Ledger("sqlite:///ledger.db") as ledger:
        assert list(ledger.outcomes.measured()) == []
        assert ledger.count("judged") == 0
        assert len(ledger.outcomes.unjudged("tasks")) == 12
    with pytest.raises(NotFound, match="none of the 12 recorded answers of 'tasks' has a verdict") as refused:
        run("train")
    assert "it judges the recorded answers" in str(refused.value.hint)
    calls = [count_calls(worker) for worker in workers]
    judge.script = [Reply(text='{"grade": 4}')]
    again, _ = profile()
    assert (again["resumed"], again["measured"], again["judged_again"], again["unjudged"]) == (12, 0, 12, {})
    assert [count_calls(worker) for worker in workers] == calls, "the recorded answers are judged"
    with Ledger("sqlite:///ledger.db") as ledger:
        assert [row.outcome.quality for row in ledger.outcomes.measured()] == [0.75] * 12
        ledger.verify()


def test_the_summary_counts_missing_verdicts_by_worker_and_reason(serve: Serve) -> None:
    write_pool(serve(), serve(), serve([NOTHING]), extra=JUDGE)
    write_tasks(2)
    _, told = run("profile", "tasks.jsonl", "--worker", "a", "--worker", "b")
    assert "4 of 4 answers have no verdict, and count as unknown: a 2, b 2" in told
    assert "4 times: judge 'c' stated no grade from 1 to 5 in 3 replies" in told
    assert "run the same command again once the judge works" in told


def test_a_worker_never_judges_itself_and_is_reported(serve: Serve) -> None:
    write_pool(serve([Reply(text="fine")]), extra="[profile]\njudge = 'a'")
    write_tasks(1)
    _, told = run("profile", "tasks.jsonl", "--worker", "a")
    assert "'a' may not judge its own answer" in told
    with Ledger("sqlite:///ledger.db") as ledger:
        assert list(ledger.outcomes.measured()) == []


def test_too_many_missing_verdicts_block_promotion_and_the_card_says_so(serve: Serve) -> None:
    judge = serve(lambda seen: NOTHING if "question 7" in asked_first(seen) else Reply(text='{"grade": 5}'))
    workers = [serve([Reply(text="short")]), serve([Reply(text="long")])]
    write_pool(*workers, judge, extra=JUDGE)
    write_tasks(13)
    found, _ = profile()
    assert found["unjudged"] == {"a": 1, "b": 1}
    with pytest.raises(GateRefused, match="5% of a worker's answers have no verdict: a 1 of 13, b 1 of 13"):
        run("train")
    (card,) = Path(".ripieno/checkpoints").glob("*/card.json")
    assert json.loads(card.read_text())["unjudged"] == {"a": [1, 13], "b": [1, 13]}
    assert (
        "Answers without a verdict, and not learned from: a 1 of 13, b 1 of 13"
        in card.with_name("README.md").read_text()
    )
    judge.script = [Reply(text='{"grade": 5}')]
    again, _ = profile()
    assert (again["judged_again"], again["unjudged"]) == (2, {})
    said, _ = run("train", "--json")
    assert json.loads(said)["card"]["unjudged"] == {}


def asked_first(request: ReceivedRequest) -> str:
    messages = request.body["messages"]
    assert isinstance(messages, list)
    return str(messages[1]["content"])


async def test_failed_judgements_of_older_ledgers_are_judged_again(serve: Serve) -> None:
    write_pool(serve(), serve(), serve([NOTHING]), extra=JUDGE)
    campaign = Campaign(name="c", tasks=judged_tasks(2), workers=("a",))
    void = Verdict(verifier="judge_failed", quality=0.0, detail="judge 'c' gave no grade")
    async with open_app() as app:
        await app.runtime.make_profiler().run(campaign, app.runtime.pool)
        for name in app.ledger.campaigns.run_ids("c"):
            await app.ledger.append(Judged(run=name, verdict=void))
        assert list(app.ledger.outcomes.measured()) == []
        assert len(app.ledger.outcomes.unjudged("c")) == 2
        decision, made = await app.runtime.orchestrator.run(TASK)
        await app.ledger.append(Judged(run=made.id, verdict=void))
        assert app.ledger.runs.verdicts_of(made.id) == []
        assert app.ledger.decisions.results_of([decision.id])[decision.id][1] == []
        assert [row.quality for row in read_logged(app.ledger)] == [None]
        assert list(app.ledger.outcomes.traffic(after=0)) == []
        good = Verdict(verifier="user", quality=1.0)
        await app.ledger.append(Judged(run=made.id, verdict=good))
        assert [late.quality for late in app.ledger.outcomes.traffic(after=0)] == [1.0], "the first real finding counts"
        old = Finding(step="1.check", author=A, verdict=Verdict(verifier="judge", quality=0.0, detail="not checked: x"))
        await app.ledger.append(Executed(run=replace(made, id="old", findings=(old,))))
        await app.ledger.append(Judged(run="old", verdict=good))
        assert pair_checks(app.ledger) == []


async def test_a_cascade_continues_after_an_unchecked_answer_and_says_so(serve: Serve) -> None:
    write_pool(serve([Reply(text="42")]), serve([Reply(status=400)]), serve([Reply(text="42")]))
    async with open_app() as app:
        run = (await carry(app, Cascade(stages=(A, C), check=Agreement(peer=B)))).run
        assert run.worker == "c"
        assert run.findings == ()
        assert [(each.step, each.author, each.verifier) for each in run.unchecked] == [("1.check", "a", "agreement")]
        recorded = app.ledger.runs.of_decision(str(run.decision))[0]
        assert recorded.unchecked == run.unchecked


async def test_an_unchecked_answer_is_not_repaired_and_is_returned_as_unchecked(serve: Serve) -> None:
    write_pool(serve([Reply(text="from a")]), serve([Reply(text="from b")]), serve([NOTHING]), serve())
    async with open_app() as app:
        check = Judge(rubric="r", worker=C)
        run = (await carry(app, Verified(worker=A, check=check, fallbacks=(B, app.runtime.pool["d"].id)))).run
        assert [step for step, worker in steps_of(run) if worker != "c"] == ["1", "2"], "two, and nobody mends"
        assert (run.worker, run.findings) == ("a", ())
        assert [each.author for each in run.unchecked] == ["a", "b"]
        assert run.ended_early is not None
        assert "stated no grade" in run.ended_early


async def test_a_passing_answer_wins_over_an_unchecked_one(serve: Serve) -> None:
    grades = iter([NOTHING] * 3 + [Reply(text='{"grade": 5}')])
    write_pool(serve([Reply(text="from a")]), serve([Reply(text="from b")]), serve(lambda seen: next(grades)))
    async with open_app() as app:
        run = (await carry(app, Verified(worker=A, check=Judge(rubric="r", worker=C), fallbacks=(B,)))).run
        assert (run.worker, run.ended_early, len(run.unchecked)) == ("b", None, 1)


async def test_an_unchecked_answer_ranks_above_a_failed_one(serve: Serve) -> None:
    grades = iter([Reply(text='{"grade": 1}'), *[NOTHING] * 3])
    write_pool(serve([Reply(text="from a")]), serve([Reply(text="from b")]), serve(lambda seen: next(grades)))
    async with open_app() as app:
        check = Judge(rubric="r", worker=C)
        run = (await carry(app, Verified(worker=A, check=check, repairs=0, fallbacks=(B,)))).run
        assert run.worker == "b"
        assert [each.verdict.quality for each in run.findings] == [0.0]


async def test_best_of_several_falls_back_to_the_first_if_the_judge_fails(serve: Serve) -> None:
    write_pool(serve([Reply(text="from a")]), serve([Reply(text="from b")]), serve([NOTHING]))
    async with open_app() as app:
        best = Ensemble(members=(A, B), merge=Merge.BEST, check=Judge(rubric="r", worker=C))
        run = (await carry(app, best)).run
        assert run.worker == "a"
        assert [each.step for each in run.unchecked] == ["judge"]
        by_peer = Ensemble(members=(A, B), merge=Merge.BEST, check=Agreement(peer=C))
        write_pool(serve([Reply(text="from a")]), serve([Reply(text="from b")]), serve([Reply(status=400)]))
        run = (await carry(app, by_peer)).run
        assert (run.worker, len(run.unchecked)) == ("a", 2)


async def test_a_verifying_step_without_a_verdict_neither_accepts_nor_refuses(serve: Serve) -> None:
    write_pool(serve([Reply(text="41")]), serve([Reply(text="Hm.")]))
    solve, verify = Step(worker=A, op=Op.SOLVE), Step(worker=B, op=Op.VERIFY, access=(0,))
    async with open_app() as app:
        run = (await carry(app, Plan(steps=(solve, verify)))).run
        assert run.answer is not None
        assert (run.answer.text, run.findings) == ("41", ())
        assert [(each.author, each.verifier) for each in run.unchecked] == [("a", "worker:b")]
        director = Told(solve, verify, None)
        answered = await take_turns(app, director)
        assert [(turn.text, turn.accepts) for turn in director.seen] == [("41", None), ("", None)]
        assert len(answered.run.unchecked) == 1


async def test_an_expired_approval_gives_no_verdict(serve: Serve) -> None:
    write_pool(serve([Reply(text="from a")]), serve([Reply(text="from b")]))
    clock = FixedClock()
    async with Installation(load_settings(), clock=clock) as app:
        with pytest.raises(ApprovalPending):
            await carry(app, Verified(worker=A, check=Human(), repairs=0))
        clock.advance(25 * 3600.0)
        answered = await app.runtime.orchestrator.resume(app.runs.unfinished()[0])
        assert answered is not None
        assert answered.run.findings == ()
        assert [each.verifier for each in answered.run.unchecked] == ["human"]
        assert answered.run.answer is not None
        assert answered.run.answer.text == "from a"


async def test_probing_stops_without_verdicts_and_resumes_later(serve: Serve, tmp_path: Path) -> None:
    judge = serve([NOTHING])
    two, extra = [serve([Reply(text="no")]), serve([Reply(text="no")])], f"{JUDGE.replace('c', 'd')}\n{STILL}"
    new = serve([Reply(text="yes")])
    write_pool(*two, extra=STILL)
    async with open_app() as app:
        await promote_checkpoint(app, tmp_path)
        write_pool(*two, new, judge, extra=extra)
        probing = Probing(worker=app.runtime.pool["c"].id, tasks=judged_tasks(30), budget=8)
        with pytest.raises(NoVerdict, match="none of 5 probes has a verdict"):
            await make_prober(app).run(probing, app.runtime.pool, known=set())
        calls = count_calls(new)
        judge.script = [Reply(text='{"grade": 5}')]
        known = app.ledger.campaigns.run_ids("probe:c")
        found = await make_prober(app).run(probing, app.runtime.pool, known=known)
        assert (found.probes, found.unjudged) == (8, 0)
        assert count_calls(new) == calls + 3, "the first five are judged from the record"


async def test_a_shadow_pair_without_a_verdict_does_not_count_and_is_judged_later(serve: Serve, tmp_path: Path) -> None:
    judge = serve([NOTHING])
    workers = [serve([Reply(text="no")]), serve([Reply(text="yes")])]
    write_pool(*workers, judge, extra=f"{JUDGE}\n{STILL}")
    async with open_app() as app:
        pairs = [WorkerPair(task=task, candidate=B, incumbent=A) for task in judged_tasks(3)]
        router = app.runtime.routing.router
        rivals = Rivals(candidate=router, incumbent=router, scales=Scales(cost_usd=1.0, latency_s=1.0))
        shadowing = Shadowing(pairs=pairs, rivals=rivals, campaign="shadow:x", known={})
        test = BettingTest(alpha=0.02)
        done = await Shadow(app.runtime.make_profiler(), app.analyzer).run(shadowing, app.runtime.pool, test)
        assert (test.pairs, len(done.unjudged)) == (0, 6)
        calls = [count_calls(worker) for worker in workers]
        judge.script = [Reply(text='{"grade": 5}')]
        later = replace(shadowing, unjudged={run.id: run for run in app.ledger.outcomes.unjudged("shadow:x")})
        done = await Shadow(app.runtime.make_profiler(), app.analyzer).run(later, app.runtime.pool, test)
        assert (test.pairs, done.unjudged, done.spent_usd) == (3, {}, 0.0)
        assert [count_calls(worker) for worker in workers] == calls
