"""Readers and writers towards workers: what is rare in replies, and what has no common form in requests."""

import json
from typing import Any

import pytest

from ripieno.domain import Message, Task
from ripieno.domain.conversation import (
    Citation,
    Media,
    MediaKind,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    ServerTool,
    Text,
    ToolCall,
    ToolResult,
)
from ripieno.errors import BadAnswer
from ripieno.wires import (
    Assembly,
    ChatUpstream,
    GeminiUpstream,
    MessagesDialect,
    MessagesUpstream,
    Piece,
    Recipient,
    ResponsesUpstream,
    Upstream,
)
from ripieno.wires.carries import Feature, find_features, list_lost
from ripieno.wires.gemini.upstream import fit_schema
from ripieno.wires.pieces import CallPiece, CallSorter, cut_answer

WIRES: tuple[Upstream, ...] = (ChatUpstream(), MessagesUpstream(), ResponsesUpstream(), GeminiUpstream())
TO = Recipient(worker="w", model="m", most_output=4000)
USER = Message(role="user", content="Where is it?")


def write(wire: Upstream, *messages: Message, to: Recipient = TO, **fields: Any) -> dict[str, Any]:
    return wire.write(Task(messages=messages or (USER,), **fields), to, is_stream=False)


def read(wire: Upstream, *events: tuple[str, dict[str, Any]]) -> tuple[list[Piece], Assembly]:
    reader, assembly = wire.stream(worker="w"), Assembly()
    pieces = [piece for name, event in events for piece in reader.read(name, json.dumps(event).encode())]
    for piece in pieces:
        assembly.add(piece, at=0.0)
    return pieces, assembly


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
@pytest.mark.parametrize(
    "body", [{"error": {"message": "over"}}, {"type": "error", "error": {"message": "over"}}, {"status": "failed"}, {}]
)
def test_a_reply_that_is_an_error_or_nothing_is_no_answer(wire: Upstream, body: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer):
        wire.read(json.dumps(body).encode(), worker="w")


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_an_event_that_is_an_error_ends_the_stream(wire: Upstream) -> None:
    with pytest.raises(BadAnswer, match="over"):
        read(wire, ("error", {"type": "error", "error": {"message": "over"}}))
    with pytest.raises(BadAnswer):
        wire.stream(worker="w").read("", b"no json")


