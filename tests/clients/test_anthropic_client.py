"""The official Anthropic client, unchanged: messages, streams, tools, counts, errors."""

import pytest
from anthropic import Anthropic, BadRequestError, NotFoundError
from tests.clients.conftest import last_messages

from ripieno.testing import ScriptedServer

ADD = {
    "name": "add",
    "description": "Adds.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
}


@pytest.fixture(scope="module")
def client(gateway: str) -> Anthropic:
    """The client as its own documentation makes it."""
    return Anthropic(base_url=gateway, api_key="none", max_retries=0)


def test_a_message(client: Anthropic, upstream: ScriptedServer) -> None:
    message = client.messages.create(
        model="claude-next", max_tokens=100, stop_sequences=["x"], metadata={"user_id": "u1"},
        system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": "hello"}],
    )  # fmt: skip
    assert (message.content[0].text, message.stop_reason, message.model) == ("You said: hello", "end_turn", "obliging")
    assert message.usage.output_tokens == 3
    body = upstream.seen[-1].body
    assert last_messages(upstream)[0] == {"role": "system", "content": "be brief"}
    assert (body["max_tokens"], body["stop"], body["user"]) == (100, ["x"], "u1")


def test_a_stream(client: Anthropic) -> None:
    with client.messages.stream(
        model="obliging", max_tokens=100, messages=[{"role": "user", "content": "one two three"}]
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == "You said: one two three"
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 5)


@pytest.mark.parametrize("streams", [False, True])
def test_tools_are_called_and_answered(client: Anthropic, *, streams: bool) -> None:
    messages = [{"role": "user", "content": "add 2 and 40"}]
    if streams:
        with client.messages.stream(model="auto", max_tokens=100, messages=messages, tools=[ADD]) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(model="auto", max_tokens=100, messages=messages, tools=[ADD])
    use = message.content[-1]
    assert (message.stop_reason, use.type, use.name, use.input) == ("tool_use", "tool_use", "add", {"a": 2, "b": 40})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "42"}]}
    turns = [*messages, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    final = client.messages.create(model="auto", max_tokens=100, messages=turns, tools=[ADD])
    assert final.content[0].text == "The tool says: 42"


def test_a_tool_can_be_forced_and_forbidden(client: Anthropic) -> None:
    ask = {"model": "obliging", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}], "tools": [ADD]}
    assert client.messages.create(**ask, tool_choice={"type": "any"}).stop_reason == "tool_use"
    assert client.messages.create(**ask, tool_choice={"type": "tool", "name": "add"}).stop_reason == "tool_use"
    assert client.messages.create(**ask, tool_choice={"type": "none"}).stop_reason == "end_turn"


def test_images_pass(client: Anthropic, upstream: ScriptedServer) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "see"}]
    client.messages.create(model="obliging", max_tokens=9, messages=[{"role": "user", "content": content}])
    sent = last_messages(upstream)[0]["content"]
    assert sent[0] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def test_tokens_are_counted_and_models_listed(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model="auto", messages=[{"role": "user", "content": "word " * 100}])
    assert 90 < counted.input_tokens < 200
    assert "auto" in [model.id for model in client.models.list()]


def test_errors_are_the_clients_own(client: Anthropic) -> None:
    with pytest.raises(NotFoundError) as missing:
        client.messages.create(model="claude-9", max_tokens=9, messages=[{"role": "user", "content": "x"}])
    assert missing.value.body["error"]["type"] == "not_found_error"
    assert missing.value.request_id
    with pytest.raises(BadRequestError, match="messages"):
        client.messages.create(model="auto", max_tokens=9, messages=[])
