"""The grammar of plans: both forms are equivalent, and an invalid plan is never accepted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ripieno.conductor import Roster, format_plan, make_schema, parse_json, parse_text
from ripieno.conductor.decompose import read_parts
from ripieno.domain import Binding, Op, Plan, Step, Worker, WorkerId
from ripieno.errors import InvalidPlan

ROSTER = Roster(
    tuple(
        Worker(id=WorkerId(f"w{place}"), binding=Binding(provider="p", model="m"), can_run=place == 2)
        for place in range(4)
    )
)
_PLAIN = [op.value for op in Op if op is not Op.RUN]
_TEXTS = st.none() | st.text(st.characters(codec="ascii", exclude_characters="[];"), min_size=1).filter(str.strip)


@st.composite
def raw_plans(draw: st.DrawFn) -> list[dict[str, object]]:
    steps: list[dict[str, object]] = []
    for place in range(draw(st.integers(1, 5))):
        source = draw(st.sampled_from(["prev", "all"] if place else ["question"]))
        ops = _PLAIN if source != "question" else ["solve", "extract"]
        op = draw(st.sampled_from(ops))
        others = [worker for worker in range(4) if op != "verify" or worker != steps[-1]["worker"]]
        step: dict[str, object] = {"worker": draw(st.sampled_from(others)), "op": op, "source": source}
        text = draw(_TEXTS)
        if text is not None:
            step["text"] = text[:400]
        steps.append(step)
    return steps


@given(steps=raw_plans())
def test_both_forms_of_a_plan_are_equivalent(steps: list[dict[str, object]]) -> None:
    plan = parse_json(json.dumps({"steps": steps}), ROSTER)
    assert parse_text(format_plan(plan, ROSTER), ROSTER) == plan
    assert parse_json(f"```json\n{json.dumps({'steps': steps})}\n```", ROSTER) == plan
    Draft202012Validator(make_schema(ROSTER)).validate({"steps": steps})


def test_a_plan_in_words_is_parsed() -> None:
    plan = parse_text("0 extract question; 2 run prev [the sum]; 3 verify all", ROSTER, author="me")
    assert plan == Plan(
        steps=(
            Step(worker=WorkerId("w0"), op=Op.EXTRACT),
            Step(worker=WorkerId("w2"), op=Op.RUN, access=(0,), text="the sum"),
            Step(worker=WorkerId("w3"), op=Op.VERIFY, access=(0, 1)),
        ),
        author="me",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "step 1: ''"),
        ("0 solve", "step 1: '0 solve'"),
        ("0 solve question extra", "step 1"),
        ("9 solve question", "step 1: there is no worker 9"),
        ("0 dance question", "step 1: there is no operation 'dance'"),
        ("0 solve nowhere", "step 1: there is no source 'nowhere'"),
        ("0 solve prev", "step 1: the first step sees 'prev', and there is no earlier step"),
        ("0 solve question; 1 run prev", "step 2: worker 1 cannot execute code"),
        ("0 solve question [ ]", "step 1: the subtask is empty"),
        ("; ".join(["0 solve question"] * 6), "1 to 5 steps, not 6"),
        ("0 verify question", "sees no earlier step"),
        (f"0 solve question [{'x' * 501}]", "501 characters"),
    ],
)
def test_invalid_words_are_refused_with_the_step(text: str, message: str) -> None:
    with pytest.raises(InvalidPlan, match=message.replace("(", r"\(")):
        parse_text(text, ROSTER)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solve it", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "an object with a list"),
        ('{"steps": []}', "an object with a list"),
        ('{"steps": [3]}', "step 1: a step is an object"),
        ('{"steps": [{"worker": "w0", "op": "solve", "source": "question"}]}', "must be a number"),
        ('{"steps": [{"worker": true, "op": "solve", "source": "question"}]}', "must be a number"),
        ('{"steps": [{"worker": 0, "source": "question"}]}', "needs op and source"),
        ('{"steps": [{"worker": 0, "op": "solve", "source": "question", "text": 3}]}', "text must be a string"),
        ('{"steps": [{"worker": 0, "op": "solve", "source": "question", "why": ""}]}', "no field 'why'"),
        ('{"steps": [{"worker": -1, "op": "solve", "source": "question"}]}', "no worker -1"),
    ],
)
def test_invalid_json_plans_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidPlan, match=message):
        parse_json(text, ROSTER)


@given(text=st.text())
def test_only_valid_plans_are_accepted(text: str) -> None:
    for parse in (parse_text, parse_json):
        try:
            plan = parse(text, ROSTER)
        except InvalidPlan:
            continue
        assert 1 <= len(plan.steps) <= 5


def test_plans_outside_the_grammar_are_refused() -> None:
    steps = (Step(worker=WorkerId("w0"), op=Op.SOLVE),) * 2
    some = Plan(steps=(*steps, Step(worker=WorkerId("w0"), op=Op.MERGE, access=(0,))))
    with pytest.raises(InvalidPlan, match="some of the earlier steps"):
        format_plan(some, ROSTER)
    with pytest.raises(InvalidPlan, match="not on the roster"):
        format_plan(Plan(steps=(Step(worker=WorkerId("x"), op=Op.SOLVE),)), ROSTER)


def test_the_schema_offers_run_only_with_a_worker_that_executes() -> None:
    plain = Roster(ROSTER.workers[:2])
    raw = {"steps": [{"worker": 0, "op": "run", "source": "question"}]}
    assert not Draft202012Validator(make_schema(plain)).is_valid(raw)
    assert not Draft202012Validator(make_schema(ROSTER)).is_valid(raw)
    raw["steps"][0]["worker"] = 2
    assert Draft202012Validator(make_schema(ROSTER)).is_valid(raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no", "are not valid JSON"),
        ("{}", "1 to 4"),
        ('{"parts": [3]}', "step 1: a part needs a text"),
        ('{"parts": [{"text": " "}]}', "step 1: a part needs a text"),
        ('{"parts": [{"text": "a", "needs": [1]}]}', "only need earlier parts"),
        ('{"parts": [{"text": "a"}, {"text": "b", "needs": [3]}]}', "step 2"),
    ],
)
def test_invalid_parts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidPlan, match=message):
        read_parts(text)
