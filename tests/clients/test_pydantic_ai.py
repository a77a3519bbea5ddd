"""pydantic-ai, unchanged: text, streams, tools, typed output."""

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    """What the worker is asked to fill in."""

    name: str
    people: int


def make_model(gateway: str) -> OpenAIChatModel:
    return OpenAIChatModel("obliging", provider=OpenAIProvider(base_url=f"{gateway}/v1", api_key="none"))


async def test_text_and_streams(gateway: str) -> None:
    agent = Agent(make_model(gateway))
    assert (await agent.run("hello")).output == "You said: hello"
    async with agent.run_stream("one two three") as result:
        assert await result.get_output() == "You said: one two three"


async def test_a_tool_is_called(gateway: str) -> None:
    agent = Agent(make_model(gateway))
    called = []

    @agent.tool_plain  # type: ignore[untyped-decorator]  # not typed here
    def add(a: int, b: int) -> int:
        called.append((a, b))
        return a + b

    assert (await agent.run("add 2 and 40")).output == "The tool says: 42"
    assert called == [(2, 40)]


async def test_typed_output(gateway: str) -> None:
    agent = Agent(make_model(gateway), output_type=City)
    assert (await agent.run("Bern has 134506 people")).output == City(name="Bern has 134506 people", people=134506)
