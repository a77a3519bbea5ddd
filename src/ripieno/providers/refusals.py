"""Refusals: why a worker refused a request, and what its next requests leave out therefore."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import msgspec

from ripieno.domain import JsonValue, Worker
from ripieno.errors import Cause, ProviderError, ProviderRejected
from ripieno.wires.decoding import read_code, read_error

_CONTEXT = re.compile(
    r"context.{0,20}(?:length|window|size|limit)|maximum.{0,20}(?:context|tokens)|too many (?:input )?tokens|"
    r"prompt is too long|input is too long|exceeds? the (?:limit|maximum)|reduce the length|request_too_large",
    re.IGNORECASE,
)
_CONTEXT_CODES = frozenset({"context_length_exceeded", "string_above_max_length", "request_too_large"})
_PARAMETER = re.compile(
    r"unsupported (?:parameter|value|field)|unknown (?:parameter|field|name)|"
    r"unrecognized (?:request )?(?:argument|field)|extra (?:inputs|fields) (?:are )?not permitted|"
    r"not supported with this model|does not support|is not supported|"
    r"use 'max_completion_tokens'|unexpected keyword",
    re.IGNORECASE,
)
_PARAMETER_CODES = frozenset({"unsupported_parameter", "unknown_parameter", "unsupported_value"})
_FILTER = re.compile(r"content.{0,10}(?:filter|policy|management)|safety|moderation|responsible ai", re.IGNORECASE)
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation"})
_CREDIT = re.compile(
    r"insufficient.{0,20}(?:credit|quota|balance|fund)|billing|exceeded your current quota|credit balance",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"['\"`]([A-Za-z_][\w.\[\]-]{0,60})['\"`]")
_NEEDED = frozenset({"model", "messages", "input", "contents", "stream", "max_tokens"})
"""Fields that no repair leaves out."""
_RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


def find_cause(status: int, code: str | None, said: str) -> Cause:
    """Find why a worker refused a request, by status, code and words. Time is linear in the words."""
    words = said[:1000]
    if status in (401, 402, 403) or _CREDIT.search(words):
        return Cause.ACCOUNT
    if status == 404:
        return Cause.MODEL
    if status == 413 or code in _CONTEXT_CODES or _CONTEXT.search(words):
        return Cause.CONTEXT
    if code in _PARAMETER_CODES or _PARAMETER.search(words):
        return Cause.PARAMETER
    if code in _FILTER_CODES or _FILTER.search(words):
        return Cause.FILTER
    return Cause.REQUEST


@dataclass(slots=True)
class Profile:
    """What a worker has been found not to take."""

    dropped: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)

    def apply(self, body: dict[str, JsonValue]) -> None:
        """Leave out or rename the fields of a body that the worker does not take."""
        for old, new in self.renamed.items():
            if old in body:
                body[new] = body.pop(old)
        for name in self.dropped:
            body.pop(name, None)

    def learn(self, error: ProviderRejected, body: dict[str, JsonValue]) -> bool:
        """Learn from a refusal and change the body; return False if it names no field of the body."""
        quoted = [error.param or "", *_QUOTED.findall(error.message)]
        name = next((name for name in map(_find_root, quoted) if name in body), "")
        if not name:
            return False
        other = _RENAMED.get(name)
        if other is not None and other in error.message and other not in body and other not in self.renamed:
            self.renamed[name] = other
        elif name in _NEEDED:
            return False
        else:
            self.dropped.add(name)
        self.apply(body)
        return True

    def list_dropped(self, params: Mapping[str, JsonValue]) -> tuple[str, ...]:
        """List those of a task's fields that the worker does not get."""
        return tuple(sorted(name for name in self.dropped if params.get(name) is not None))


def _find_root(path: str) -> str:
    """Return the first name of a path such as `messages[0].content`."""
    return path.partition(".")[0].partition("[")[0]


def refuse_status(worker: Worker, status: int, headers: Mapping[str, str], content: bytes) -> None:
    """Raise the error of a status other than 200, with its cause."""
    if status == 200:
        return
    said = read_error(content)
    message = f"{worker.id!r} answered {status}: {said}"
    error: ProviderError
    if status in (408, 409, 429, 529) or status >= 500:
        error = ProviderError(message, worker=worker.id, retry_after_s=_read_retry_after(headers))
    else:
        cause = find_cause(status, read_code(content), said)
        hint = "check its API key" if cause is Cause.ACCOUNT and status != 402 else None
        error = ProviderRejected(message, worker=worker.id, hint=hint)
        error.cause, error.param = cause, _read_param(content)
        error.blames_worker = cause in (Cause.ACCOUNT, Cause.MODEL) or status < 400
    error.status, error.code = status, read_code(content)
    raise error


def _read_param(content: bytes) -> str | None:
    """Return the field that an error body names."""
    try:
        param = msgspec.json.decode(content)["error"]["param"]
    except (msgspec.MsgspecError, KeyError, TypeError, UnicodeDecodeError):
        return None
    return param if isinstance(param, str) else None


def _read_retry_after(headers: Mapping[str, str]) -> float | None:
    in_ms = headers.get("retry-after-ms")
    raw = headers.get("retry-after")
    try:
        if in_ms is not None:
            return max(float(in_ms) / 1000.0, 0.0)
        if raw is None:
            return None
        is_number = raw.replace(".", "").isdigit()
        return max(float(raw) if is_number else parsedate_to_datetime(raw).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
