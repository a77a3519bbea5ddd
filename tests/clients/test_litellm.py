"""LiteLLM as a client, unchanged: chat, streams, tools, embeddings, in both of its wire formats."""

import json
from typing import Any

import pytest


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> object:
    """The package, told to stay off the network."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    return litellm


def test_chat_streams_and_tools(gateway: str, litellm: Any) -> None:
    place = {"base_url": f"{gateway}/v1", "api_key": "none"}
    ask = [{"role": "user", "content": "hello there"}]
    answer = litellm.completion(model="openai/obliging", messages=ask, **place)
    assert answer.choices[0].message.content == "You said: hello there"
    parts = litellm.completion(model="openai/obliging", messages=ask, stream=True, **place)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == "You said: hello there"
    add = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    called = litellm.completion(
        model="openai/auto", messages=[{"role": "user", "content": "add 5"}],
        tools=[{"type": "function", "function": add}], **place,
    )  # fmt: skip
    assert json.loads(called.choices[0].message.tool_calls[0].function.arguments) == {"a": 5}


def test_messages_and_embeddings(gateway: str, litellm: Any) -> None:
    ask = [{"role": "user", "content": "hello there"}]
    answer = litellm.completion(
        model="anthropic/obliging", messages=ask, api_base=gateway, api_key="none", max_tokens=50
    )
    assert answer.choices[0].message.content == "You said: hello there"
    vectors = litellm.embedding(
        model="openai/auto", input=["a cat"], api_base=f"{gateway}/v1", api_key="none", encoding_format="float"
    )
    assert len(vectors.data[0]["embedding"]) == 256
