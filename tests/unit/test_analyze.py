"""Features: needs, counts, bounds."""

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.analyze import Analyzer
from ripieno.analyze.analyzer import find_needs, routing_text
from ripieno.analyze.shape import NAMES, measure_shape
from ripieno.analyze.terms import hash_terms
from ripieno.domain import Message, Need, Objective, Task
from ripieno.domain.conversation import Media, MediaKind, Text
from ripieno.domain.features import TERM_BUCKETS
from ripieno.encoders.static import StaticEncoder

ANALYZER = Analyzer(StaticEncoder())
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city"}}


async def test_a_task_is_described_by_counts_and_needs() -> None:
    image, audio = (Media(kind=kind, data="xx") for kind in (MediaKind.IMAGE, MediaKind.AUDIO))
    content = (Text(text="```py\nx\n``` what?"), image, audio)
    task = Task(
        messages=(Message(role="system", content="be kind"), Message(role="user", content=content)),
        tools=(TOOL,),
        params={"response_format": {"type": "json_schema"}},
        objective=Objective(mission_criticality=8),
        kind="weather",
    )
    features = await ANALYZER.analyze(task)
    assert features.needs == {Need.TOOLS, Need.JSON, Need.IMAGE, Need.AUDIO}
    assert (features.turns, features.code_blocks, features.images, features.tools) == (2, 1, 1, 1)
    assert (features.mission_criticality, features.kind) == (8, "weather")
    assert features.embedding.shape == (256,)
    assert features.prompt_tokens > 20
    assert "get_weather" in routing_text(task)


def test_tools_with_tool_choice_none_are_not_a_need() -> None:
    task = Task(messages=(Message(role="user", content="x"),), tools=(TOOL,), params={"tool_choice": "none"})
    assert find_needs(task) == frozenset()
    assert find_needs(Task.from_text("x")) == frozenset()


@given(st.text(max_size=300))
@settings(max_examples=50)
def test_shape_and_terms_are_finite_for_any_text(text: str) -> None:
    shape = measure_shape(text)
    assert shape.shape == (len(NAMES),)
    assert np.isfinite(shape).all()
    terms, counts = hash_terms(text)
    assert terms.shape == counts.shape
    assert (np.diff(terms) > 0).all()
    assert ((terms >= 0) & (terms < TERM_BUCKETS)).all()


async def test_a_very_long_prompt_costs_no_more_than_a_page() -> None:
    page, book = Task.from_text("word " * 1200), Task.from_text("word " * 400_000)
    await ANALYZER.analyze(page)

    async def spend(task: Task) -> float:
        start = time.process_time()
        for _ in range(5):
            await ANALYZER.analyze(task)
        return time.process_time() - start

    one, other = await spend(page), await spend(book)
    assert other < 20 * one + 0.1
    assert (await ANALYZER.analyze(book)).prompt_tokens > 400_000
