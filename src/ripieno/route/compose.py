"""Composition: the workflow of a mode, for one task and its eligible workers."""

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
from ripieno.domain.grader import Agreement, Check, JsonSchema, Judge, find_asked
from ripieno.errors import InvalidTask
from ripieno.tasks.schemas import read_schema as validate_schema

SAMPLES = 5
"""Samples of a vote by one worker.

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
    """The inputs of a workflow."""

    task: Task
    pool: Pool
    order: tuple[WorkerId, ...]
    """Eligible workers in the policy's order, the chosen one first."""
    estimates: Sequence[Estimate]
    check: Check | None = None
    judge: WorkerId | None = None
    """The worker that judges answers if nothing else can check them."""
    masked: Mapping[WorkerId, Why] = field(default_factory=dict)
    """Workers that are not eligible, with the reason for each."""

    @property
    def solo(self) -> Solo:
        """Return the chosen worker with all others as fallbacks."""
        return Solo(worker=self.order[0], fallbacks=self.order[1:])

    @property
    def quality(self) -> Mapping[WorkerId, float]:
        """Return the expected quality of each worker."""
        return {estimate.worker: estimate.quality for estimate in self.estimates}

    @property
    def strongest(self) -> WorkerId:
        """Return the worker with the highest expected quality."""
        quality = self.quality
        return max(self.order, key=lambda worker: quality.get(worker, 0.0))

    def cheapest_first(self) -> list[WorkerId]:
        """Return the eligible workers by expected cost; those of unknown cost come last."""
        known = {e.worker: e.cost_usd for e in self.estimates if e.cost_usd is not None}
        return sorted(self.order, key=lambda worker: known.get(worker, math.inf))

    @property
    def unrestricted(self) -> "WorkflowInputs":
        """Return the inputs without restricted workers, which are never sampled, never check, and are no fallbacks."""
        return replace(self, order=tuple(worker for worker in self.order if not self.pool[worker].is_restricted))

    def others(self, *taken: WorkerId) -> tuple[WorkerId, ...]:
        """Return the workers in the policy's order, without those taken."""
        return tuple(worker for worker in self.order if worker not in taken)


def compose(mode: Mode, inputs: WorkflowInputs) -> Workflow:
    """Make the workflow of a mode. Plans and parts start as a Solo, and are written later.

    Raises:
        InvalidTask: there are too few eligible workers, or nothing can check the answers.
    """
    match mode:
        case Mode.SOLO | Mode.PLAN | Mode.DECOMPOSE:
            return inputs.solo
        case Mode.TURNS:
            return Turns(worker=inputs.order[0], fallbacks=inputs.others(inputs.order[0]))
        case Mode.CASCADE:
            return _make_cascade(_require_workers(2, "a cascade", inputs))
        case Mode.AGREEMENT:
            return _make_agreement(_require_workers(3, "agreement", inputs))
        case Mode.VERIFIED:
            return _make_verified(inputs)
        case Mode.VOTE | Mode.BEST_OF:
            return _make_samples(mode, inputs)
        case Mode.SYNTHESIZE:
            return _make_synthesis(inputs)
        case _:
            assert_never(mode)


def _require_workers(least: int, workflow: str, inputs: WorkflowInputs) -> WorkflowInputs:
    """Return the inputs without restricted workers.

    Raises:
        InvalidTask: fewer than `least` workers are left; the message gives the reason for each other worker.
    """
    left = inputs.unrestricted
    if len(left.order) >= least:
        return left
    found = " and ".join(map(repr, left.order))
    eligible = f"only {found} {'is' if len(left.order) == 1 else 'are'} eligible" if found else "none is eligible"
    whys = "; ".join(_list_whys(inputs, left.order)) or "the pool has no other worker"
    raise InvalidTask(
        f"{workflow} needs {_COUNTS[least]} eligible workers, and {eligible} ({whys})",
        param="ripieno.workflow",
        hint="make another worker eligible, or ask for another workflow",
    )


_COUNTS = {2: "two", 3: "three"}


def _list_whys(inputs: WorkflowInputs, eligible: Sequence[WorkerId]) -> Iterator[str]:
    """Yield the reason for each other worker. Workers that the caller may not use are not named."""
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
        return "its calls have effects or need approval, so no workflow calls it unless it is named"
    if any(each.worker == worker.id and each.standing is Standing.MASKED for each in inputs.estimates):
        return f"it is new and takes no task yet; measure it with `ripieno pool probe {worker.id}`"
    return "the policy leaves it out"


