"""Bound: the highest possible cost of one call, known before the call; Account reserves that amount."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol

import msgspec

from ripieno.domain.conversation import (
    Media,
    MediaKind,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    list_leaves,
)
from ripieno.domain.task import Task
from ripieno.domain.worker import Worker
from ripieno.errors import InvalidTask

BYTES_PER_TOKEN = 2.0
"""Bytes per token of the densest ordinary text (digits, code, Chinese) in o200k; English has about 4.5."""
MESSAGE_TOKENS = 8
"""Extra tokens per message."""
IMAGE_TOKENS = 2_000
"""Tokens of one large image, as most providers count it."""
BYTES_PER_MEDIA_TOKEN = 200.0
"""Bytes per token of audio and files in base64."""
UNSTATED_OUTPUT_TOKENS = 16_384
"""Reserved output tokens if neither the request nor the worker card sets a limit."""
MOST_COUNTED = 1e9
"""Upper bound of a valid count of tokens or answers."""
RESERVED_CPU_S = 1.0
"""Reserved CPU seconds of a worker that charges CPU time, which has no bound before the call."""
LIMITS = ("max_completion_tokens", "max_tokens")
"""Request fields that limit the output tokens."""
ALIASES = ("max_output_tokens", "max_new_tokens", "num_predict", "n_predict")
"""Names of that limit on servers other than OpenAI's."""
SAMPLES = ("n", "best_of")
"""Request fields that multiply the output."""
LISTED_TIERS = ("auto", "default", "flex")
"""Values of `service_tier` that cost at most the list price."""


class Account(Protocol):
    """Pays for the calls of one run. It reserves an amount before each call and settles it afterwards."""

    @property
    def has_budget(self) -> bool:
        """Return whether there is a ceiling. Without one, nothing is reserved and unknown prices are allowed."""
        ...

    async def reserve(self, most_usd: float, *, least_usd: float) -> float:
        """Reserve `most_usd`, or the rest of the budget if that is less, and return the amount.

        Raises:
            BudgetExhausted: less than `least_usd` is left.
        """
        ...

    def settle(self, reserved_usd: float, *, cost_usd: float) -> None:
        """Replace a reservation by the cost of the call, in US dollars."""
        ...

    def open(self, run: str) -> "Account":
        """Open an account of the same key for another run that this run needs."""
        ...

    def close(self, *, cost_usd: float | None, is_recorded: bool) -> None:
        """End the run.

        Args:
            cost_usd: cost of the run. None if it is unknown: the reserved amount then stays reserved.
            is_recorded: True if the ledger records the run; False if it made no call.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Lowest and highest cost of one call, in US dollars."""

    least_usd: float
    """Cost of an answer of one token, without CPU time."""
    most_usd: float
    """Cost of the longest possible answer."""
    usd_per_token: float
    """Price of one more output token."""
    output_tokens: int
    """Length of the longest possible answer."""
    is_limited: bool
    """True if exactly one limit applies, in at most one request field. Otherwise the caller must set one."""

    def afford(self, usd: float) -> int:
        """Return the output tokens that an amount pays for; at least 1 if it is `least_usd` or more."""
        if usd >= self.most_usd or self.usd_per_token == 0.0:
            return self.output_tokens
        return min(1 + int((usd - self.least_usd) / self.usd_per_token), self.output_tokens)


def bound_call(worker: Worker, task: Task) -> Bound | None:
    """Bound the cost of one call of a worker; None if its price is unknown.

    Raises:
        InvalidTask: a field of the request makes the price unknown, or is no count of tokens or answers.
    """
    price = worker.price
    if not (price.is_known and price.prices_output):
        return None
    _require_listed(worker, task)
    asked = _read_limit(worker, task)
    limits = [limit for limit in (asked, worker.max_output_tokens) if limit is not None]
    most = min(limits) if limits else min(worker.context_window or UNSTATED_OUTPUT_TOKENS, UNSTATED_OUTPUT_TOKENS)
    samples = _count_samples(worker, task)
    input_tokens = count_most_input(task)
    rates = price.rates_of(input_tokens)
    dearest = max(
        rates.input_usd_per_mtok, rates.cache_write_usd_per_mtok or 0.0, rates.audio_input_usd_per_mtok or 0.0
    )
    spoken = max(rates.output_usd_per_mtok, rates.audio_output_usd_per_mtok or 0.0)
    fixed = price.usd_per_call + input_tokens * dearest / 1e6
    each = samples * spoken / 1e6
    return Bound(
        least_usd=fixed + each,
        most_usd=fixed + each * most + RESERVED_CPU_S * price.usd_per_cpu_s,
        usd_per_token=each,
        output_tokens=most,
        is_limited=(bool(limits) and _is_unambiguous(worker, task)) or each == 0.0,
    )


