"""Modes: which workflow a stated way of working becomes, for one task and its eligible workers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from ripieno.domain import (
    Binding,
    Cascade,
    Ensemble,
    Estimate,
    Merge,
    Mode,
    Pool,
    Solo,
    Standing,
    Task,
    Turns,
    Verified,
    Why,
    Worker,
    WorkerId,
    Workflow,
)
from ripieno.domain.grader import Agreement, Check, JsonSchema, Judge
from ripieno.errors import InvalidTask
from ripieno.tasks.schemas import read_schema as look_over

SAMPLES = 5
"""Of a vote by one worker.

Source:
    Wang et al. (2023), Self-consistency: most of the gain comes with the first five to ten samples.
"""
MEMBERS = 3
"""Different workers of an ensemble."""
RUBRIC = (
    "5: right, complete, and in the form that was asked for. 4: right, with a blemish. 3: partly right. "
    "2: mostly wrong. 1: wrong, empty, or not about the task."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInputs:
    """What a workflow can be made of."""

    task: Task
    pool: Pool
    order: tuple[WorkerId, ...]
    """Eligible workers in the order of the policy, the chosen one first."""
    estimates: Sequence[Estimate]
    check: Check | None = None
    """How the request says that answers can be checked."""
    judge: WorkerId | None = None
    """Who judges where nothing else can check."""
    masked: Mapping[WorkerId, Why] = field(default_factory=dict)
    """Workers that are not eligible, with the reason for each."""

    @property
    def solo(self) -> Solo:
        """The chosen worker, and all others behind it."""
        return Solo(worker=self.order[0], fallbacks=self.order[1:])

    @property
    def strongest(self) -> WorkerId:
        """The worker of which the best answer is expected."""
        quality = {estimate.worker: estimate.quality for estimate in self.estimates}
        return max(self.order, key=lambda worker: quality.get(worker, 0.0))

    def cheapest_first(self) -> list[WorkerId]:
        """Eligible workers by expected price."""
        cost = {estimate.worker: estimate.cost_usd for estimate in self.estimates}
        return sorted(self.order, key=lambda worker: _rank_cost(cost.get(worker)))

    @property
    def plain(self) -> "WorkflowInputs":
        """Those of which a call is a question and no more: only they stand in, are sampled, compared, or check."""
        return replace(self, order=tuple(worker for worker in self.order if not self.pool[worker].is_restricted))

    def others(self, *taken: WorkerId) -> tuple[WorkerId, ...]:
        """Workers in the policy's order, without those taken."""
        return tuple(worker for worker in self.order if worker not in taken)


def _rank_cost(cost_usd: float | None) -> float:
    """An unknown cost ranks behind every known one."""
    return math.inf if cost_usd is None else cost_usd


def compose(mode: Mode, inputs: WorkflowInputs) -> Workflow:
    """Make the workflow of a mode; plans and parts are written elsewhere, and begin as the chosen worker.

    Raises:
        InvalidTask: the eligible workers, or what can be checked, do not allow it.
    """
    match mode:
        case Mode.SOLO | Mode.PLAN | Mode.DECOMPOSE:
            return inputs.solo
        case Mode.TURNS:
            return Turns(worker=inputs.order[0], fallbacks=inputs.others(inputs.order[0]))
        case Mode.CASCADE:
            return _make_cascade(_take_plain(2, "a cascade", inputs))
        case Mode.AGREEMENT:
            return _make_agreement(_take_plain(3, "agreement", inputs))
        case Mode.VERIFIED:
            return _make_verified(inputs)
        case Mode.VOTE | Mode.BEST_OF:
            return _make_samples(mode, inputs)
        case Mode.SYNTHESIZE:
            return _make_synthesis(inputs)
        case _:
            assert_never(mode)


def _take_plain(least: int, workflow: str, inputs: WorkflowInputs) -> WorkflowInputs:
    """The eligible workers that a workflow may ask by itself.

    Raises:
        InvalidTask: they are fewer than `least`; says why each other worker is not one of them.
    """
    plain = inputs.plain
    if len(plain.order) >= least:
        return plain
    found = " and ".join(map(repr, plain.order))
    eligible = f"only {found} {'is' if len(plain.order) == 1 else 'are'} eligible" if found else "none is eligible"
    whys = "; ".join(_list_whys(inputs, plain.order)) or "the pool has no other worker"
    raise InvalidTask(
        f"{workflow} needs {_COUNTS[least]} eligible workers, and {eligible} ({whys})",
        param="ripieno.workflow",
        hint="make another worker eligible, or ask for another workflow",
    )


_COUNTS = {2: "two", 3: "three"}


def _list_whys(inputs: WorkflowInputs, eligible: Sequence[WorkerId]) -> Iterator[str]:
    """Why each other worker may not be asked; a worker that the caller may not use is not named."""
    allowed = inputs.task.objective.allowed
    for worker in inputs.pool:
        if worker.id not in eligible and (not allowed or worker.id in allowed):
            yield f"{worker.id}: {_find_why(inputs, worker)}"
    if allowed:
        yield f"the request may use only {', '.join(allowed)}"


def _find_why(inputs: WorkflowInputs, worker: Worker) -> str:
    why = inputs.masked.get(worker.id)
    if why is not None:
        return f"{why.reason} ({why.detail})"
    if worker.is_restricted:
        return "its calls have effects or need approval, so no workflow asks it by itself"
    if any(each.worker == worker.id and each.standing is Standing.MASKED for each in inputs.estimates):
        return f"it is new and takes no task yet; measure it with `ripieno pool probe {worker.id}`"
    return "the policy leaves it out"


