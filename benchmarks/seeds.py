"""The two sets this project descends from, by cross-validation grouped by prompt: QoS of a tutorial's profiling rows,
and the repeated tasks of a first orchestrator.

    python benchmarks/seeds.py ../shared/data
"""

import asyncio
import sys
from pathlib import Path

import numpy as np

from ripieno.analyze import Analyzer
from ripieno.domain import Features, Objective
from ripieno.domain.training import TrainingSet
from ripieno.encoders.static import StaticEncoder
from ripieno.evaluate.benchmark import BEST_QUALITY, expect
from ripieno.learn import analyze_prompts
from ripieno.route.choose import DecisionRule, choose
from ripieno.route.predictors import Checkpoint
from ripieno.route.predictors.pair import draw_folds
from ripieno.route.utility import Scales, score_outcomes
from ripieno.tasks import RoutingData, make_training_set, read_folder, split_repeats

KINDS, SEEDS = ("stack", "ridge", "knn", "boosting"), range(5)


def load(folder: Path) -> tuple[RoutingData, list[Features]]:
    data = read_folder(folder)
    return data, asyncio.run(analyze_prompts(Analyzer(StaticEncoder()), data))


def take(kind: str, known: TrainingSet, fresh: TrainingSet, stated: np.ndarray | None, *, seed: int) -> np.ndarray:
    """Column that the served rule takes on each fresh task; with criticalities the utility is QoS."""
    predictor = Checkpoint.fit(kind, known, rng=np.random.default_rng(seed))
    rule = DecisionRule(margin=predictor.margin)
    if stated is None:
        return choose(expect(predictor, fresh.features, fresh.workers), BEST_QUALITY, rule).leader
    objectives = [
        Objective(preset="qos", mission_criticality=mission, time_criticality=time) for mission, time in stated.tolist()
    ]
    tasks = zip(fresh.features, objectives, strict=True)
    return np.array([choose(expect(predictor, [task], fresh.workers), each, rule).leader[0] for task, each in tasks])


def qos(quality: np.ndarray, latency_s: np.ndarray, stated: np.ndarray) -> np.ndarray:
    """The tutorial's utility of each pair under each task's own criticalities, shape (n, m)."""
    rows = [
        score_outcomes(
            quality[row],
            np.zeros(quality.shape[1]),
            latency_s[row],
            Objective(preset="qos", mission_criticality=mission, time_criticality=time),
            Scales(),
        )
        for row, (mission, time) in enumerate(stated.tolist())
    ]
    return np.stack(rows)


def show_qos(folder: Path) -> None:
    data, features = load(folder)
    whole = make_training_set(data, features, np.arange(len(features)))
    stated = np.array([(p.mission_criticality, p.time_criticality) for p in data.prompts], dtype=float)
    worth = qos(whole.quality, whole.latency_s, stated)
    best, oracle = worth.mean(axis=0).max(), worth.max(axis=1).mean()
    print(f"{data.name}: {len(whole)} prompts, QoS of the best fixed model {best:.3f}, of the oracle {oracle:.3f}")
    for kind in KINDS:
        earned, static = [], []
        for seed in SEEDS:
            for train, test in draw_folds(whole.groups, rng=np.random.default_rng(seed)):
                taken = take(kind, whole.take(train), whole.take(test), stated[test], seed=seed)
                earned.append(worth[test, taken].mean())
                static.append(worth[test, int(worth[train].mean(axis=0).argmax())].mean())
        mean, fixed = float(np.mean(earned)), float(np.mean(static))
        print(f"  {kind:9} {mean:.3f}, best fixed of the other folds {fixed:.3f}, "
              f"{(mean - fixed) / (oracle - fixed):+.0%} of the way to the oracle")  # fmt: skip


def show_headroom(folder: Path) -> None:
    data, features = load(folder)
    halves = split_repeats(data)
    assert halves is not None
    rows = np.flatnonzero(~np.isnan(halves[0]).any(axis=1) & ~np.isnan(halves[1]).any(axis=1))
    whole = make_training_set(data, [features[row] for row in rows], rows)
    even, odd = (half[rows] for half in halves)
    best = whole.quality.mean(axis=0).max()
    crossed = [b[np.arange(len(rows)), a.argmax(axis=1)].mean() for a, b in ((even, odd), (odd, even))]
    oracle = float(np.mean(crossed))
    print(f"{data.name}: {len(rows)} tasks with repeats, best single {best:.3f}, cross-fitted oracle {oracle:.3f}")
    for kind in KINDS:
        earned, static = [], []
        for seed in SEEDS:
            for train, test in draw_folds(whole.groups, rng=np.random.default_rng(seed)):
                taken = take(kind, whole.take(train), whole.take(test), None, seed=seed)
                earned.append(whole.quality[test, taken].mean())
                static.append(whole.quality[test, whole.take(train).best_single()].mean())
        mean, fixed = float(np.mean(earned)), float(np.mean(static))
        print(f"  {kind:9} {mean:.3f}, best single of the other folds {fixed:.3f}, "
              f"{(mean - fixed) / (oracle - fixed):+.0%} of the headroom")  # fmt: skip


if __name__ == "__main__":
    root = Path(sys.argv[1])
    show_qos(root / "seed-qos")
    show_headroom(root / "seed-mempool")
