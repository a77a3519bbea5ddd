"""Graph: the steps of a workflow as boxes in columns, each to the right of the steps that it saw."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ripieno.domain import Call, Ensemble, Merge, Plan, Run, Workflow

PLANNING = "plan"
"""Name of the step that writes a plan."""
BOX, GAP = (150, 54), (46, 16)
"""Width and height of a box and of the gap between boxes, in units of the drawing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One step."""

    name: str
    worker: str
    note: str
    state: str
    """`answered`, `failed`, `checked` or `planned`."""
    x: int = 0
    y: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Boxes, and the lines between them as (x1, y1, x2, y2)."""

    boxes: tuple[Box, ...]
    lines: tuple[tuple[int, int, int, int], ...]
    width: int
    height: int


def lay_out(workflow: Workflow, run: Run | None) -> Graph:
    """Lay out the steps of a run, or the planned steps if there is no run."""
    nodes = _list_made(run) if run is not None else _list_planned(workflow)
    if isinstance(workflow, Ensemble) and workflow.merge is not Merge.SYNTHESIZE and run is not None and run.answer:
        nodes.append(Box(name=workflow.merge.value, worker=str(run.worker), note="is given", state="answered"))
    before = _find_before(workflow, nodes)
    columns: list[int] = []
    used: dict[int, int] = defaultdict(int)
    spots = []
    for seen in before:
        column = 1 + max((columns[index] for index in seen), default=-1)
        columns.append(column)
        spots.append((column * (BOX[0] + GAP[0]), used[column] * (BOX[1] + GAP[1])))
        used[column] += 1
    boxes = tuple(replace(node, x=x, y=y) for node, (x, y) in zip(nodes, spots, strict=True))
    lines = tuple(
        (spots[index][0] + BOX[0], spots[index][1] + BOX[1] // 2, spots[place][0], spots[place][1] + BOX[1] // 2)
        for place in range(len(nodes))
        for index in before[place]
    )
    width = max((x + BOX[0] for x, _ in spots), default=BOX[0])
    height = max((y + BOX[1] for _, y in spots), default=BOX[1])
    return Graph(boxes=boxes, lines=lines, width=width, height=height)


def _list_made(run: Run) -> list[Box]:
    made = [(call.step, 0, _describe_call(call)) for call in run.calls]
    for found in run.findings:
        verdict = found.verdict
        node = Box(
            name=f"check of {found.step}" if found.step else "check",
            worker=verdict.verifier,
            note=f"gives {found.author} {verdict.quality:.2f}",
            state="checked",
        )
        made.append((found.step, 1, node))
    for missing in run.unchecked:
        name = f"check of {missing.step}" if missing.step else "check"
        note = f"no verdict on {missing.author}"
        made.append((missing.step, 1, Box(name=name, worker=missing.verifier, note=note, state="failed")))
    if any(step for step, _, _ in made):
        made.sort(key=lambda each: (each[0] != PLANNING, each[0], each[1]))
    return [node for _, _, node in made]


def _describe_call(call: Call) -> Box:
    note = call.failure.value if call.failure is not None else f"{call.tokens} tokens"
    state = "failed" if call.failure is not None else "answered"
    return Box(name=call.step or "call", worker=str(call.worker), note=note, state=state)


def _list_planned(workflow: Workflow) -> list[Box]:
    if isinstance(workflow, Plan):
        return [
            Box(name=str(number), worker=str(step.worker), note=step.op.value, state="planned")
            for number, step in enumerate(workflow.steps, start=1)
        ]
    name = type(workflow).__name__.lower()
    return [Box(name=name, worker=str(workflow.worker), note="running", state="planned")]


def _find_before(workflow: Workflow, nodes: Sequence[Box]) -> list[list[int]]:
    """List for each node the nodes that it saw. Only plans and ensembles have parallel steps."""
    if isinstance(workflow, Plan):
        return _find_plan(workflow, nodes)
    if isinstance(workflow, Ensemble):
        return _find_members(nodes)
    return [[place - 1] if place else [] for place in range(len(nodes))]


def _find_plan(workflow: Plan, nodes: Sequence[Box]) -> list[list[int]]:
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


def _find_members(nodes: Sequence[Box]) -> list[list[int]]:
    """Place members side by side; all other steps see every member."""
    members = [place for place, node in enumerate(nodes) if node.name.isdigit()]
    return [[] if place in members else [member for member in members if member < place] for place in range(len(nodes))]


def _read_number(name: str) -> int | None:
    digits = "".join(character for character in name.partition(".")[0] if character.isdigit())
    return int(digits) if digits else None