def test_an_empty_answer_that_was_cut_or_filtered_is_an_answer() -> None:
    cut = {"output": [], "status": "incomplete"}
    replies: tuple[tuple[Upstream, dict[str, Any], str], ...] = (
        (WIRES[0], {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}, "content_filter"),
        (WIRES[1], {"content": [], "stop_reason": "refusal"}, "content_filter"),
        (WIRES[2], cut, "length"),
        (WIRES[2], cut | {"incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        (WIRES[3], {"candidates": [{"finishReason": "SAFETY"}]}, "content_filter"),
        (WIRES[3], {"promptFeedback": {"blockReason": "SAFETY"}}, "content_filter"),
    )  # fmt: skip
    for wire, body, finish in replies:
        assert wire.read(json.dumps(body).encode(), worker="w").finish_reason == finish
    for wire, body in ((WIRES[1], {"content": [], "stop_reason": "end_turn"}), (WIRES[2], {"output": []})):
        with pytest.raises(BadAnswer, match="no content"):
            wire.read(json.dumps(body).encode(), worker="w")


def test_tools_of_the_vendor_pass_through_a_stream_whole() -> None:
    use = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "web_search_result"}]}
    _, said = read(
        MessagesUpstream(),
        ("", {"type": "content_block_start", "index": 0, "content_block": use}),
        ("", {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{}"}}),
        ("", {"type": "content_block_stop", "index": 0}),
        ("", {"type": "content_block_start", "index": 1, "content_block": found}),
        ("", {"type": "content_block_stop", "index": 1}),
        ("", {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": "so"}}),
        ("", {"type": "content_block_delta", "index": 2, "delta": {"type": "citations_delta", "citation": {}}}),
        ("", {"type": "a_later_event"}),
        ("", {"type": "message_delta", "delta": {"stop_reason": "pause_turn"}, "usage": {"output_tokens": 3}}),
    )
    kinds = [part.kind for part in said.answer().parts if isinstance(part, ServerTool)]
    assert kinds == ["server_tool_use", "web_search_tool_result"]
    assert (said.answer().text, said.answer().finish_reason, said.answer().usage.output_tokens) == ("so", "stop", 3)
    call = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    _, searched = read(
        ResponsesUpstream(),
        ("", {"type": "response.output_item.added", "output_index": 0, "item": call}),
        ("", {"type": "response.output_item.done", "output_index": 0, "item": call}),
        ("", {"type": "response.refusal.delta", "output_index": 1, "delta": "I will not"}),
        ("", {"type": "keepalive"}),
        ("", {"type": "response.completed", "response": {"usage": {"output_tokens": 3}}}),
    )
    assert searched.answer().parts == (
        ServerTool(wire="responses", kind="web_search_call", raw=call), Refusal(text="I will not")
    )  # fmt: skip


def test_a_call_of_responses_without_deltas_is_read_from_its_end() -> None:
    item = {"type": "custom_tool_call", "call_id": "c1", "name": "run", "namespace": "shell__", "input": "ls"}
    _, said = read(
        ResponsesUpstream(),
        ("", {"type": "response.output_item.added", "output_index": 0, "item": item | {"input": ""}}),
        ("", {"type": "response.output_item.done", "output_index": 0, "item": item}),
        ("", {"type": "response.incomplete", "response": {"status": "incomplete"}}),
    )
    assert said.answer().calls == (ToolCall(id="c1", name="run", arguments="ls", namespace="shell__", is_custom=True),)
    assert said.answer().finish_reason == "length"
    with pytest.raises(BadAnswer, match="fell over"):
        read(ResponsesUpstream(), ("", {"type": "response.failed", "response": {"error": {"message": "fell over"}}}))


def test_parts_of_gemini_are_read_and_written() -> None:
    parts = [
        {"text": "hm", "thought": True, "thoughtSignature": "s"},
        {"text": ""},
        {"text": "so"},
        {"inlineData": {"mimeType": "image/png", "data": "xx"}},
        {"executableCode": {"code": "1"}},
        {"newKind": 1},
        {"functionCall": {"name": "look", "args": {"q": 1}}},
    ]
    body = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    answer = GeminiUpstream().read(json.dumps(body).encode(), worker="w")
    assert [type(part) for part in answer.parts] == [Reasoning, Text, Media, ServerTool, Opaque, ToolCall]
    assert answer.calls[0].id.startswith("call_")
    assert answer.finish_reason == "tool_calls"
    turn = Message(role="assistant", content=answer.parts)
    sent = write(GeminiUpstream(), USER, turn, to=Recipient(worker="w", model="publishers/google/models/m"))
    kinds = [next(iter(part)) for part in sent["contents"][1]["parts"]]
    assert kinds == ["text", "inlineData", "executableCode", "newKind", "functionCall"], "reasoning of no known worker"
    assert GeminiUpstream().path(Recipient(worker="w", model="a/b"), is_stream=False) == "/a/b:generateContent"
    with pytest.raises(BadAnswer, match="MALFORMED"):
        GeminiUpstream().read(b'{"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]}', worker="w")


def test_a_schema_for_gemini_has_only_words_that_it_knows() -> None:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"const": {"const": 1}, "name": {"type": ["string", "null"], "default": "x"}},
        "anyOf": [{"$schema": "s", "type": "string"}],
    }
    assert fit_schema(schema) == {
        "type": "object",
        "properties": {"const": {"enum": [1]}, "name": {"type": "string", "nullable": True}},
        "anyOf": [{"type": "string"}],
    }


def test_what_has_no_form_is_described_in_words() -> None:
    shell = ServerTool(wire="responses", kind="local_shell_call", raw={"type": "local_shell_call", "command": ["ls"]})
    odd = Opaque(wire="chat", kind="new", raw={"type": "new", "a": 1})
    page = Media(kind=MediaKind.DOCUMENT, data="a page", media_type="text/plain", name="notes")
    film = Media(kind=MediaKind.VIDEO, url="https://x/y.mp4")
    turn = Message(
        role="assistant", content=(shell, Refusal(text="no"), Text(text="so", citations=(Citation(url="u"),)))
    )
    asked = Message(role="user", content=(odd, page, film, Media(kind=MediaKind.DOCUMENT, url="https://x/y.pdf")))
    for wire in WIRES:
        sent = json.dumps(write(wire, asked, turn, USER))
        for words in ("local_shell_call", "a page", "y.mp4", "y.pdf"):
            assert words in sent, (wire.name, words)
    assert write(ChatUpstream(), asked)["messages"][0]["content"][0] == {"type": "new", "a": 1}


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_tools_of_free_text_and_files_have_a_form(wire: Upstream) -> None:
    call = ToolCall(id="c1", name="run", arguments="cat key.txt", is_custom=True)
    failed = ToolResult(call="c1", content=(Media(kind=MediaKind.IMAGE, file="file-1"),), is_error=True, is_custom=True)
    tool = {"type": "custom", "custom": {"name": "run", "description": "Runs."}}
    messages = (USER, Message(role="assistant", content=(call,)), Message(role="tool", content=(failed,)))
    sent = json.dumps(write(wire, *messages, tools=(tool,)))
    assert '"run"' in sent
    assert "cat key.txt" in sent
    assert "ailed" in sent or '"is_error": true' in sent or '"error"' in sent


def test_results_stand_behind_their_calls() -> None:
    call = Message(role="assistant", content=(ToolCall(id="c1", name="f"),))
    result = Message(role="tool", content=(ToolResult(call="c1"),))
    orphan = Message(role="tool", content=(ToolResult(call="c0", content=(Text(text="late"),)),))
    sent = write(ChatUpstream(), orphan, call, USER, result)["messages"]
    assert [message["role"] for message in sent] == ["tool", "assistant", "tool", "user"]


def test_efforts_become_budgets_where_a_model_takes_none() -> None:
    def thinking(params: dict[str, object], *, takes: bool = False) -> dict[str, Any]:
        to = Recipient(worker="w", model="m", takes_effort=takes)
        return write(MessagesUpstream(), to=to, params=params)

    assert thinking({"reasoning_effort": "low"})["thinking"]["budget_tokens"] == 2048
    assert thinking({"reasoning_effort": "low"})["max_tokens"] > 2048
    assert thinking({"reasoning_effort": "high", "max_tokens": 4000})["thinking"]["budget_tokens"] == 2000
    assert "thinking" not in thinking({"reasoning_effort": "high", "max_tokens": 100})
    assert "temperature" not in thinking({"reasoning_effort": "low", "temperature": 0.2})
    assert thinking({"reasoning_effort": "minimal"}, takes=True)["output_config"] == {"effort": "low"}
    assert thinking({"temperature": 1.7, "stop": "x", "user": "u", "n": 2}) | {"messages": 0} == {
        "model": "m", "messages": 0, "max_tokens": 4096, "temperature": 1.0, "stop_sequences": ["x"],
        "metadata": {"user_id": "u"},
    }  # fmt: skip


def test_what_a_client_states_in_the_workers_own_format_is_not_overwritten() -> None:
    card = {"reasoning_effort": "high", "parallel_tool_calls": False}
    body = {
        "model": "auto", "max_tokens": 3000, "tool_choice": {"type": "tool", "name": "a"},
        "tools": [{"name": "a", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": "Where is the key?"},
        ],
    }  # fmt: skip
    parsed = MessagesDialect().read(body)
    task = Task(messages=parsed.messages, tools=parsed.tools, params={**card, **parsed.params}, native=parsed.native)
    sent = MessagesUpstream().write(task, Recipient(worker="w", model="m"), is_stream=False)
    assert sent["max_tokens"] == 3000, "the budget has reserved no more"
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 1500}
    assert sent["tool_choice"] == {"type": "tool", "name": "a", "disable_parallel_tool_use": True}
    assert sent["system"] == [{"type": "text", "text": "Be brief."}]


def test_the_input_of_a_tool_of_the_vendor_is_put_together() -> None:
    block = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    texts = ('{"query": "ke', 'y"}')
    deltas = [
        ("", {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": text}})
        for text in texts
    ]
    _, assembly = read(
        MessagesUpstream(),
        ("", {"type": "content_block_start", "index": 0, "content_block": block}),
        *deltas,
        ("", {"type": "content_block_stop", "index": 0}),
    )
    (part,) = assembly.answer().parts
    assert isinstance(part, ServerTool)
    assert part.raw == block | {"input": {"query": "key"}}


def test_choices_of_tools_have_the_form_of_each_wire() -> None:
    tools = ({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},)
    named = {"type": "function", "function": {"name": "f"}}
    sent = {
        wire.name: write(wire, tools=tools, params={"tool_choice": named, "parallel_tool_calls": False})
        for wire in WIRES
    }
    assert sent["messages"]["tool_choice"] == {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    assert sent["responses"]["tool_choice"] == {"type": "function", "name": "f"}
    assert sent["gemini"]["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == ["f"]
    for wire in WIRES:
        sent = write(wire, params={"tool_choice": "auto"})
        assert not {"tool_choice", "toolConfig"} & sent.keys(), "without tools it is refused"
    only = write(MessagesUpstream(), tools=tools, params={"parallel_tool_calls": False})
    assert only["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_features_of_a_task_and_what_each_wire_loses() -> None:
    marked = Text(text="x", cache="1h", citations=(Citation(url="u"),))
    media = tuple(Media(kind=kind, data="x") for kind in MediaKind)
    odd, served = Opaque(wire="w", kind="k", raw={}), ServerTool(wire="w", kind="k", raw={})
    result = ToolResult(call="c", content=(Media(kind=MediaKind.IMAGE, data="x"), odd), is_error=True)
    parts: tuple[Part, ...] = (
        marked,
        *media,
        Media(kind=MediaKind.DOCUMENT, url="u"),
        Media(kind=MediaKind.IMAGE, file="f"),
    )
    own: tuple[Part, ...] = (Reasoning(text="hm"), Reasoning(sealed="x"), served, odd)
    messages = (
        Message(role="user", content=parts),
        Message(role="assistant", content=(*own, ToolCall(id="c", name="f", is_custom=True))),
        Message(role="tool", content=(result,)),
    )
    params = {
        "stop": "x", "top_k": 1, "seed": 1, "n": 2, "logprobs": True, "presence_penalty": 1, "logit_bias": {"1": 1},
        "response_format": {"type": "json_object"}, "reasoning_effort": "low", "verbosity": "low",
    }  # fmt: skip
    task = Task(messages=messages, params=params, served_tools=("web_search",))
    assert find_features(task) == set(Feature) - {Feature.SCHEMA}
    assert Feature.AUDIO in list_lost(task, "messages")
    assert Feature.REASONING not in list_lost(task, "messages"), "it goes to no other worker, by rule"
    assert Feature.IMAGE in list_lost(task, ""), "a worker of text alone"
    assert list_lost(Task(messages=(USER,)), "") == ()


def test_interleaved_calls_are_put_in_order() -> None:
    sorter = CallSorter()

    def add(index: int, arguments: str) -> list[tuple[int, str]]:
        return [(piece.index, piece.arguments) for piece in sorter.add(CallPiece(index=index, arguments=arguments))]

    assert add(0, '{"a"') == [(0, '{"a"')]
    assert add(1, '{"b": 1}') == []
    assert add(2, "{}") == []
    assert add(0, ": 1}") == [(0, ": 1}"), (1, '{"b": 1}'), (2, "{}")]
    assert add(1, "late") == [], "the call that it belongs to has ended"
    assert sorter.flush() == []


def test_a_whole_answer_becomes_pieces_and_is_put_together_again() -> None:
    from ripieno.domain import Answer

    sealed, image = Reasoning(sealed="x", id="r"), Media(kind=MediaKind.IMAGE, data="xx")
    call = ToolCall(id="c", name="f")
    parts = (Reasoning(text="hm", signature="s"), sealed, Text(text="so"), Refusal(text="no"), image, call)
    answer = Answer.of(parts, finish_reason="tool_calls")
    assembly = Assembly()
    for piece in cut_answer(answer):
        assembly.add(piece, at=0.0)
    assert assembly.answer().parts == parts
    assert assembly.answer().finish_reason == "tool_calls"
    alone = Assembly()
    alone.add(Piece(signature="s"), at=0.0)
    assert alone.answer().parts == (Reasoning(signature="s"),)
