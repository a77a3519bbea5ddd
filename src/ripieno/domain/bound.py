"""Bound: the most that one call can cost, known before the call; and what reserves that amount."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol

from ripieno.domain.task import JsonValue, Message, Task
from ripieno.domain.worker import Worker
from ripieno.errors import InvalidTask

BYTES_PER_TOKEN = 2.0
"""Of the densest ordinary text (digits, code, Chinese) under the o200k vocabulary; English has about 4.5."""
MESSAGE_TOKENS = 8
"""Tokens that one message adds to its text."""
IMAGE_TOKENS = 2_000
"""Tokens of one large picture, as most providers count it."""
BYTES_PER_MEDIA_TOKEN = 200.0
"""Of sound and files, in base64."""
UNSTATED_OUTPUT_TOKENS = 16_384
"""Longest answer that is reserved where neither the request nor the worker's card limits it."""
MOST_COUNTED = 1e9
"""No server makes so many tokens or answers."""
RESERVED_CPU_S = 1.0
"""CPU time that is reserved for a call of a worker that charges it: nothing bounds it before the call."""
LIMITS = ("max_completion_tokens", "max_tokens")
"""Fields of a request that limit the answer, in tokens."""
ALIASES = ("max_output_tokens", "max_new_tokens", "num_predict", "n_predict")
"""Names that servers beside OpenAI's read as such a limit."""
SAMPLES = ("n", "best_of")
"""Fields that multiply the answer."""
LISTED_TIERS = ("auto", "default", "flex")
"""Values of `service_tier` that cost the list price, or less."""


class Account(Protocol):
    """What pays for the calls of one run: it holds an amount back before a call, and settles it after."""

    @property
    def has_budget(self) -> bool:
        """Whether there is a ceiling: without one, nothing is held back, and unknown prices may be used."""
        ...

    async def reserve(self, most_usd: float, *, least_usd: float) -> float:
        """Hold back `most_usd`, or what is left where that is less; gives the amount.

        Raises:
            BudgetExhausted: less than `least_usd` is left.
        """
        ...

    def settle(self, reserved_usd: float, *, cost_usd: float) -> None:
        """Replace a reservation by what the call has cost, in US dollars."""
        ...

    def open(self, run: str) -> "Account":
        """An account of the same key for another run that this one needs."""
        ...

    def close(self, *, cost_usd: float | None, is_recorded: bool) -> None:
        """End the run: it has cost so much, and the ledger records it, or it made no call.

        A cost of None is not known: then what is held counts until it is.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What one call can cost, in US dollars."""

    least_usd: float
    """With an answer of one token, CPU time left out."""
    most_usd: float
    """With the longest answer that may come."""
    usd_per_token: float
    """Price of one more token of the answer."""
    output_tokens: int
    """Length of that answer."""
    is_limited: bool
    """Whether the answer is limited, in one field at most; if not, the request must be given one limit."""

    def afford(self, usd: float) -> int:
        """The longest answer that an amount pays for, in tokens; at least 1 where it is `least_usd` or more."""
        if usd >= self.most_usd or self.usd_per_token == 0.0:
            return self.output_tokens
        return min(1 + int((usd - self.least_usd) / self.usd_per_token), self.output_tokens)


def bound_call(worker: Worker, task: Task) -> Bound | None:
    """The most and the least that one call of a worker can cost; None where its price is unknown.

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
        is_limited=(bool(limits) and _is_plain(worker, task)) or each == 0.0,
    )


def cap_output(worker: Worker, task: Task, tokens: int) -> Task:
    """The task with its answer limited to so many tokens, in the field that the worker takes, and in no other."""
    options = _params_of(worker)
    known = (*LIMITS, *ALIASES)
    stated = [name for name in LIMITS if name in task.params or name in options]
    name = stated[0] if stated else "max_completion_tokens" if _reasons(worker.binding.model) else "max_tokens"
    others = {key: value for key, value in task.params.items() if key not in known}
    # A field of the worker's card is sent with every call, so each of them says the same.
    of_card = {key: tokens for key in known if key in options}
    return replace(task, params={**others, **of_card, name: tokens})


def count_most_input(task: Task) -> int:
    """An upper bound of the tokens that a worker reads, from the bytes of messages and tools."""
    tokens = sum(_count_message(message) for message in task.messages)
    if task.tools or "response_format" in task.params:
        stated = [list(task.tools), task.params.get("response_format")]
        tokens += len(json.dumps(stated, default=str)) / BYTES_PER_TOKEN
    return int(tokens) + 1


def _count_message(message: Message) -> float:
    if isinstance(message.content, str):
        tokens = _count_text(message.content)
    else:
        parts = message.content if isinstance(message.content, list | tuple) else ()
        tokens = sum(_count_part(part) for part in parts)
    if message.extra:
        tokens += _count_text(json.dumps(dict(message.extra), default=str))
    return MESSAGE_TOKENS + tokens


def _count_part(part: JsonValue) -> float:
    if not isinstance(part, Mapping):
        return _count_text(str(part))
    if isinstance(part.get("text"), str):
        return _count_text(str(part["text"]))
    if "image_url" in part or part.get("type") == "image":
        return IMAGE_TOKENS
    return IMAGE_TOKENS + len(json.dumps(part, default=str)) / BYTES_PER_MEDIA_TOKEN


def _count_text(text: str) -> float:
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return size / BYTES_PER_TOKEN


def _read_limit(worker: Worker, task: Task) -> int | None:
    """The longest of the stated limits: which of them a server goes by is not known."""
    sent = {**_params_of(worker), **task.params}
    limits = [_count(name, sent[name]) for name in (*LIMITS, *ALIASES) if sent.get(name) is not None]
    return max(limits) if limits else None


def _is_plain(worker: Worker, task: Task) -> bool:
    """Whether at most one limit is sent, as a whole number: then every server reads the same."""
    sent = {**_params_of(worker), **task.params}
    stated = [sent[name] for name in (*LIMITS, *ALIASES) if sent.get(name) is not None]
    return len(stated) <= 1 and all(type(value) is int for value in stated)


def _count_samples(worker: Worker, task: Task) -> int:
    sent = {**_params_of(worker), **task.params}
    asked = [_count(name, sent[name]) for name in SAMPLES if sent.get(name) is not None]
    drawn = worker.binding.options.get("samples")
    return max(*asked, drawn if isinstance(drawn, int) else 1, 1)


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
    """A count as any server may read it: a lenient one takes 1000.0 and "1000" for 1000.

    Raises:
        InvalidTask: it is none.
    """
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        number = 0.0
    if not 1.0 <= number < MOST_COUNTED:
        raise InvalidTask(f"{name} must be a whole number above 0, got {str(value)[:40]!r}", param=name)
    return ceil(number)


def _reasons(model: str) -> bool:
    """Whether it is one of the models that refuse `max_tokens`."""
    name = model.rpartition("/")[2]
    return name.startswith(("o1", "o3", "o4", "gpt-5"))
