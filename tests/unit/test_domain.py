"""The types of the domain refuse what cannot be."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import MakeWorker

from ripieno.domain import (
    Answer,
    Binding,
    Budget,
    Call,
    Choice,
    KeyLimits,
    Message,
    Objective,
    Origin,
    Pool,
    Price,
    Privacy,
    Run,
    Solo,
    SystemClock,
    Task,
    Usage,
    Verdict,
    WorkerId,
    parse_worker_id,
)
from ripieno.domain.conversation import Media, MediaKind, Reasoning, Text, ToolCall, ToolResult
from ripieno.domain.memory import NewItem, Scope
from ripieno.domain.training import TrainingSet, column_means


@pytest.mark.parametrize(
    "fields",
    [
        {"preference": 1.1},
        {"preference": float("nan")},
        {"quality_floor": -0.1},
        {"mission_criticality": 11},
        {"time_criticality": -1},
        {"deadline_s": 0},
    ],
)
def test_an_objective_out_of_range_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        Objective(**fields)  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("name", ["cost_usd", "seconds", "calls"])
def test_a_negative_budget_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Budget(**{name: -1})


def test_a_task_needs_a_message() -> None:
    with pytest.raises(ValueError, match="at least one message"):
        Task(messages=())


def test_the_text_of_a_task_is_its_last_user_message() -> None:
    image = Media(kind=MediaKind.IMAGE, url="https://x/y.png")
    shown = Message(role="tool", content=(ToolResult(call="c", content=(Text(text="seen"), image)),))
    parts = (Text(text="look"), image, Text(text="here"))
    task = Task(messages=(Message(role="user", content="first"), Message(role="user", content=parts), shown,
                          Message(role="assistant", content="yes")))  # fmt: skip
    assert task.text == "look\nhere"
    assert [message.count_media(MediaKind.IMAGE) for message in task.messages] == [0, 1, 1, 0]
    assert shown.text == "seen"
    assert (Message(role="user").parts, shown.calls, Message(role="user").calls) == ((), (), ())
    assert Task(messages=(Message(role="system", content="only"),)).text == "only"
    assert Task(messages=(Message(role="user", content=(image,)),)).text == ""


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("<system-reminder>no list</system-reminder>", "What is it?"),
        ("<system-reminder>a</system-reminder>Why?<ide_selection>b</ide_selection>\n", "Why?"),
        ("if a <b and c> d:", "if a <b and c> d:"),
        ("<skill>an element without end", "<skill>an element without end"),
        ("<skill>one</skill><skill>two</skill> and three", "and three"),
    ],
)
def test_the_question_is_what_the_user_said(text: str, question: str) -> None:
    first = Message(role="user", content="What is it?")
    for content in (text, (Text(text=text),)):
        assert Task(messages=(first, Message(role="user", content=content))).text == question


def test_a_conversation_of_an_agents_words_alone_keeps_them() -> None:
    told = "<system-reminder>begin</system-reminder>"
    assert Task(messages=(Message(role="user", content=told),)).text == told


def test_an_answer_of_parts_has_text_calls_and_reasoning() -> None:
    call = ToolCall(id="c", name="f")
    answer = Answer.of((Reasoning(text="hm"), Text(text="a"), call, Text(text="b")))
    assert (answer.text, answer.calls, answer.reasoning, len(answer.parts)) == ("ab", (call,), "hm", 4)
    assert Answer.of((Text(text="a"),)) == Answer(text="a")
    assert (Answer(text="a").parts, Answer(text="").parts) == ((Text(text="a"),), ())


def test_a_digest_names_what_a_worker_sees_and_nothing_else() -> None:
    task = Task.from_text("hello")
    assert task.digest == Task.from_text("hello", objective=Objective(preference=0.1), kind="other").digest
    assert task.digest != Task.from_text("hello ").digest
    assert Task(messages=task.messages, params={"temperature": 1}).digest != task.digest
    assert len(Task.from_text("\ud800").digest) == 64


def test_privacy_boundaries_are_ordered() -> None:
    assert [boundary.reach for boundary in (Privacy.LOCAL, Privacy.PRIVATE, Privacy.PUBLIC)] == [0, 1, 2]


@given(st.text())
def test_a_refused_worker_id_suggests_one_that_is_accepted(text: str) -> None:
    try:
        parse_worker_id(text)
    except ValueError as error:
        suggestion = str(error).rsplit("write '", 1)[1].removesuffix("'")
        assert parse_worker_id(suggestion) == suggestion


def test_a_pool_knows_its_workers_and_refuses_doubles(make_worker: MakeWorker) -> None:
    pool = Pool((make_worker("a"), make_worker("b")))
    assert pool.ids == ("a", "b")
    assert "a" in pool
    assert "c" not in pool
    assert pool["b"].id == "b"
    assert len(pool) == len(list(pool)) == 2
    with pytest.raises(KeyError):
        pool["c"]
    with pytest.raises(ValueError, match="'a' is in the pool twice"):
        Pool((make_worker("a"), make_worker("a")))


@pytest.mark.parametrize("fields", [{"max_concurrency": 0}, {"context_window": 0}])
def test_an_impossible_worker_card_is_refused(make_worker: MakeWorker, fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        make_worker(**fields)


def test_a_price_charges_tokens_seconds_and_calls() -> None:
    price = Price(input_usd_per_mtok=2, output_usd_per_mtok=6, usd_per_cpu_s=0.5, usd_per_call=0.25)
    assert price.charge(input_tokens=1000, output_tokens=500, cpu_s=2) == pytest.approx(0.25 + 0.002 + 0.003 + 1.0)
    with pytest.raises(ValueError, match="usd_per_call"):
        Price(usd_per_call=-1)


def test_a_worker_with_other_options_is_another_version(make_worker: MakeWorker) -> None:
    one = make_worker(binding=Binding(provider="p", model="m", options={"n": 1}))
    assert one.version == make_worker(binding=Binding(provider="p", model="m", options={"n": 1}), notes="x").version
    assert one.version != make_worker(binding=Binding(provider="p", model="m", options={"n": 2})).version
    assert make_worker(deprecated_on=date(2026, 1, 1)).deprecated_on == date(2026, 1, 1)


def test_a_verdict_and_a_choice_stay_in_their_ranges() -> None:
    with pytest.raises(ValueError, match="quality"):
        Verdict(verifier="v", quality=1.5)
    with pytest.raises(ValueError, match="propensity"):
        Choice(order=(WorkerId("w"),), propensity=0.0, utilities={}, reasons=())
    with pytest.raises(ValueError, match="at least one"):
        Choice(order=(), propensity=1.0, utilities={}, reasons=())


@pytest.mark.parametrize("fields", [{"quality": 1.2}, {"cost_usd": -1.0}, {"latency_s": float("nan")}])
def test_an_impossible_estimate_is_refused(make_estimate: object, fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        make_estimate(**fields)  # type: ignore[operator]  # a fixture


def test_a_run_adds_up_its_calls_unless_one_is_unknown() -> None:
    def call(cost: float | None) -> Call:
        return Call(worker=WorkerId("w"), worker_version="1", usage=Usage(), cost_usd=cost, latency_s=cost)

    run = Run(id="r", task="t", origin=Origin.TRAFFIC, calls=(call(1.0), call(2.0)), answer=Answer(text="x"))
    assert (run.cost_usd, run.latency_s, run.worker) == (3.0, 3.0, "w")
    assert Run(id="r", task="t", origin=Origin.IMPORT, calls=(call(1.0), call(None)), answer=None).cost_usd is None
    assert Solo(worker=WorkerId("a"), fallbacks=(WorkerId("b"),)).workers == ("a", "b")


def test_a_training_set_refuses_matrices_of_other_sizes() -> None:
    import numpy as np

    from ripieno.testing.conformance import make_features

    good = np.full((1, 2), 0.5)
    fields = {"features": (make_features(),), "workers": (WorkerId("a"), WorkerId("b")), "groups": ("g",)}
    made = TrainingSet(quality=good, counts=good, cost_usd=good, latency_s=good, **fields)  # type: ignore[arg-type]
    assert len(made) == 1
    assert len(made.take(np.array([0, 0]))) == 2
    with pytest.raises(ValueError, match="cost_usd"):
        TrainingSet(quality=good, counts=good, cost_usd=good.T, latency_s=good, **fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="groups"):
        TrainingSet(quality=good, counts=good, cost_usd=good, latency_s=good, **(fields | {"groups": ()}))  # type: ignore[arg-type]
    means = column_means(np.array([[1.0, np.nan], [0.0, np.nan]]))
    assert means[0] == 0.5
    assert np.isnan(means[1])


def test_the_system_clock_goes_on() -> None:
    clock = SystemClock()
    assert clock.now() > 1_700_000_000
    assert clock.monotonic() <= clock.monotonic()


def test_cached_tokens_have_their_own_price() -> None:
    price = Price(input_usd_per_mtok=1.0, cached_usd_per_mtok=0.1)
    assert price.charge(input_tokens=1e6, output_tokens=0, cpu_s=0.0, cached_tokens=5e5) == pytest.approx(0.55)
    assert price.charge(input_tokens=1e6, output_tokens=0, cpu_s=0.0, cached_tokens=9e9) == pytest.approx(0.1)
    assert Price(input_usd_per_mtok=1.0).charge(input_tokens=1e6, output_tokens=0, cpu_s=0, cached_tokens=5e5) == 1.0
    with pytest.raises(ValueError, match="cached_usd_per_mtok"):
        Price(cached_usd_per_mtok=-1.0)
    with pytest.raises(ValueError, match="usd_per_day must be positive"):
        KeyLimits(usd_per_day=0.0)


def test_memory_replaces_nul_which_some_databases_cannot_store() -> None:
    item = NewItem(text="a\x00b", author="x\x00", scope=Scope(project="p\x00"))
    assert (item.text, item.author, item.scope.project) == ("a\ufffdb", "x\ufffd", "p\ufffd")
    assert NewItem(text="ab").text == "ab"


@pytest.mark.parametrize(
    ("workers", "allowed", "permitted"),
    [((), (), None), (("a",), (), ("a",)), ((), ("b",), ("b",)), (("a", "b"), ("b",), ("b",)), (("a",), ("b",), ())],
)
def test_the_permitted_workers_are_those_of_request_and_key_together(
    workers: tuple[str, ...], allowed: tuple[str, ...], permitted: tuple[str, ...] | None
) -> None:
    assert Objective(workers=workers, allowed=allowed).permitted == permitted
