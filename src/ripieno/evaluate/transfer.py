"""Transfer: the value of a router on a kind of task that it was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ripieno.domain import Features
from ripieno.domain.report import Interval, Report, number, text
from ripieno.domain.training import TrainingSet
from ripieno.errors import DataError
from ripieno.evaluate.benchmark import BEST_QUALITY, Benchmark, find_scales, prepare, routed_utility
from ripieno.evaluate.bootstrap import bootstrap_mean
from ripieno.evaluate.report import utilities
from ripieno.route.predictors import Checkpoint
from ripieno.tasks import RoutingData

LEAST_TASKS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLine:
    """Results of one left-out kind of task."""

    name: str
    tasks: int
    best_single: float
    """Utility of the worker that is best on all other kinds."""
    router: float
    gain: Interval


_COLUMNS = (
    text("name", "kind"), number("tasks"), number("best_single", "best single of the others", spec=".4f"),
    number("router", spec=".4f"), number("gain", "gain [95 %]", spec="+.4f"),
)  # fmt: skip


def tabulate_transfer(lines: Sequence[TransferLine], name: str) -> Report:
    """Lay out the results of leaving each kind out."""
    mean = sum(line.gain.mean for line in lines) / len(lines)
    title = f"{name}: each kind left out of the training in turn; {100 * mean:+.2f} points on average"
    return Report(title=title, columns=_COLUMNS, rows=lines)


def leave_dataset_out(
    data: RoutingData,
    features: Sequence[Features],
    *,
    kind: str = "stack",
    seed: int = 0,
) -> list[TransferLine]:
    """Train without one kind (or source, if there is only one kind), and test the router on it, for each in turn.

    Raises:
        DataError: there are not two kinds with enough tasks.
    """
    bench = prepare(data, features)
    labels = [prompt.kind for prompt in data.prompts]
    if len(set(labels)) < 2:
        labels = [prompt.source for prompt in data.prompts]
    train = np.array(labels)[data.split_rows("train")]
    test = np.array(labels)[bench.test_rows]
    names = [str(name) for name in np.unique(test) if (test == name).sum() >= LEAST_TASKS]
    names = [name for name in names if (train != name).sum() >= LEAST_TASKS]
    if len(names) < 2:
        raise DataError(f"fewer than two kinds have {LEAST_TASKS} held-out tasks", path=data.name, place="prompts")
    lines = []
    for name in names:
        known = bench.train.take(np.flatnonzero(train != name))
        apart = _cut(bench, known, np.flatnonzero(test == name))
        checkpoint = Checkpoint.fit(kind, known, rng=np.random.default_rng(seed))
        routed = routed_utility(apart, checkpoint, BEST_QUALITY)
        best = utilities(apart.held_out, BEST_QUALITY, apart.scales)[:, known.best_single()]
        gain = bootstrap_mean(routed - best, rng=np.random.default_rng(seed), groups=apart.held_out.groups)
        line = TransferLine(
            name=name, tasks=len(routed), best_single=float(best.mean()), router=float(routed.mean()), gain=gain
        )
        lines.append(line)
    return lines


def _cut(bench: Benchmark, known: TrainingSet, rows: np.ndarray) -> Benchmark:
    held_out = replace(
        bench.held_out,
        quality=bench.held_out.quality[rows],
        cost_usd=bench.held_out.cost_usd[rows],
        latency_s=bench.held_out.latency_s[rows],
        kinds=tuple(bench.held_out.kinds[row] for row in rows),
        groups=bench.held_out.groups[rows],
        halves=None,
    )
    return replace(
        bench,
        train=known,
        test=bench.test.take(rows),
        held_out=held_out,
        test_rows=bench.test_rows[rows],
        scales=find_scales(known),
    )
