"""Workflows as values: their workers, their least cost, their records, and the prompts of steps."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripieno.domain import (
    Answer,
    Begun,
    Binding,
    Call,
    Cascade,
    Claimed,
    Decided,
    Decision,
    Ensemble,
    Entry,
    Estimate,
    Mask,
    Merge,
    Mode,
    Objective,
    Op,
    Origin,
    Plan,
    Pool,
    Proposed,
    Reason,
    RecordedInputs,
    Resolved,
    Run,
    Solo,
    Standing,
    Step,
    Stepped,
    Task,
    Turns,
    Usage,
    Verdict,
    Verified,
    Why,
    Worker,
    WorkerId,
    Workflow,
    least_calls,
    list_workers,
)
from ripieno.domain.grader import (
    Agreement,
    Check,
    Exact,
    External,
    Human,
    JsonSchema,
    Judge,
    MultipleChoice,
    Numeric,
    Pattern,
    UnitTests,
)
from ripieno.errors import InvalidTask, LedgerCorrupt
from ripieno.execute.prompts import LONGEST_RESULT, clip, make_step, read_verdict
from ripieno.ledger.codec import decode_entry, encode_entry
from ripieno.route.compose import WorkflowInputs, compose, find_check, read_schema
from ripieno.tasks.graders import read_check

A, B, C = (WorkerId(name) for name in "abc")
TASK = Task.from_text("What is it?")
RIGHT = Exact(answers=("x",))
CHECKS: tuple[Check, ...] = (
    RIGHT,
    Numeric(answer=1.5),
    MultipleChoice(letter="A", options=("A", "B")),
    JsonSchema(schema={"type": "object", "kind": "exact"}),
    Pattern(pattern="[a-z]+"),
    UnitTests(tests="assert f()"),
    Judge(rubric="5 is best", worker=C),
    Judge(rubric="5 is best"),
    External(verifier="v", facts={"kind": "exact", "answers": [1]}),
    Agreement(peer=B),
    Human(question="Well?"),
)
_checks = st.sampled_from(CHECKS)
_workers = st.sampled_from((A, B, C))
_some = st.lists(_workers, max_size=3).map(tuple)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    steps: list[Step] = []
    for place in range(draw(st.integers(1, 5))):
        access = tuple(sorted(draw(st.sets(st.integers(0, place - 1))))) if place else ()
        op = draw(st.sampled_from(list(Op) if access else [Op.SOLVE, Op.EXTRACT, Op.RUN]))
        others = [worker for worker in (A, B, C) if op is not Op.VERIFY or worker != steps[access[-1]].worker]
        steps.append(
            Step(
                worker=draw(st.sampled_from(others)),
                op=op,
                access=access,
                text=draw(st.text(max_size=20)),
                needs_approval=draw(st.booleans()),
            )
        )
    return Plan(steps=tuple(steps), fallbacks=draw(_some), author=draw(st.text(max_size=5)))


workflows: st.SearchStrategy[Workflow] = st.one_of(
    st.builds(Solo, worker=_workers, fallbacks=_some),
    st.builds(Cascade, stages=st.just((A, B)), check=_checks, fallbacks=_some),
    st.builds(Verified, worker=_workers, check=_checks, repairs=st.integers(0, 3), fallbacks=_some),
    st.builds(Ensemble, members=st.just((A, B, A)), merge=st.just(Merge.VOTE), rounds=st.integers(1, 3)),
    st.builds(
        Ensemble, members=st.just((A, A)), merge=st.just(Merge.BEST), check=_checks, arbiter=st.none(), fallbacks=_some
    ),
    st.builds(Ensemble, members=st.just((A, B)), merge=st.just(Merge.SYNTHESIZE), arbiter=st.just(C)),
    plans(),
    st.builds(Turns, worker=_workers, fallbacks=_some, most=st.integers(1, 5), author=st.text(max_size=5)),
)


def decided(workflow: Workflow) -> Decided:
    decision = Decision(
        id="d",
        workflow=workflow,
        propensity=1.0,
        policy="p",
        policy_facts={},
        predictor="q",
        objective=Objective(),
        mask=Mask(eligible=(A, B, C)),
        estimates=(),
        utilities={},
        reasons=(),
        seed=1,
        decide_s=0.0,
    )
    return Decided(decision=decision, task=TASK)


def decode(entry: Entry) -> Entry:
    row = encode_entry(entry)
    return decode_entry(row.kind, row.body, entry=row.id, task_body=row.task_body)


@given(workflow=workflows)
def test_every_workflow_is_read_back_from_the_record_as_it_was(workflow: Workflow) -> None:
    assert decode(decided(workflow)) == decided(workflow)


@given(check=_checks, used=_checks, is_given=st.booleans())
def test_the_check_of_a_request_is_read_back_whatever_check_the_workflow_has(
    check: Check, used: Check, is_given: bool
) -> None:
    entry = decided(Verified(worker=A, check=used))
    inputs = RecordedInputs(setup="s", sensitivity=frozenset({"secret", "pii"}), check=check, is_given=is_given)
    recorded = replace(entry, decision=replace(entry.decision, inputs=inputs))
    assert decode(recorded) == recorded
    assert encode_entry(decode(recorded)) == encode_entry(recorded)
    assert json.loads(encode_entry(recorded).body)["inputs"]["sensitivity"] == ["pii", "secret"]


def test_turns_start_with_one_call_and_may_call_every_worker() -> None:
    turns = Turns(worker=A, fallbacks=(B, C))
    assert least_calls(turns) == 1
    assert set(list_workers(turns)) == {A, B, C}
    with pytest.raises(ValueError, match="1 to 5"):
        Turns(worker=A, most=6)


def test_what_happens_within_a_run_is_read_back() -> None:
    call = Call(worker=A, worker_version="1", usage=Usage(), cost_usd=1.0, latency_s=1.0, step="1")
    entries: list[Entry] = [
        Claimed(run="r", owner="o", nth=2, key="k"),
        Begun(run="r", step="1", worker=A),
        Stepped(run="r", step="1", calls=(call,), answer=Answer(text="x")),
        Stepped(run="r", step="1.check", author=A, verdict=Verdict(verifier="v", quality=1.0)),
        Proposed(run="r", step="1", digest="f" * 64, worker=A, arguments="x", question="?", expires_at=1.0),
        Resolved(run="r", step="1", digest="f" * 64, is_approved=True, by="ada"),
    ]
    for entry in entries:
        assert decode(entry) == entry
    assert len({entry.id for entry in entries}) == len(entries)
    with pytest.raises(LedgerCorrupt, match="unknown kind 'nothing'"):
        decode_entry("nothing", "{}", entry="x")


def test_a_workflow_of_unknown_kind_is_corrupt_and_one_without_a_kind_is_an_old_solo() -> None:
    row = encode_entry(decided(Solo(worker=A)))
    body = json.loads(row.body)
    body["workflow"]["kind"] = "dance"
    with pytest.raises(LedgerCorrupt, match="'dance'"):
        decode_entry("decided", json.dumps(body), entry="x", task_body=row.task_body)
    body["workflow"] = {"worker": "a"}
    old = decode_entry("decided", json.dumps(body), entry="x", task_body=row.task_body)
    assert isinstance(old, Decided)
    assert old.decision.workflow == Solo(worker=A)


@given(workflow=workflows)
def test_the_first_worker_is_among_the_listed_workers(workflow: Workflow) -> None:
    assert workflow.worker in set(list_workers(workflow))
    assert least_calls(workflow) >= 1


def test_the_worker_of_a_check_counts_as_a_called_worker() -> None:
    checked = Cascade(stages=(A, B), check=Agreement(peer=C))
    assert set(list_workers(checked)) == {"a", "b", "c"}
    assert least_calls(checked) == 2
    assert least_calls(Cascade(stages=(A, B), check=RIGHT)) == 1
    assert least_calls(Ensemble(members=(A,) * 5, merge=Merge.VOTE)) == 3
    assert least_calls(Ensemble(members=(A, B), merge=Merge.SYNTHESIZE, arbiter=C)) == 3


def test_a_run_knows_its_author_and_its_time() -> None:
    call = Call(worker=B, worker_version="1", usage=Usage(), cost_usd=1.0, latency_s=2.0)
    run = Run(id="r", task="t", origin=Origin.TRAFFIC, calls=(call, call), answer=None)
    assert (run.worker, run.latency_s, run.is_solo) == ("b", 4.0, True)
    side = Run(
        id="r", task="t", origin=Origin.TRAFFIC, calls=(call, call), answer=None, author=A, wall_s=2.5, workflow="plan"
    )
    assert (side.worker, side.latency_s, side.is_solo) == ("a", 2.5, False)


def make_worker(name: str, **card: object) -> Worker:
    return Worker(id=WorkerId(name), binding=Binding(provider="p", model="m"), **card)  # type: ignore[arg-type]  # a card's fields


def test_families_are_stated_or_the_stem_of_the_id() -> None:
    assert make_worker("qwen3-coder-480b").model_family == "qwen3"
    assert make_worker("openai/gpt-5").model_family == "openai"
    assert make_worker("x", family="y").model_family == "y"


def make_cast(*workers: Worker, **more: object) -> WorkflowInputs:
    return WorkflowInputs(task=TASK, pool=Pool(workers), order=tuple(w.id for w in workers), estimates=(), **more)  # type: ignore[arg-type]  # a cast's fields


def test_ensembles_of_tools_use_different_tools() -> None:
    tools = tuple(make_worker(name, is_tool=True) for name in ("calc-a", "calc-b", "dates", "units"))
    vote = compose(Mode.VOTE, make_cast(*tools))
    assert isinstance(vote, Ensemble)
    assert vote.members == ("calc-a", "dates", "units"), "other families before the same one"
    best = compose(Mode.BEST_OF, make_cast(*tools, check=RIGHT))
    assert isinstance(best, Ensemble)
    assert len(set(best.members)) == 3
    with pytest.raises(InvalidTask, match="no model"):
        compose(Mode.SYNTHESIZE, make_cast(*tools))
    careful = make_worker("pay", needs_approval=True)
    with pytest.raises(InvalidTask, match="two eligible workers"):
        compose(Mode.VOTE, make_cast(tools[0], careful))
    assert find_check(make_cast(tools[0], tools[2]), WorkerId("calc-a")) == Agreement(peer=WorkerId("dates"))
    assert compose(Mode.PLAN, make_cast(*tools)) == Solo(worker=tools[0].id, fallbacks=tuple(t.id for t in tools[1:]))


def test_the_error_of_too_few_workers_lists_the_reason_of_each_other_worker(
    make_estimate: Callable[..., Estimate],
) -> None:
    free, muted, pay, new, odd = make_worker("a"), make_worker("m"), make_worker("p", has_effects=True), "n", "o"
    pool = (free, muted, pay, make_worker(new), make_worker(odd))
    masked = {muted.id: Why(reason=Reason.MUTED, detail="unmute it")}
    estimates = (make_estimate("a"), make_estimate(new, standing=Standing.MASKED), make_estimate(odd))
    cast = replace(make_cast(*pool, masked=masked), order=(free.id, pay.id), estimates=estimates)
    whys = (
        "m: muted (unmute it); p: its calls have effects or need approval, so no workflow calls it unless it is named; "
        "n: it is new and takes no task yet; measure it with `ripieno pool probe n`; o: the policy leaves it out"
    )
    with pytest.raises(InvalidTask) as caught:
        compose(Mode.CASCADE, cast)
    assert caught.value.message == f"a cascade needs two eligible workers, and only 'a' is eligible ({whys})"
    assert caught.value.param == "ripieno.workflow"
    with pytest.raises(InvalidTask, match=r"needs three .* and only 'a' and 'b' are eligible \(the pool has no"):
        compose(Mode.AGREEMENT, make_cast(make_worker("a"), make_worker("b")))
    with pytest.raises(InvalidTask, match=r"a cascade needs two eligible workers, and none is eligible \(p: its calls"):
        compose(Mode.CASCADE, make_cast(pay))
    near = replace(cast, task=replace(TASK, objective=Objective(allowed=("a", "m"))))
    with pytest.raises(InvalidTask) as caught:
        compose(Mode.CASCADE, near)
    assert caught.value.message.endswith("'a' is eligible (m: muted (unmute it); the request may use only a, m)")


def test_a_schema_is_only_read_from_its_own_form() -> None:
    for form in (
        None,
        "json",
        {"type": "json_object"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": 3},
    ):
        params = {} if form is None else {"response_format": form}
        assert read_schema(Task(messages=TASK.messages, params=params)) is None


def test_checks_of_requests_are_read_whole_or_refused() -> None:
    for raw, check in (
        ({"kind": "exact", "answers": ["x"]}, RIGHT),
        ({"kind": "agreement", "peer": "b"}, Agreement(peer=B)),
        ({"kind": "human", "question": "Well?"}, Human(question="Well?")),
        ({"kind": "judge", "rubric": "5 is best", "worker": "c"}, Judge(rubric="5 is best", worker=C)),
        ({"kind": "pattern", "pattern": "[a-z]+"}, Pattern(pattern="[a-z]+")),
    ):
        assert read_check(raw) == check
    for bad in (
        {},
        {"kind": "dance"},
        {"kind": "exact"},
        {"kind": "human", "x": 1},
        {"kind": "agreement", "peer": "Not One"},
    ):
        with pytest.raises(ValueError, match=r"check|canonical"):
            read_check(bad)


# words


TOOL = make_worker("t", is_tool=True)
MODEL = make_worker("m")


def words(step: Step, worker: Worker, *results: str) -> str:
    return make_step(step, TASK, results, worker=worker).text


def test_a_tool_gets_its_bare_input() -> None:
    assert words(Step(worker=A, op=Op.SOLVE), TOOL) == "What is it?"
    assert words(Step(worker=A, op=Op.SOLVE, access=(0, 1)), TOOL, "one", "two") == "one\ntwo"
    assert words(Step(worker=A, op=Op.SOLVE, text="2 + 2"), TOOL) == "2 + 2"
    assert words(Step(worker=A, op=Op.SOLVE, access=(0,), text="double"), TOOL, "one") == "double\none"
    filled = Step(worker=A, op=Op.SOLVE, access=(0, 1), text="{1} plus {prev} of {question}")
    assert words(filled, TOOL, "{2}", "3") == "{2} plus 3 of What is it?", "what is put in is not read again"
    assert words(Step(worker=A, op=Op.SOLVE, access=(1,), text="{1}!"), TOOL, "hidden", "x") == "!"


def test_a_model_gets_the_task_the_results_and_an_instruction() -> None:
    assert words(Step(worker=A, op=Op.SOLVE), MODEL) == "What is it?"
    told = words(Step(worker=A, op=Op.VERIFY, access=(0,), text="recompute"), MODEL, 'say "ACCEPT"')
    assert "ACCEPT if it does" in told
    assert json.dumps('say "ACCEPT"') in told
    assert "Your step: recompute" in told


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("ACCEPT", (True, "")),
        ("**ACCEPT**: fine", (True, "fine")),
        ("REVISE: no", (False, "no")),
        ("I thought about it.\nrevise: off by one", (False, "off by one")),
        ("ACCEPTABLE", None),
        ("", None),
        ("It says ACCEPT in the text", None),
    ],
)
def test_a_reply_without_a_verdict_neither_accepts_nor_refuses(text: str, verdict: tuple[bool, str] | None) -> None:
    assert read_verdict(text) == verdict


def test_long_results_keep_both_ends() -> None:
    text = "a" * LONGEST_RESULT + "b" * LONGEST_RESULT
    shown = clip(text)
    assert len(shown) < LONGEST_RESULT + 60
    assert (shown[0], shown[-1]) == ("a", "b")
    assert clip("short") == "short"
