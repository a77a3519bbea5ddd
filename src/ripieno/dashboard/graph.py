"""Graph: the steps of a workflow as boxes in columns, each to the right of what it saw."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ripieno.domain import Call, Ensemble, Merge, Plan, Run, Workflow

PLANNING = "plan"
"""Name of the step in which a plan is written."""
BOX, GAP = (150, 54), (46, 16)
"""Width and height of a box, and the room between boxes, in the drawing's units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One step."""

    name: str
    worker: str
    note: str
    state: str
    """`answered`, `failed`, `checked` or `planned`."""
    x: int
    y: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Boxes, and the lines between them as (x1, y1, x2, y2)."""

    boxes: tuple[Box, ...]
    lines: tuple[tuple[int, int, int, int], ...]
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    name: str
    worker: str
    note: str
    state: str


def lay_out(workflow: Workflow, run: Run | None) -> Graph:
    """The steps that were made, or that are planned where none was."""
    nodes = _list_made(run) if run is not None else _list_planned(workflow)
    if isinstance(workflow, Ensemble) and workflow.merge is not Merge.SYNTHESIZE and run is not None and run.answer:
        nodes.append(_Node(name=workflow.merge.value, worker=str(run.worker), note="is given", state="answered"))
    before = _find_before(workflow, nodes)
    column: list[int] = []
    for place in range(len(nodes)):
        column.append(1 + max((column[index] for index in before[place]), default=-1))
    used: dict[int, int] = defaultdict(int)
    spots = []
    for place in range(len(nodes)):
        spots.append((column[place] * (BOX[0] + GAP[0]), used[column[place]] * (BOX[1] + GAP[1])))
        used[column[place]] += 1
    boxes = tuple(
        Box(name=node.name, worker=node.worker, note=node.note, state=node.state, x=x, y=y)
        for node, (x, y) in zip(nodes, spots, strict=True)
    )
    lines = tuple(
        (spots[index][0] + BOX[0], spots[index][1] + BOX[1] // 2, spots[place][0], spots[place][1] + BOX[1] // 2)
        for place in range(len(nodes))
        for index in before[place]
    )
    width = max((x + BOX[0] for x, _ in spots), default=BOX[0])
    height = max((y + BOX[1] for _, y in spots), default=BOX[1])
    return Graph(boxes=boxes, lines=lines, width=width, height=height)


def _list_made(run: Run) -> list[_Node]:
    made = [(call.step, 0, _tell_call(call)) for call in run.calls]
    for found in run.findings:
        verdict = found.verdict
        node = _Node(
            name=f"check of {found.step}" if found.step else "check",
            worker=verdict.verifier,
            note=f"gives {found.author} {verdict.quality:.2f}",
            state="checked",
        )
        made.append((found.step, 1, node))
    for missing in run.unchecked:
        name = f"check of {missing.step}" if missing.step else "check"
        note = f"no verdict on {missing.author}"
        made.append((missing.step, 1, _Node(name=name, worker=missing.verifier, note=note, state="failed")))
    if any(step for step, _, _ in made):
        made.sort(key=lambda each: (each[0] != PLANNING, each[0], each[1]))
    return [node for _, _, node in made]


def _tell_call(call: Call) -> _Node:
    note = call.failure.value if call.failure is not None else f"{call.tokens} tokens"
    state = "failed" if call.failure is not None else "answered"
    return _Node(name=call.step or "call", worker=str(call.worker), note=note, state=state)


def _list_planned(workflow: Workflow) -> list[_Node]:
    if isinstance(workflow, Plan):
        return [
            _Node(name=str(number), worker=str(step.worker), note=step.op.value, state="planned")
            for number, step in enumerate(workflow.steps, start=1)
        ]
    name = type(workflow).__name__.lower()
    return [_Node(name=name, worker=str(workflow.worker), note="under way", state="planned")]


def _find_before(workflow: Workflow, nodes: Sequence[_Node]) -> list[list[int]]:
    """Which nodes each one saw: a plan and an ensemble say so; all others go one after the other."""
    if isinstance(workflow, Plan):
        return _find_plan(workflow, nodes)
    if isinstance(workflow, Ensemble):
        return _find_members(nodes)
    return [[place - 1] if place else [] for place in range(len(nodes))]


def _find_plan(workflow: Plan, nodes: Sequence[_Node]) -> list[list[int]]:
    latest: dict[int, int] = {}
    seen: list[list[int]] = []
    for place, node in enumerate(nodes):
        number = _read_number(node.name)
        if number is None or number > len(workflow.steps):
            seen.append([])
            continue
        access = [latest[index + 1] for index in workflow.steps[number - 1].access if index + 1 in latest]
        if not access and nodes[0].name == PLANNING:
            access = [0]
        seen.append([latest[number]] if number in latest else access)
        latest[number] = place
    return seen


def _find_members(nodes: Sequence[_Node]) -> list[list[int]]:
    """Place members side by side; what is no member sees all of them."""
    members = [place for place, node in enumerate(nodes) if node.name.isdigit()]
    return [[] if place in members else [member for member in members if member < place] for place in range(len(nodes))]


def _read_number(name: str) -> int | None:
    digits = "".join(character for character in name.partition(".")[0] if character.isdigit())
    return int(digits) if digits else None
