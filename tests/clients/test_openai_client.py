"""The official OpenAI client, unchanged: chat, responses, tools, schemas, embeddings, errors, cancellation."""

import json

import pytest
from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel
from tests.clients.conftest import last_messages

from ripieno.testing import ScriptedServer

PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
ADD = {"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}


class City(BaseModel):
    """What the worker is asked to fill in."""

    name: str
    people: int


@pytest.fixture(scope="module")
def client(gateway: str) -> OpenAI:
    """The client as its own documentation makes it."""
    return OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0)


def test_chat_and_its_headers(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": "What is 12% of 250?"}]
    )
    completion = raw.parse()
    assert completion.choices[0].message.content
    assert completion._request_id == raw.headers["x-request-id"] == raw.headers["x-ripieno-decision"]
    assert completion.model == raw.headers["x-ripieno-worker"]
    assert raw.headers["x-ripieno-workflow"] == "solo"


def test_an_alias_stands_for_its_worker(client: OpenAI) -> None:
    completion = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hello"}])
    assert (completion.model, completion.choices[0].message.content) == ("obliging", "You said: hello")
    assert {"auto", "auto:cheap", "obliging", "gpt-4o"} <= {model.id for model in client.models.list()}


def test_fields_of_today_reach_the_worker(client: OpenAI, upstream: ScriptedServer) -> None:
    client.chat.completions.create(
        model="obliging", messages=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hi"}],
        n=2, stop=["x"], seed=7, logprobs=True, top_logprobs=2, reasoning_effort="low", user="u", metadata={"a": "b"},
        max_completion_tokens=5, parallel_tool_calls=False, extra_body={"x_new": {"deep": [1]}},
        tools=[ADD], tool_choice="none",
    )  # fmt: skip
    body = upstream.seen[-1].body
    assert body["x_new"] == {"deep": [1]}
    assert (body["n"], body["stop"], body["seed"], body["logprobs"], body["user"]) == (2, ["x"], 7, True, "u")
    assert (body["reasoning_effort"], body["metadata"], body["max_completion_tokens"]) == ("low", {"a": "b"}, 5)
    assert last_messages(upstream)[0] == {"role": "system", "content": "be brief"}


def test_images_pass_and_two_choices_come_back(client: OpenAI, upstream: ScriptedServer) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    completion = client.chat.completions.create(
        model="obliging", n=2, messages=[{"role": "user", "content": [{"type": "text", "text": "see"}, image]}]
    )
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert last_messages(upstream)[0]["content"][1] == image


def test_a_stream_with_its_usage(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="obliging",
            stream=True,
            stream_options={"include_usage": True},
            messages=[{"role": "user", "content": "one two three"}],
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: one two three"
    assert {chunk.model for chunk in chunks} == {"obliging"}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5


@pytest.mark.parametrize("streams", [False, True])
def test_tools_are_called_and_answered(client: OpenAI, *, streams: bool) -> None:
    messages = [{"role": "user", "content": "please add 2 and 40"}]
    if streams:
        with client.chat.completions.stream(model="auto", messages=messages, tools=[ADD]) as stream:
            message = stream.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(model="auto", messages=messages, tools=[ADD]).choices[0].message
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 2, "b": 40})
    answered = [
        *messages,
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "42"},
    ]
    final = client.chat.completions.create(model="auto", messages=answered, tools=[ADD])
    assert final.choices[0].message.content == "The tool says: 42"


def test_a_schema_is_filled_and_parsed(client: OpenAI) -> None:
    completion = client.chat.completions.parse(
        model="obliging", messages=[{"role": "user", "content": "Bern has 134506 people"}], response_format=City
    )
    assert completion.choices[0].message.parsed == City(name="Bern has 134506 people", people=134506)


def test_responses_whole_streamed_and_with_tools(client: OpenAI) -> None:
    response = client.responses.create(model="obliging", instructions="be brief", input="hello")
    assert (response.output_text, response.status, response.model) == ("You said: hello", "completed", "obliging")
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    with client.responses.stream(model="obliging", input="one two") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == "You said: one two"
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"
    ]  # fmt: skip
    assert kinds[-1] == "response.completed"
    tool = {"type": "function", "name": "add", "parameters": PARAMETERS, "strict": False}
    turn = [{"role": "user", "content": "add 2 and 3"}]
    called = client.responses.create(model="obliging", input=turn, tools=[tool, {"type": "web_search"}])
    call = called.output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "add", {"a": 2, "b": 3})
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "5"}
    again = client.responses.create(model="obliging", input=[*turn, call.model_dump(), output], tools=[tool])
    assert again.output_text == "The tool says: 5"


def test_a_response_fills_a_schema(client: OpenAI) -> None:
    parsed = client.responses.parse(model="obliging", input="Basel 170000", text_format=City)
    assert parsed.output_parsed == City(name="Basel 170000", people=170000)


def test_embeddings_packed_and_plain(client: OpenAI) -> None:
    packed = client.embeddings.create(model="auto", input=["a cat", "a dog", "tax law"])
    plain = client.embeddings.create(model="auto", input="a cat", encoding_format="float")
    assert len(packed.data) == 3
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)
    cat, dog, law = (item.embedding for item in packed.data)
    assert sum(x * y for x, y in zip(cat, dog, strict=True)) > sum(x * y for x, y in zip(cat, law, strict=True))


def test_errors_are_the_clients_own(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as missing:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id
    with pytest.raises(BadRequestError, match="messages"):
        client.chat.completions.create(model="auto", messages=[])
    with pytest.raises(BadRequestError, match="token ids"):
        client.embeddings.create(model="auto", input=[[1, 2, 3]])
    with pytest.raises(NotFoundError, match="previous_response_id"):
        client.responses.create(model="auto", input="x", previous_response_id="resp_1")
    with pytest.raises(AuthenticationError):
        client.with_options(api_key="rp-unknown").models.list()


def test_leaving_a_stream_ends_it_upstream(client: OpenAI, upstream: ScriptedServer) -> None:
    stream = client.chat.completions.create(
        model="obliging", stream=True, messages=[{"role": "user", "content": "word " * 300}]
    )
    next(iter(stream))
    stream.close()
    assert client.chat.completions.create(model="obliging", messages=[{"role": "user", "content": "still"}]).choices
