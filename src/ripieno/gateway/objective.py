"""Options of a request beside its task: the model's name, `X-Ripieno-*` headers, and the `ripieno` object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import msgspec

from ripieno.domain import Budget, JsonValue, Objective, Privacy
from ripieno.domain.grader import Check
from ripieno.domain.memory import Scope
from ripieno.domain.objective import read_mode
from ripieno.errors import Forbidden, InvalidTask
from ripieno.route import PRESETS
from ripieno.tasks.graders import RUNS_CODE, read_check

AUTO = "auto"
LONGEST_KIND = 100
"""Characters of a task kind, which reports and charts show."""
LONGEST_NAME = 512
"""Characters of every other name in a request: model, session, project, user, worker."""
MOST_NAMED = 1_000
"""Workers that a request may name."""
SESSION_HEADERS = (
    "x-ripieno-session",
    "x-session-id",
    "x-session-affinity",
    "session-id",
    "session_id",
    "thread-id",
    "x-claude-code-session-id",
)
"""Headers that may hold the session's name; the first one with a value counts."""


class MemoryFields(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The `memory` object of a request: whose memory it reads and writes."""

    project: str = ""
    user: str = ""


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
    session: str | None = None
    cache: bool | None = None
    workflow: str | None = None
    check: dict[str, JsonValue] | None = None
    memory: MemoryFields | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNames:
    """What `model` may name, and whether checks may run code."""

    workers: Sequence[str]
    aliases: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Further names, each for a worker, several workers, or `auto` with a preset; `*` stands for any text."""
    allows_code: bool = False
    """Whether checks of requests may run code."""

    def all(self) -> list[str]:
        """List every name: `auto` with its presets, the workers, the aliases without `*`."""
        whole = (name for name in self.aliases if "*" not in name)
        return [AUTO, *(f"{AUTO}:{preset}" for preset in PRESETS), *self.workers, *whole]

    def resolve(self, name: str) -> tuple[str, ...] | None:
        """Return what an alias stands for; None if the name is none.

        A worker's own name and the router's are no aliases. Of several patterns that match, the longest counts.
        """
        found = self.aliases.get(name)
        if found is None and name not in self.workers and name.partition(":")[0] != AUTO and name:
            patterns = sorted((each for each in self.aliases if "*" in each), key=len, reverse=True)
            found = next((self.aliases[each] for each in patterns if fnmatchcase(name, _escape(each))), None)
        if found is None:
            return None
        return (found,) if isinstance(found, str) else found


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """What a request asks for beside its task."""

    objective: Objective
    budget: Budget
    kind: str | None
    session: str | None
    check: Check | None
    """Checks answers while the task runs."""
    memory: Scope | None
    """Whose memory is read before the call, and written after it."""
    may_cache: bool | None
    """Whether the answer may come from the cache; None leaves it to the settings."""


class UnknownModel(InvalidTask):
    """`model` is neither `auto` nor a worker nor an alias."""

    def __init__(self, model: str, workers: Sequence[str]) -> None:
        self.model = model
        super().__init__(
            f"the model {model[:100]!r} does not exist",
            param="model",
            hint=f"use 'auto' or one of {', '.join(workers)}",
        )


_NO_FIELDS = RipienoFields()
_NO_MEMORY = MemoryFields()
_NO_BUDGET = Budget()


def parse_request_options(
    body: Mapping[str, JsonValue], model: str, headers: Mapping[str, str], base: Objective, names: ModelNames
) -> RequestOptions:
    """Read the options of a request.

    Args:
        body: the whole body; this reads its `ripieno` object, and the fields that name a session.
        model: the model that the request names.
        headers: names in lower case.
        base: the objective for everything that the request leaves open.
        names: what `model` may be.

    Raises:
        InvalidTask: a field or header is wrong; `param` names it.
        Forbidden: the check runs code, and the settings forbid that.
        UnknownModel: there is no such model.
    """
    given = body.get("ripieno")
    try:
        fields = _NO_FIELDS if given is None else msgspec.convert(given, RipienoFields)
    except msgspec.ValidationError as error:
        raise InvalidTask(f"ripieno: {error}", param="ripieno") from error
    fields = _merge_headers(fields, headers)
    session = fields.session or _find_session(headers, body)
    _check_lengths(model, fields, session)
    try:
        return RequestOptions(
            objective=_make_objective(model, fields, base, names),
            budget=_NO_BUDGET if fields.budget_usd is None else Budget(cost_usd=fields.budget_usd),
            kind=fields.task_kind,
            session=session,
            check=None if fields.check is None else _read_check(fields.check, names),
            memory=None if (own := fields.memory) is None else Scope(project=own.project, user=own.user),
            may_cache=fields.cache,
        )
    except ValueError as error:
        raise InvalidTask(str(error), param="ripieno") from error


def _check_lengths(model: str, fields: RipienoFields, session: str | None) -> None:
    """Refuse names that are too long for reports.

    Raises:
        InvalidTask: one is too long; `param` names it.
    """
    memory = fields.memory or _NO_MEMORY
    for name, value, most in (
        ("model", model, LONGEST_NAME),
        ("ripieno.task_kind", fields.task_kind, LONGEST_KIND),
        ("ripieno.session", session, LONGEST_NAME),
        ("ripieno.memory.project", memory.project, LONGEST_NAME),
        ("ripieno.memory.user", memory.user, LONGEST_NAME),
        ("ripieno.workers", max(fields.workers, key=len, default=""), LONGEST_NAME),
    ):
        if value is not None and len(value) > most:
            raise InvalidTask(f"{name} may have {most} characters, and has {len(value):,}", param=name)
    if len(fields.workers) > MOST_NAMED:
        raise InvalidTask(f"ripieno.workers may name {MOST_NAMED:,} workers", param="ripieno.workers")


def _read_check(raw: Mapping[str, JsonValue], names: ModelNames) -> Check:
    check = read_check(raw)
    if isinstance(check, RUNS_CODE) and not names.allows_code:
        raise Forbidden(
            f"requests may not ask for the check {raw.get('kind')!r}, as it runs code",
            hint="the owner can set gateway.allow_code_checks = true",
        )
    return check


def _make_objective(name: str, fields: RipienoFields, base: Objective, names: ModelNames) -> Objective:
    """Make the objective for a model's name. An alias allows its worker, and does not name it."""
    alias, workers = names.resolve(name), names.workers
    model = name if alias is None else alias[0]
    named, _, point = model.partition(":")
    preset = fields.preset
    if model in workers:
        base = replace(base, workers=(model,)) if alias is None else replace(base, allowed=alias)
        if fields is _NO_FIELDS:
            return base
    elif named == AUTO or model == "":
        preset = preset or (point or None)
        if fields is _NO_FIELDS and preset is None:
            return base
    else:
        raise UnknownModel(model, workers)
    if preset is not None:
        if preset not in PRESETS:
            raise ValueError(f"no preset is called {preset!r}; presets: {', '.join(PRESETS)}")
        base = replace(base, preset=preset, preference=PRESETS[preset].preference, privacy=PRESETS[preset].privacy)
    return replace(base, **_read_changes(fields, base))  # type: ignore[arg-type]  # each value is of its field's type


def _escape(pattern: str) -> str:
    """Return a pattern in which only `*` has a meaning."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


def _read_changes(fields: RipienoFields, base: Objective) -> dict[str, object]:
    """Read the objective's fields that the request sets."""
    changes: dict[str, object] = {
        name: getattr(fields, name)
        for name in ("preference", "mission_criticality", "time_criticality", "quality_floor", "abstain_price")
        if getattr(fields, name) is not None
    }
    if fields.deadline_ms is not None:
        changes["deadline_s"] = fields.deadline_ms / 1000.0
    if fields.workflow is not None:
        changes["mode"] = read_mode(fields.workflow)
    if fields.privacy is not None:
        changes["privacy"] = Privacy(fields.privacy)
    if fields.workers and not base.workers:
        changes["workers"] = tuple(w for w in fields.workers if not base.allowed or w in base.allowed)
    changes["stated"] = frozenset((*base.stated, *changes))
    return changes


def _merge_headers(fields: RipienoFields, headers: Mapping[str, str]) -> RipienoFields:
    """Take from X-Ripieno-* headers what the body leaves open."""
    found: dict[str, object] = {}
    for header, name, kind in _HEADERS:
        value = headers.get(header)
        if value is None or getattr(fields, name) is not None:
            continue
        try:
            found[name] = kind(value)
        except ValueError as error:
            raise InvalidTask(f"header {header} must be a number, got {value!r}", param=header) from error
    return msgspec.structs.replace(fields, **found) if found else fields


_HEADERS: tuple[tuple[str, str, type], ...] = (
    ("x-ripieno-preference", "preference", float),
    ("x-ripieno-deadline-ms", "deadline_ms", float),
    ("x-ripieno-budget-usd", "budget_usd", float),
    ("x-ripieno-task-kind", "task_kind", str),
    ("x-ripieno-workflow", "workflow", str),
    ("x-ripieno-criticality", "mission_criticality", float),
)


def _find_session(headers: Mapping[str, str], body: Mapping[str, JsonValue]) -> str | None:
    for name in SESSION_HEADERS:
        value = headers.get(name)
        if value:
            return value
    key = body.get("prompt_cache_key")
    if isinstance(key, str) and key:
        return key
    metadata = body.get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, Mapping) else None
    return user if isinstance(user, str) and user else None