def workflow_as_worker(name: WorkerId) -> Worker:
    """What stands among the workers for a workflow that is estimated like one."""
    return Worker(id=name, binding=Binding(provider="workflow", model=name))


def find_check(whole: WorkflowInputs, author: WorkerId) -> Check:
    """How an answer of `author` can be checked: as the request says, as its form says, by a judge, or by a peer.

    Raises:
        InvalidTask: there is no way.
    """
    inputs = whole.plain
    judge = inputs.judge if inputs.judge in inputs.order and inputs.judge != author else None
    stated = inputs.check or read_schema(inputs.task)
    if isinstance(stated, Judge) and stated.worker is None:
        stated = replace(stated, worker=judge)
    if stated is not None:
        _require_eligible(stated, inputs)
        return stated
    if judge is not None:
        return Judge(rubric=RUBRIC, worker=judge)
    peer = find_peer(inputs, author)
    if peer is None:
        raise InvalidTask(
            "nothing can check the answer: there is no second worker to agree with, and no judge",
            param="ripieno.check",
            hint="state how answers are checked in ripieno.check, or name a judge in profile.judge",
        )
    return Agreement(peer=peer)


def _require_eligible(check: Check, inputs: WorkflowInputs) -> None:
    """A worker that checks sees the task: the mask holds for it, too."""
    match check:
        case Judge(worker=worker) | Agreement(peer=worker):
            if worker not in inputs.order:
                problem = "no judge is named" if worker is None else f"{worker!r} may not take the task, nor check it"
                raise InvalidTask(problem, param="ripieno.check", hint="`ripieno route` shows who may")
        case _:
            pass


def find_peer(inputs: WorkflowInputs, author: WorkerId) -> WorkerId | None:
    """Whose agreement proves most: the best of other families, else of the author's own."""
    kin, quality = (
        inputs.pool[author].model_family,
        {estimate.worker: estimate.quality for estimate in inputs.estimates},
    )
    others = [inputs.pool[worker] for worker in inputs.others(author)]
    best = max(others, key=lambda worker: (worker.model_family != kin, quality.get(worker.id, 0.0)), default=None)
    return best.id if best is not None else None


def read_schema(task: Task) -> JsonSchema | None:
    """The schema that the answer must fit, where the request states one."""
    wanted = task.params.get("response_format")
    if not isinstance(wanted, Mapping) or wanted.get("type") != "json_schema":
        return None
    holder = wanted.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, Mapping) else None
    if not isinstance(schema, Mapping):
        return None
    try:
        look_over(schema)
    except ValueError:
        return None  # the worker may know what to make of it; it cannot be checked here
    return JsonSchema(schema=schema)


def _make_cascade(inputs: WorkflowInputs) -> Cascade:
    strong = inputs.strongest
    small = next(worker for worker in inputs.cheapest_first() if worker != strong)
    without_strong = replace(inputs, order=inputs.others(strong))
    check = find_check(without_strong, small)
    return Cascade(stages=(small, strong), check=check, fallbacks=inputs.others(small, strong))


def _make_agreement(inputs: WorkflowInputs) -> Cascade:
    strong = inputs.strongest
    cheap = [worker for worker in inputs.cheapest_first() if worker != strong]
    kin = {worker: inputs.pool[worker].model_family for worker in cheap}
    first, peer = next(((a, b) for a in cheap for b in cheap if a != b and kin[a] != kin[b]), (cheap[0], cheap[1]))
    return Cascade(stages=(first, strong), check=Agreement(peer=peer), fallbacks=inputs.others(first, peer, strong))


def _make_verified(inputs: WorkflowInputs) -> Verified:
    worker = inputs.order[0]
    return Verified(worker=worker, check=find_check(inputs, worker), fallbacks=inputs.plain.others(worker))


def _make_samples(mode: Mode, inputs: WorkflowInputs) -> Ensemble:
    """Samples of the chosen worker where it can vary, else of different ones."""
    chosen, plain = inputs.pool[inputs.order[0]], inputs.plain
    is_one = not chosen.is_tool and not chosen.is_restricted
    if mode is Mode.VOTE:
        members = (chosen.id,) * SAMPLES if is_one else _take_different(inputs)
        return Ensemble(members=members, merge=Merge.VOTE, fallbacks=plain.others(*members))
    members = (chosen.id,) * MEMBERS if is_one else _take_different(inputs)
    check = find_check(inputs, members[0])
    return Ensemble(members=members, merge=Merge.BEST, check=check, fallbacks=plain.others(*members))


def _make_synthesis(inputs: WorkflowInputs) -> Ensemble:
    models = [worker for worker in inputs.plain.order if not inputs.pool[worker].is_tool]
    if not models:
        raise InvalidTask("no model that may take the task can synthesize", param="ripieno.workflow")
    quality = {estimate.worker: estimate.quality for estimate in inputs.estimates}
    arbiter = max(models, key=lambda worker: quality.get(worker, 0.0))
    members = _take_different(inputs)
    rest = tuple(worker for worker in models if worker != arbiter)
    return Ensemble(members=members, merge=Merge.SYNTHESIZE, arbiter=arbiter, fallbacks=rest)


def _take_different(inputs: WorkflowInputs) -> tuple[WorkerId, ...]:
    """The first few workers, those of other families before those of the same."""
    able: list[Worker] = [inputs.pool[worker] for worker in _take_plain(2, "an ensemble", inputs).order]
    seen: set[str] = set()
    fresh: list[WorkerId] = []
    rest: list[WorkerId] = []
    for worker in able:
        (rest if worker.model_family in seen else fresh).append(worker.id)
        seen.add(worker.model_family)
    return tuple([*fresh, *rest][:MEMBERS])