def cap_output(worker: Worker, task: Task, tokens: int) -> Task:
    """Return the task with its output limited, in the one field that the worker accepts."""
    options = _params_of(worker)
    known = (*LIMITS, *ALIASES)
    stated = [name for name in LIMITS if name in task.params or name in options]
    name = stated[0] if stated else "max_completion_tokens" if _reasons(worker.binding.model) else "max_tokens"
    others = {key: value for key, value in task.params.items() if key not in known}
    # The fields of the worker card are sent with every call, so each of them gets the same limit.
    of_card = {key: tokens for key in known if key in options}
    return replace(task, params={**others, **of_card, name: tokens})


def count_most_input(task: Task) -> int:
    """Return an upper bound of the input tokens, from the bytes of messages and tools."""
    tokens = sum(_count_message(message) for message in task.messages)
    if task.tools or "response_format" in task.params:
        stated = [list(task.tools), task.params.get("response_format")]
        tokens += len(json.dumps(stated, default=str)) / BYTES_PER_TOKEN
    return int(tokens) + 1


def _count_message(message: Message) -> float:
    if isinstance(message.content, str):
        tokens = _count_text(message.content)
    else:
        tokens = sum(_count_part(part) for part in list_leaves(message.content))
    if message.extra:
        tokens += _count_text(json.dumps(dict(message.extra), default=str))
    return MESSAGE_TOKENS + tokens


def _count_part(part: Part) -> float:
    match part:
        case Text(text=text) | Refusal(text=text):
            return _count_text(text)
        case Media(kind=MediaKind.IMAGE):
            return IMAGE_TOKENS
        case Media(data=data, media_type="text/plain"):
            return _count_text(data)
        case Media(data=data):
            return IMAGE_TOKENS + len(data) / BYTES_PER_MEDIA_TOKEN
        case ToolCall(name=name, arguments=arguments):
            return MESSAGE_TOKENS + _count_text(name) + _count_text(arguments)
        case Reasoning(text=text, sealed=sealed):
            return _count_text(text) + _count_text(sealed)
        case _:
            return IMAGE_TOKENS + len(msgspec.json.encode(part)) / BYTES_PER_MEDIA_TOKEN


def _count_text(text: str) -> float:
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return size / BYTES_PER_TOKEN


def _read_limit(worker: Worker, task: Task) -> int | None:
    """Return the highest stated limit, because it is unknown which one a server applies."""
    stated = _list_sent(worker, task, (*LIMITS, *ALIASES))
    return max((_count(name, value) for name, value in stated.items()), default=None)


def _is_unambiguous(worker: Worker, task: Task) -> bool:
    """Return whether at most one limit is sent, as an integer, so that every server reads the same."""
    stated = _list_sent(worker, task, (*LIMITS, *ALIASES))
    return len(stated) <= 1 and all(type(value) is int for value in stated.values())


def _count_samples(worker: Worker, task: Task) -> int:
    asked = [_count(name, value) for name, value in _list_sent(worker, task, SAMPLES).items()]
    drawn = worker.binding.options.get("samples")
    return max(*asked, drawn if isinstance(drawn, int) else 1, 1)


def _list_sent(worker: Worker, task: Task, names: Iterable[str]) -> dict[str, object]:
    """Return those of the request fields that are sent, by name."""
    sent = {**_params_of(worker), **task.params}
    return {name: sent[name] for name in names if sent.get(name) is not None}


def _require_listed(worker: Worker, task: Task) -> None:
    tier = task.params.get("service_tier", _params_of(worker).get("service_tier"))
    if tier is not None and tier not in LISTED_TIERS:
        raise InvalidTask(
            f"the price of service_tier {str(tier)[:40]!r} is unknown, and there is a budget",
            param="service_tier",
            hint=f"use one of {', '.join(LISTED_TIERS)}, or a key without a budget",
        )


def _params_of(worker: Worker) -> Mapping[str, object]:
    params = worker.binding.options.get("params")
    return params if isinstance(params, Mapping) else {}


def _count(name: str, value: object) -> int:
    """Read a count as a lenient server does, which accepts 1000.0 and "1000" as 1000.

    Raises:
        InvalidTask: the value is not a count.
    """
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        number = 0.0
    if not 1.0 <= number < MOST_COUNTED:
        raise InvalidTask(f"{name} must be a whole number above 0, got {str(value)[:40]!r}", param=name)
    return ceil(number)


def _reasons(model: str) -> bool:
    """Return whether the model is one that refuses `max_tokens`."""
    name = model.rpartition("/")[2]
    return name.startswith(("o1", "o3", "o4", "gpt-5"))
