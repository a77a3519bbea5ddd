"""Import and export of routing data."""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import numpy as np

from ripieno.domain import Answer, Call, Decided, Entry, Executed, Judged, Origin, Placement, Run, Task, Usage, Verdict
from ripieno.domain.worker import WorkerId
from ripieno.errors import NotFound
from ripieno.ledger.found import Measured
from ripieno.ledger.ledger import Ledger
from ripieno.tasks import Model, Prompt, RoutingData

BATCH = 5000
"""Outcomes per transaction, which bounds the memory and the wait of other writers."""
IMPORTED = "imported"
"""Version of every imported worker."""


def import_data(ledger: Ledger, data: RoutingData, *, on_progress: Callable[[int], None] | None = None) -> int:
    """Record every outcome of a data set, in batches. An interrupted import can be repeated.

    Args:
        ledger: the ledger.
        data: a whole set, which the caller has checked.
        on_progress: called with the number of processed outcomes.

    Returns:
        Number of new outcomes; 0 for a second import of the same set.
    """
    ledger.campaigns.save_catalog(data.name, {model.id: _dump_model(model) for model in data.models})
    new, done, entries = 0, 0, _make_entries(data)
    while batch := list(islice(entries, 2 * BATCH)):
        new += ledger.append_now(batch) // 2
        done += len(batch) // 2
        if on_progress is not None:
            on_progress(done)
    return new


def export_data(ledger: Ledger, dataset: str, *, versions: Mapping[str, str] | None = None) -> RoutingData:
    """Gather the outcomes of one campaign or data set, or of all traffic.

    Args:
        ledger: the ledger.
        dataset: name of the set; `traffic` for all traffic.
        versions: if given, only outcomes of these versions of the workers count. Imported outcomes always count.

    Raises:
        NotFound: the ledger holds no judged run of that name.
    """
    wanted = None if dataset == "traffic" else dataset
    rows = [m for m in ledger.outcomes.measured(dataset=wanted) if wanted is not None or m.placement is None]
    if versions is not None:
        rows = [row for row in rows if row.version in (versions.get(row.outcome.worker), IMPORTED)]
    if not rows:
        known = ", ".join(sorted(ledger.campaigns.datasets())) or "none"
        raise NotFound(f"the ledger holds no judged run of {dataset!r}", hint=f"data sets here: {known}")
    kinds = _inferred_kinds(ledger) if wanted is None else {}
    bodies = ledger.outcomes.tasks(row.outcome.task for row in rows)
    names = [_item(row) for row in rows]
    prompts: dict[str, Prompt] = {}
    for name, row in zip(names, rows, strict=True):
        if name not in prompts:
            kind = kinds.get(row.decision or "")
            prompts[name] = _make_prompt(name, row, bodies[row.outcome.task], dataset, kind=kind)
    prompt_row = {name: index for index, name in enumerate(prompts)}
    cards = ledger.campaigns.load_catalog(dataset)
    models = tuple(
        Model(**json.loads(cards[worker])) if worker in cards else Model(id=worker)
        for worker in sorted({row.outcome.worker for row in rows})
    )
    model_row = {model.id: index for index, model in enumerate(models)}
    return RoutingData(
        name=dataset,
        prompts=tuple(prompts.values()),
        models=models,
        prompt_index=np.array([prompt_row[name] for name in names], dtype=np.int64),
        model_index=np.array([model_row[row.outcome.worker] for row in rows], dtype=np.int64),
        quality=np.array([row.outcome.quality for row in rows], dtype=np.float64),
        cost_usd=_column([row.outcome.cost_usd for row in rows]),
        latency_s=_column([row.outcome.latency_s for row in rows]),
        input_tokens=_column([row.outcome.input_tokens for row in rows]),
        output_tokens=_column([row.outcome.output_tokens for row in rows]),
    )


def _make_entries(data: RoutingData) -> Iterator[Entry]:
    repeats = _count_repeats(data)
    brought: dict[int, str] = {}
    for index in range(len(data.quality)):
        row, repeat = int(data.prompt_index[index]), int(repeats[index])
        prompt, model = data.prompts[row], data.models[int(data.model_index[index])]
        task = prompt.task if row not in brought else None
        if task is not None:
            brought[row] = task.digest
        run_id = f"import/{data.name}/{prompt.id}/{model.id}/{repeat}"
        call = Call(
            worker=WorkerId(model.id),
            worker_version=IMPORTED,
            usage=Usage(input_tokens=_whole(data.input_tokens[index]), output_tokens=_whole(data.output_tokens[index])),
            cost_usd=_known(data.cost_usd[index]),
            latency_s=_known(data.latency_s[index]),
        )
        run = Run(
            id=run_id,
            task=brought[row],
            origin=Origin.IMPORT,
            calls=(call,),
            answer=Answer(text="", recorded_quality=float(data.quality[index])),
            placement=Placement(dataset=data.name, item=prompt.id, split=prompt.split, repeat=repeat),
        )
        yield Executed(run=run, task=task)
        yield Judged(run=run_id, verdict=Verdict(verifier="recorded", quality=float(data.quality[index])))


def _count_repeats(data: RoutingData) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the number of earlier outcomes of the same pair, shape (k,)."""
    pairs = data.prompt_index * len(data.models) + data.model_index
    order = np.argsort(pairs, kind="stable")
    sorted_pairs = pairs[order]
    is_first = np.r_[True, sorted_pairs[1:] != sorted_pairs[:-1]]
    places = np.arange(len(pairs))
    repeats = np.empty(len(pairs), dtype=np.int64)
    repeats[order] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return repeats


def _item(row: Measured) -> str:
    return row.placement.item if row.placement else row.outcome.task[:16]


def _inferred_kinds(ledger: Ledger) -> dict[str, str]:
    """Return the kind of the task of each decision that has one, stated or inferred."""
    decided = (stored.entry for stored in ledger.read(kinds=("decided",)))
    found = ((entry.decision.id, entry.decision.kind) for entry in decided if isinstance(entry, Decided))
    return {decision: kind for decision, kind in found if kind is not None}


def _make_prompt(name: str, row: Measured, task: Task, dataset: str, *, kind: str | None) -> Prompt:
    text = task.text if len(task.messages) == 1 else "\n\n".join(f"{m.role}: {m.text}" for m in task.messages)
    split = row.placement.split if row.placement else "train"
    group = row.placement.group if row.placement else ""
    return Prompt(
        id=name, text=text, kind=task.kind or kind or "task", source=dataset, split=split, group=group, tools=task.tools
    )


def _dump_model(model: Model) -> str:
    return json.dumps({name: getattr(model, name) for name in Model.__dataclass_fields__})


def _column(values: list[float | None] | list[int | None]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _whole(value: float) -> int | None:
    return None if np.isnan(value) else int(value)
