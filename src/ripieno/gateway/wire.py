"""The OpenAI-compatible wire: requests to tasks, runs to responses."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from ripieno.domain import Answer, Budget, Decision, JsonValue, Message, Objective, Run, Task, Usage
from ripieno.errors import InvalidTask
from ripieno.providers import Piece
from ripieno.route import PRESETS

LONGEST_BODY = 32 * 1024 * 1024
OWN_FIELDS = frozenset({"model", "messages", "tools", "stream", "stream_options", "ripieno"})
AUTO = "auto"


class RipienoFields(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The `ripieno` object of a request body."""

    preference: float | None = None
    preset: str | None = None
    deadline_ms: float | None = None
    budget_usd: float | None = None
    task_kind: str | None = None
    mission_criticality: float | None = None
    time_criticality: float | None = None
    quality_floor: float | None = None
    abstain_price: float | None = None
    privacy: str | None = None
    workers: tuple[str, ...] = ()


class ChatRequest(msgspec.Struct, frozen=True):
    """What routing reads of a chat-completions body; everything else passes through."""

    model: str
    messages: list[dict[str, object]]
    tools: list[dict[str, object]] = []
    stream: bool = False
    stream_options: dict[str, object] | None = None
    ripieno: RipienoFields = RipienoFields()

    @property
    def wants_usage(self) -> bool:
        """Whether a stream should end with the usage."""
        return bool(self.stream_options and self.stream_options.get("include_usage"))


def parse_request(
    body: bytes, headers: Mapping[str, str], base: Objective, workers: Sequence[str]
) -> tuple[ChatRequest, Task]:
    """Read a chat-completions request.

    Args:
        body: the JSON body.
        headers: request headers, names in lower case.
        base: the objective where the request states none.
        workers: ids that `model` may name.

    Raises:
        InvalidTask: the body is not JSON or a field is wrong; `param` names it.
    """
    try:
        raw = msgspec.json.decode(body)
        request = msgspec.convert(raw, ChatRequest)
    except msgspec.MsgspecError as error:
        raise InvalidTask(f"the request is not a chat completion: {error}", param=_find_param(str(error))) from error
    if not request.messages:
        raise InvalidTask("messages must not be empty", param="messages")
    stated = _merge_headers(request.ripieno, headers)
    messages = tuple(_make_message(message, index) for index, message in enumerate(request.messages))
    try:
        objective = _make_objective(request.model, stated, base, workers)
        budget = Budget(cost_usd=stated.budget_usd)
    except ValueError as error:
        raise InvalidTask(str(error), param="ripieno") from error
    task = Task(
        messages=messages,
        tools=tuple(request.tools),
        params={name: value for name, value in raw.items() if name not in OWN_FIELDS},
        objective=objective,
        budget=budget,
        kind=stated.task_kind,
    )
    return request, task


def make_completion(decision: Decision, run: Run) -> dict[str, JsonValue]:
    """A chat completion; every key that clients read is there, null where there is nothing."""
    answer = run.answer or Answer(text="")
    message: dict[str, JsonValue] = {
        "role": "assistant",
        "content": answer.text or None,
        "refusal": None,
        "annotations": [],
    }
    choice = {
        "index": 0,
        "message": {**message, **answer.message},
        "finish_reason": answer.finish_reason,
        "logprobs": None,
    }
    return {
        "id": f"chatcmpl-{decision.id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": run.worker,
        "choices": [choice],
        "usage": make_usage(answer.usage),
    }


def make_chunk(decision: Decision, worker: str, piece: Piece | None, *, created: int) -> dict[str, JsonValue]:
    """One streamed chunk; None makes the opening one, with the role alone."""
    delta = {"role": "assistant", "content": ""} if piece is None else dict(piece.delta)
    choice = {
        "index": 0,
        "delta": delta,
        "finish_reason": None if piece is None else piece.finish_reason,
        "logprobs": None,
    }
    return {**_chunk_head(decision, worker, created), "choices": [choice]}


def make_usage_chunk(decision: Decision, worker: str, usage: Usage, *, created: int) -> dict[str, JsonValue]:
    """The last chunk of a stream that asked for its usage."""
    return {**_chunk_head(decision, worker, created), "choices": [], "usage": make_usage(usage)}


