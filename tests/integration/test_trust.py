"""Calibration of judges by later outcomes: learned from the ledger, and used only by workflows."""

import json
from dataclasses import replace
from pathlib import Path

from tests.integration.conftest import Serve, open_app, write_pool

from ripieno.app import Installation
from ripieno.domain import Cascade, Decided, Executed, Finding, Judged, Mode, Task, Verdict, WorkerId
from ripieno.domain.grader import Judge
from ripieno.execute import Started
from ripieno.learn.checkpoint import CARD, read_card
from ripieno.learn.checks import LEAST_OUTCOMES, fit_checks, pair_checks
from ripieno.orchestrator import make_arrival
from ripieno.testing import Reply
from ripieno.verify.trust import Trust

A, B, C = (WorkerId(name) for name in "abc")
JUDGE = "judge:c"


async def record(app: Installation, *, found: float, accepted: float, own: float | None = None) -> None:
    """Record a run: an answer, the judge's finding, and the user's later feedback."""
    task = Task.from_text("What is it?")
    decision = await app.runtime.orchestrator.decide(task)
    started = Started(decision=decision, task=task, setup=app.runtime.routing.router.setup)
    verdict = Verdict(verifier=JUDGE, quality=found, found=own)
    started.recorder.add_finding(Finding(step="1.check", author=decision.worker, verdict=verdict))
    second = replace(verdict, quality=1.0, found=None)
    started.recorder.add_finding(Finding(step="2.check", author=C, verdict=second))
    run = started.make_run(decision.worker)
    said = Judged(run=run.id, verdict=Verdict(verifier="user", quality=accepted))
    again = Judged(run=run.id, verdict=Verdict(verifier=JUDGE, quality=1.0))
    await app.ledger.append(Decided(decision=decision, task=task))
    await app.ledger.append(Executed(run=replace(run, author=decision.worker)))
    await app.ledger.append(said)
    await app.ledger.append(again)


async def test_the_findings_of_a_judge_are_paired_with_later_outcomes(serve: Serve) -> None:
    write_pool(serve([Reply(text="x")]))
    async with open_app() as app:
        for place in range(40):
            await record(app, found=0.75, accepted=float(place % 4 == 0))
            await record(app, found=0.1, own=1.0, accepted=float(place % 2 == 0))
        pairs = pair_checks(app.ledger)
    assert {(pair.verifier, pair.found) for pair in pairs} == {(JUDGE, 0.75), (JUDGE, 1.0)}
    trust = fit_checks(pairs)[JUDGE]
    assert trust.outcomes == 80
    assert trust.found == (0.75, 1.0)
    assert 0.25 < trust.accepted[0] < 0.29, "10 of 40, and its own word for two more"
    assert 0.5 < trust.accepted[1] < 0.54
    assert fit_checks(pairs[: LEAST_OUTCOMES - 1]) == {}, "too few: it is taken at its word"


async def test_a_judge_that_accepts_everything_ends_no_cascade(serve: Serve) -> None:
    servers = [serve([Reply(text=text)]) for text in ("weak", "strong", '{"grade": 5}')]
    write_pool(*servers)
    cascade = Cascade(stages=(A, B), check=Judge(rubric="5 is best", worker=C))
    async with open_app() as app:
        arrival = replace(make_arrival(app.clock), workflow=cascade)
        believed = await app.runtime.orchestrator.run_detailed(Task.from_text("What is it?"), arrival=arrival)
        assert believed.run.answer is not None
        assert believed.run.answer.text == "weak"
        app.runtime.grading().trusted = {JUDGE: Trust(found=(0.0, 1.0), accepted=(0.0, 0.3), outcomes=60)}
        arrival = replace(make_arrival(app.clock), workflow=cascade)
        doubted = await app.runtime.orchestrator.run_detailed(Task.from_text("What is it?"), arrival=arrival)
        assert doubted.run.answer is not None
        assert doubted.run.answer.text == "strong"
        verdict = doubted.run.findings[0].verdict
        assert (verdict.quality, verdict.own) == (0.3, 1.0)
        assert "accepted 30% of the time" in verdict.detail
        kept = [stored.entry for stored in app.ledger.read(kinds=("executed",))]
        assert kept[-1].run.findings[0].verdict == verdict  # type: ignore[union-attr]  # of runs


async def test_a_checkpoint_contains_the_calibration_of_judges(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve([Reply(text="x")]))
    async with open_app() as app:
        assert app.runtime.grading().trusted == {}
        assert Mode.TURNS in app.runtime.settings.route.modes
    card = dict.fromkeys(("kind", "encoder", "trained_at", "verdict", "ripieno"), "") | {
        "format": 3,
        "kind": "stack",
        "workers": ["a"],
        "datasets": [],
        "tasks": 1,
        "outcomes": 1,
        "seed": 0,
        "reference_cost_usd": 1.0,
        "reference_latency_s": 1.0,
        "metrics": {},
        "margin": 0.0,
        "held_out_tasks": 0,
        "held_out": [],
        "limits": [],
        "checks": {JUDGE: {"found": [0.0, 1.0], "accepted": [0.0, 0.3], "outcomes": 60}},
    }
    (tmp_path / CARD).write_text(json.dumps(card))
    assert read_card(tmp_path).checks[JUDGE] == Trust(found=(0.0, 1.0), accepted=(0.0, 0.3), outcomes=60)