def workflow_as_worker(name: WorkerId) -> Worker:
    """Make a worker card for a learned workflow, so that the predictor can estimate it."""
    return Worker(id=name, binding=Binding(provider="workflow", model=name))


def find_check(whole: WorkflowInputs, author: WorkerId) -> Check:
    """Find a check of an answer of `author`: the stated check, the JSON schema, a judge, or a peer, in this order.

    Raises:
        InvalidTask: nothing can check the answer.
    """
    inputs = whole.unrestricted
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
            hint="state a check in ripieno.check, or name a judge in profile.judge",
        )
    return Agreement(peer=peer)


def _require_eligible(check: Check, inputs: WorkflowInputs) -> None:
    """Refuse a check by a masked worker, because a worker that checks sees the task."""
    if isinstance(check, Judge | Agreement):
        worker = find_asked(check)
        if worker not in inputs.order:
            problem = "no judge is named" if worker is None else f"{worker!r} may not take the task, nor check it"
            raise InvalidTask(problem, param="ripieno.check", hint="`ripieno route` lists the eligible workers")


def find_peer(inputs: WorkflowInputs, author: WorkerId) -> WorkerId | None:
    """Find the peer whose agreement is the strongest evidence: the best of another family, or else of the same."""
    family, quality = inputs.pool[author].model_family, inputs.quality
    others = [inputs.pool[worker] for worker in inputs.others(author)]
    best = max(others, key=lambda worker: (worker.model_family != family, quality.get(worker.id, 0.0)), default=None)
    return best.id if best is not None else None


def read_schema(task: Task) -> JsonSchema | None:
    """Return the JSON schema of the answer, if the request states one that can be checked."""
    wanted = task.params.get("response_format")
    if not isinstance(wanted, Mapping) or wanted.get("type") != "json_schema":
        return None
    holder = wanted.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, Mapping) else None
    if not isinstance(schema, Mapping):
        return None
    try:
        validate_schema(schema)
    except ValueError:
        return None  # the worker may understand the schema; it cannot be checked here
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
    family = {worker: inputs.pool[worker].model_family for worker in cheap}
    first, peer = next(((a, b) for a in cheap for b in cheap if family[a] != family[b]), (cheap[0], cheap[1]))
    return Cascade(stages=(first, strong), check=Agreement(peer=peer), fallbacks=inputs.others(first, peer, strong))


def _make_verified(inputs: WorkflowInputs) -> Verified:
    worker = inputs.order[0]
    return Verified(worker=worker, check=find_check(inputs, worker), fallbacks=inputs.unrestricted.others(worker))


def _make_samples(mode: Mode, inputs: WorkflowInputs) -> Ensemble:
    """Sample the chosen worker if its answers vary, or else different workers."""
    chosen, is_vote = inputs.pool[inputs.order[0]], mode is Mode.VOTE
    if chosen.is_tool or chosen.is_restricted:
        members = _choose_members(inputs)
    else:
        members = (chosen.id,) * (SAMPLES if is_vote else MEMBERS)
    return Ensemble(
        members=members,
        merge=Merge.VOTE if is_vote else Merge.BEST,
        check=None if is_vote else find_check(inputs, members[0]),
        fallbacks=inputs.unrestricted.others(*members),
    )


def _make_synthesis(inputs: WorkflowInputs) -> Ensemble:
    models = tuple(worker for worker in inputs.unrestricted.order if not inputs.pool[worker].is_tool)
    if not models:
        raise InvalidTask("no model that may take the task can synthesize", param="ripieno.workflow")
    able = replace(inputs, order=models)
    arbiter = able.strongest
    members = _choose_members(inputs)
    return Ensemble(members=members, merge=Merge.SYNTHESIZE, arbiter=arbiter, fallbacks=able.others(arbiter))


def _choose_members(inputs: WorkflowInputs) -> tuple[WorkerId, ...]:
    """Choose the first few workers, with those of new families first."""
    able = [inputs.pool[worker] for worker in _require_workers(2, "an ensemble", inputs).order]
    seen: set[str] = set()
    fresh: list[WorkerId] = []
    rest: list[WorkerId] = []
    for worker in able:
        (rest if worker.model_family in seen else fresh).append(worker.id)
        seen.add(worker.model_family)
    return tuple([*fresh, *rest][:MEMBERS])
