"""The wire formats: requests become tasks, and answers become responses."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from ripieno.domain import Answer, Usage
from ripieno.domain.conversation import Media, Opaque, Reasoning, Refusal, Text, ToolCall
from ripieno.errors import InvalidTask, ProviderTimeout, RateLimited
from ripieno.gateway.errors import make_fault
from ripieno.wires import (
    CallPiece,
    ChatDialect,
    Dialect,
    MessagesDialect,
    Piece,
    ResponsesDialect,
    ResponseSource,
    count_tokens,
)

ORIGIN = ResponseSource(request="r1", decision="d1", worker="w", created=7)
CALL = ToolCall(id="c1", name="add", arguments='{"a": 1}')
THINKING = Answer.of(
    (Reasoning(text="two and two"), Text(text="four"), CALL), finish_reason="tool_calls",
    usage=Usage(input_tokens=10, output_tokens=5, cached_tokens=4, reasoning_tokens=2),
)  # fmt: skip
PIECES = (
    Piece(reasoning="two "),
    Piece(reasoning="and two"),
    Piece(text="fo"),
    Piece(text="ur"),
    Piece(calls=(CallPiece(index=0, id="c1", name="add"),)),
    Piece(calls=(CallPiece(index=0, arguments='{"a": 1}'),)),
    Piece(calls=(CallPiece(index=1, id="c2", name="run", arguments='{"input": "x"}'),)),
    Piece(finish_reason="tool_calls", usage=Usage(input_tokens=10, output_tokens=5)),
)


def listed(value: object) -> list[Any]:
    assert isinstance(value, list)
    return value


def read_events(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(data) for data in re.findall(rb"^data: (\{.*)$", stream, flags=re.MULTILINE)]


def write_stream(dialect: Dialect, body: Mapping[str, object]) -> list[dict[str, Any]]:
    writing = dialect.stream(dialect.read(body), ORIGIN)
    return read_events(b"".join(map(writing.add, PIECES)) + writing.end())


def test_messages_become_a_task() -> None:
    asked = MessagesDialect().read(
        {
            "model": "auto",
            "max_tokens": 50,
            "system": "be brief",
            "thinking": {"type": "adaptive"},
            "context_management": {},
            "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
            "tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
            "x_new": 1,
            "tools": [
                {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}, "strict": True},
                {"type": "web_search_20260209", "name": "web_search"},
            ],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": ""},
                        {"type": "text", "text": "so"},
                        {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "and"},
                        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "1"}]},
                        {"type": "tool_result", "tool_use_id": "t2", "content": None},
                        {"type": "tool_result", "tool_use_id": "t3", "content": []},
                        {"type": "tool_result", "tool_use_id": "t4", "content": 5},
                        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                        {"type": "document", "source": {"type": "text", "data": "a page"}},
                        {"type": "container_upload"},
                    ],
                },
            ],
        }
    )
    told = asked.messages
    assert (told[0].role, told[0].content) == ("system", "be brief")
    assert told[2].parts == (
        Reasoning(text="hm"), Text(text="so"), ToolCall(id="t1", name="add", arguments='{"a":1}')
    )  # fmt: skip
    assert [(m.role, m.text) for m in told[3:7]] == [("tool", "1"), ("tool", ""), ("tool", ""), ("tool", "5")]
    assert [type(part) for part in told[7].parts] == [Text, Media, Media, Opaque]
    assert asked.served_tools == ("web_search",)
    assert asked.params == {
        "max_tokens": 50,
        "x_new": 1,
        "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "parallel_tool_calls": False,
    }
    assert [tool["function"]["name"] for tool in asked.tools] == ["add"]  # type: ignore[index]  # a tool
    assert count_tokens(asked) > 20


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"model": "auto"}, "messages"),
        ({"model": "auto", "messages": "x"}, "messages"),
        ({"model": "auto", "messages": ["x"]}, "messages[0]"),
        ({"model": "auto", "messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"model": "auto", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": "auto", "messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content"),
        ({"model": "auto", "messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages"),
        ({"model": "auto", "messages": [{"role": "user", "content": [{"type": "image", "source": 5}]}]}, "messages"),
        ({"model": "auto", "messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages"),
        ({"model": "auto", "messages": [{"role": "user", "content": "x"}], "system": 5}, "system"),
        ({"model": "auto", "messages": [{"role": "user", "content": "x"}], "tools": ["x"]}, "tools[0]"),
        ({"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": "yes"}, "stream"),
    ],
)
def test_bad_messages_name_their_field(body: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        MessagesDialect().read(body)
    assert caught.value.param == param


def test_answers_become_messages() -> None:
    asked = MessagesDialect().read({"model": "auto", "messages": [{"role": "user", "content": "x"}]})
    message = json.loads(MessagesDialect().write(asked, THINKING, ORIGIN))
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][2] == {
        "type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}, "caller": {"type": "direct"}
    }  # fmt: skip
    assert (message["id"], message["model"], message["stop_reason"]) == ("msg_d1", "w", "tool_use")
    assert message["usage"]["input_tokens"] == 6
    assert message["usage"]["cache_read_input_tokens"] == 4
    broken = Answer.of((ToolCall(id="c", name="f", arguments="{"),))
    assert json.loads(MessagesDialect().write(asked, broken, ORIGIN))["content"][0]["input"] == {"_raw": "{"}


def test_pieces_become_named_events() -> None:
    events = write_stream(MessagesDialect(), {"model": "auto", "messages": [{"role": "user", "content": "x"}]})
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    started = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert started == ["thinking", "text", "tool_use", "tool_use"]
    assert [event["index"] for event in events if event["type"] == "content_block_stop"] == [0, 1, 2, 3]
    parts = [e["delta"]["partial_json"] for e in events if e.get("delta", {}).get("type") == "input_json_delta"]
    assert parts == ['{"a": 1}', '{"input": "x"}']
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_items_become_a_task() -> None:
    asked = ResponsesDialect().read(
        {
            "model": "auto",
            "instructions": "be brief",
            "max_output_tokens": 9,
            "reasoning": {"effort": "low"},
            "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": {}}},
            "tool_choice": {"type": "function", "name": "add"},
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "x_new": 1,
            "tools": [
                {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": False},
                {"type": "custom", "name": "run", "description": "Runs."},
                {"type": "web_search"},
            ],
            "input": [
                {"role": "user", "content": "plain"},
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "see"},
                        {"type": "input_image", "image_url": "data:x"},
                        {"type": "input_file", "file_data": "data:y", "filename": "f"},
                        {"type": "input_audio", "input_audio": {}},
                    ],
                },
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
                {"type": "custom_tool_call", "call_id": "c2", "name": "run", "input": "ls"},
                {"type": "function_call_output", "call_id": "c1", "output": "1"},
                {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "ok"}]},
                {"type": "function_call_output", "call_id": "c3", "output": {"a": 1}},
                {
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
                },
                {"type": "function_call", "call_id": "c4", "name": "add", "arguments": "{}"},
            ],
        }
    )
    told = asked.messages
    assert [m.role for m in told] == ["system", "user", "user", "assistant", "tool", "tool", "tool", "assistant"]
    assert [type(part) for part in told[2].parts] == [Text, Media, Media, Media]
    assert told[3].parts[0] == Reasoning()
    assert [(call.name, call.arguments, call.is_custom) for call in told[3].calls] == [
        ("add", "{}", False), ("run", "ls", True)
    ]  # fmt: skip
    assert [m.text for m in told if m.role == "tool"] == ["1", "ok", '{"a":1}']
    assert told[7].parts[:2] == (Text(text="a"), Refusal(text="b"))
    assert [call.id for call in told[7].calls] == ["c4"], "words and calls of one turn are one message"
    assert asked.served_tools == ("web_search",)
    assert [tool["function"]["name"] for tool in asked.tools] == ["add", "run"]  # type: ignore[index]  # a tool
    assert asked.params["max_completion_tokens"] == 9
    assert asked.params["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert asked.params["response_format"] == {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}
    assert {"reasoning_effort": "low", "verbosity": "low", "x_new": 1}.items() <= asked.params.items()
    assert "store" not in asked.params
    plain = ResponsesDialect().read(
        {"model": "auto", "input": "x", "tool_choice": "auto", "text": {"format": {"type": "json_object"}}}
    )
    assert (plain.model, plain.params) == ("auto", {"response_format": {"type": "json_object"}})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "auto", "input": None}, "input"),
        ({"model": "auto", "input": [5]}, "input[0]"),
        ({"model": "auto", "input": [{"role": 5, "content": "x"}]}, "input[0].role"),
        ({"model": "auto", "input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"model": "auto", "input": [{"role": "user", "content": [5]}]}, "input[0].content"),
        ({"model": "auto", "input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0]"),
        ({"model": "auto", "input": [{"type": "item_reference", "id": "i"}]}, "input[0]"),
        ({"model": "auto", "input": "x", "tools": [5]}, "tools[0]"),
        ({"model": "auto", "input": "x", "background": True}, "background"),
        ({"input": "x", "model": 5}, "model"),
        ({"input": "x"}, "model"),
    ],
)
def test_bad_items_name_their_field(body: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        ResponsesDialect().read(body)
    assert caught.value.param == param


def test_answers_become_items() -> None:
    asked = ResponsesDialect().read({"model": "auto", "input": "x", "tools": [{"type": "custom", "name": "add"}]})
    response = json.loads(ResponsesDialect().write(asked, THINKING, ORIGIN))
    assert [item["type"] for item in response["output"]] == ["reasoning", "message", "custom_tool_call"]
    assert response["output"][2]["input"] == '{"a": 1}', "what is not wrapped stays as it is"
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}
    cut = json.loads(ResponsesDialect().write(asked, Answer(text="fo", finish_reason="length"), ORIGIN))
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_pieces_become_numbered_events() -> None:
    events = write_stream(
        ResponsesDialect(), {"model": "auto", "input": "x", "tools": [{"type": "custom", "name": "run"}]}
    )
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    done = [event["item"]["type"] for event in events if event["type"] == "response.output_item.done"]
    assert done == ["reasoning", "message", "function_call", "custom_tool_call"]
    whole = events[-1]["response"]
    assert events[-1]["type"] == "response.completed"
    assert [item.get("arguments") or item.get("input") for item in whole["output"][2:]] == ['{"a": 1}', "x"]
    assert whole["output"][1]["content"][0]["text"] == "four"
    assert whole["output"][0]["content"][0]["text"] == "two and two"


def test_pieces_of_plain_workers_become_chunks() -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream_options": {"include_usage": True}}
    events = write_stream(ChatDialect(), body)
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] == 15
    quiet = ChatDialect().stream(ChatDialect().read(body | {"stream_options": None}), ORIGIN)
    assert read_events(quiet.add(Piece(text="a")))[0]["choices"][0]["delta"]["role"] == "assistant"
    assert quiet.end() == b"data: [DONE]\n\n"
    made = json.loads(ChatDialect().write(ChatDialect().read(body), THINKING, ORIGIN))
    assert made["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    with pytest.raises(InvalidTask, match=r"tools\[0\]"):
        ChatDialect().read(body | {"tools": [5]})
    with pytest.raises(InvalidTask, match=r"messages\[0\] must be an object"):
        ChatDialect().read(body | {"messages": [5]})


def test_a_failure_has_the_form_of_its_dialect() -> None:
    late, busy = ProviderTimeout("late", worker="w"), RateLimited("busy", retry_after_s=1.0)
    ask: dict[str, object] = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "input": "x"}
    messages, responses, chat = MessagesDialect(), ResponsesDialect(), ChatDialect()
    slow, limited = make_fault(late, request="r"), make_fault(busy, request="r")
    assert json.loads(messages.refuse(limited))["error"]["type"] == "rate_limit_error"
    assert read_events(messages.stream(messages.read(ask), ORIGIN).fail(slow))[0]["error"]["type"] == "timeout_error"
    failed = read_events(responses.stream(responses.read(ask), ORIGIN).fail(limited))[-1]["response"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "rate_limit_exceeded")
    assert json.loads(responses.refuse(slow))["error"]["code"] == "provider_timeout"
    assert read_events(chat.stream(chat.read(ask), ORIGIN).fail(slow))[0]["error"]["type"] == "server_error"