def make_usage(usage: Usage) -> dict[str, int]:
    """Token counts in the wire's names."""
    read, written = usage.input_tokens or 0, usage.output_tokens or 0
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def make_headers(decision: Decision, *, worker: str | None = None, cost_usd: float | None = None) -> dict[str, str]:
    """What a response tells of its decision."""
    why = decision.reasons[0] if decision.reasons else ""
    headers = {
        "x-request-id": decision.id,
        "x-ripieno-decision": decision.id,
        "x-ripieno-worker": worker or decision.worker,
        "x-ripieno-workflow": type(decision.workflow).__name__.lower(),
        "x-ripieno-why": why.encode("ascii", "replace").decode()[:200],
    }
    if cost_usd is not None:
        headers["x-ripieno-cost-usd"] = f"{cost_usd:.10f}"
    return headers


def _chunk_head(decision: Decision, worker: str, created: int) -> dict[str, JsonValue]:
    return {
        "id": f"chatcmpl-{decision.id}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": worker,
    }


def _make_message(raw: dict[str, object], index: int) -> Message:
    role, content = raw.get("role"), raw.get("content")
    if not isinstance(role, str):
        raise InvalidTask(f"messages[{index}].role must be text", param=f"messages[{index}].role")
    if content is not None and not isinstance(content, str | list):
        raise InvalidTask(
            f"messages[{index}].content must be text, a list of parts, or null", param=f"messages[{index}].content"
        )
    extra = {name: value for name, value in raw.items() if name not in ("role", "content")}
    return Message(role=role, content=content, extra=extra)


def _make_objective(model: str, stated: RipienoFields, base: Objective, workers: Sequence[str]) -> Objective:
    named, _, point = model.partition(":")
    preset = stated.preset
    if model in workers:
        base = replace(base, workers=(model,))
    elif named == AUTO or model == "":
        preset = preset or (point or None)
    else:
        raise UnknownModel(model, workers)
    if preset is not None:
        if preset not in PRESETS:
            raise ValueError(f"no preset is called {preset!r}; presets: {', '.join(PRESETS)}")
        base = replace(base, preset=preset, preference=PRESETS[preset].preference, privacy=PRESETS[preset].privacy)
    changes: dict[str, object] = {
        name: getattr(stated, name)
        for name in ("preference", "mission_criticality", "time_criticality", "quality_floor", "abstain_price")
        if getattr(stated, name) is not None
    }
    if stated.deadline_ms is not None:
        changes["deadline_s"] = stated.deadline_ms / 1000.0
    if stated.privacy is not None:
        changes["privacy"] = type(base.privacy)(stated.privacy)
    if stated.workers and not base.workers:
        changes["workers"] = stated.workers
    changes["stated"] = base.stated | changes.keys()
    return replace(base, **changes)  # type: ignore[arg-type]  # each value is of its field's type


class UnknownModel(InvalidTask):
    """`model` names neither auto nor a worker."""

    def __init__(self, model: str, workers: Sequence[str]) -> None:
        super().__init__(
            f"the model {model!r} does not exist", param="model", hint=f"use 'auto' or one of {', '.join(workers)}"
        )


def _merge_headers(stated: RipienoFields, headers: Mapping[str, str]) -> RipienoFields:
    """Fill what the body leaves open from X-Ripieno-* headers."""
    found: dict[str, object] = {}
    for header, name, kind in _HEADERS:
        value = headers.get(header)
        if value is None or getattr(stated, name) is not None:
            continue
        try:
            found[name] = kind(value)
        except ValueError as error:
            raise InvalidTask(f"header {header} must be a number, got {value!r}", param=header) from error
    return msgspec.structs.replace(stated, **found) if found else stated


_HEADERS: tuple[tuple[str, str, type], ...] = (
    ("x-ripieno-preference", "preference", float),
    ("x-ripieno-deadline-ms", "deadline_ms", float),
    ("x-ripieno-budget-usd", "budget_usd", float),
    ("x-ripieno-task-kind", "task_kind", str),
    ("x-ripieno-criticality", "mission_criticality", float),
)


def _find_param(message: str) -> str | None:
    _, found, path = message.partition("`$.")
    return path.split("`")[0] if found else None
