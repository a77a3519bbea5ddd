"""The graph of a workflow's steps: which steps are parallel, and which step saw which."""

from dataclasses import replace

from ripieno.dashboard.graph import Graph, lay_out
from ripieno.domain import (
    Answer,
    Call,
    Cascade,
    Ensemble,
    Failure,
    Finding,
    Merge,
    Op,
    Origin,
    Plan,
    Run,
    Solo,
    Step,
    Usage,
    Verdict,
    WorkerId,
    Workflow,
)
from ripieno.domain.grader import Agreement

A, B, C = WorkerId("a"), WorkerId("b"), WorkerId("c")


def call(worker: WorkerId, step: str = "", failure: Failure | None = None) -> Call:
    return Call(
        worker=worker, worker_version="1", usage=Usage(), cost_usd=0.0, latency_s=0.1, step=step, failure=failure
    )


def run(*calls: Call, findings: tuple[Finding, ...] = ()) -> Run:
    return Run(id="r", task="t", origin=Origin.TRAFFIC, calls=calls, answer=Answer(text="x"), findings=findings)


def columns(graph: Graph) -> list[tuple[str, int]]:
    widths = sorted({box.x for box in graph.boxes})
    return [(f"{box.name}:{box.worker}", widths.index(box.x)) for box in graph.boxes]


def test_a_fallback_follows_the_call_that_failed() -> None:
    graph = lay_out(Solo(worker=A, fallbacks=(B,)), run(call(A, failure=Failure.TIMEOUT), call(B)))
    assert columns(graph) == [("call:a", 0), ("call:b", 1)]
    assert [box.state for box in graph.boxes] == ["failed", "answered"]
    assert graph.boxes[0].note == "timeout"
    ((x1, y1, x2, y2),) = graph.lines
    assert (x1, y1) < (x2, y2)


def test_a_step_of_a_plan_is_right_of_the_steps_it_saw() -> None:
    plan = Plan(
        steps=(
            Step(worker=A, op=Op.SOLVE),
            Step(worker=B, op=Op.SOLVE),
            Step(worker=C, op=Op.MERGE, access=(0, 1)),
            Step(worker=A, op=Op.VERIFY, access=(2,)),
        )
    )
    checked = Finding(step="4", author=C, verdict=Verdict(verifier="worker:a", quality=1.0))
    made = run(call(A, "1"), call(B, "2"), call(C, "3"), call(A, "4"), findings=(checked,))
    assert columns(lay_out(plan, made)) == [("1:a", 0), ("2:b", 0), ("3:c", 1), ("4:a", 2), ("check of 4:worker:a", 3)]
    assert len(lay_out(plan, made).lines) == 4
    planned = lay_out(plan, None)
    assert columns(planned) == [("1:a", 0), ("2:b", 0), ("3:c", 1), ("4:a", 2)]
    assert {box.state for box in planned.boxes} == {"planned"}
    written = lay_out(plan, replace(made, calls=(call(B, "plan"), *made.calls), findings=()))
    assert columns(written) == [("plan:b", 0), ("1:a", 1), ("2:b", 1), ("3:c", 2), ("4:a", 3)]
    assert len(written.lines) == 5


def test_members_of_an_ensemble_are_side_by_side() -> None:
    two = Ensemble(members=(A, B), merge=Merge.SYNTHESIZE, arbiter=C)
    made = run(call(A, "1"), call(B, "2"), call(C, "merge"))
    graph = lay_out(two, made)
    assert columns(graph) == [("1:a", 0), ("2:b", 0), ("merge:c", 1)]
    assert len(graph.lines) == 2
    vote = lay_out(Ensemble(members=(A, A, B), merge=Merge.VOTE), run(call(A, "1"), call(A, "2"), call(B, "3")))
    assert columns(vote)[-1] == ("vote:b", 1)
    assert len(vote.lines) == 3


def test_a_cascade_shows_its_checks_in_order_and_a_running_one_its_first_worker() -> None:
    workflow: Workflow = Cascade(stages=(A, B), check=Agreement(peer=C))
    checked = Finding(step="1.check", author=A, verdict=Verdict(verifier="agreement", quality=0.0))
    made = run(call(A, "1"), call(C, "1.check.1"), call(B, "2"), findings=(checked,))
    assert [name for name, _ in columns(lay_out(workflow, made))] == [
        "1:a", "check of 1.check:agreement", "1.check.1:c", "2:b"
    ]  # fmt: skip
    under_way = lay_out(workflow, None)
    assert columns(under_way) == [("cascade:a", 0)]
    assert under_way.width > 0
