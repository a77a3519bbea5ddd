"""Learning from traffic on real outcomes: from 300 measured rows, one chosen worker's outcome a request.

    OMP_NUM_THREADS=1 python benchmarks/online.py ../shared/data/routerdc-7x7b

Printed are true qualities on held-out prompts: the best single worker, the router of the 300 rows, the same after 2,000
requests; then, after the strongest worker has fallen to 0.3 of its quality and 1,500 more requests, the router that did
not learn, the one that did, the best single worker of the changed pool, and a router trained anew on 2,000 full rows.
"""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from ripieno.analyze import Analyzer
from ripieno.domain import Binding, Objective, Worker
from ripieno.domain.training import TrainingSet, column_means
from ripieno.encoders.static import StaticEncoder
from ripieno.learn import analyze_prompts
from ripieno.route import UtilityPolicy
from ripieno.route.choose import DecisionRule
from ripieno.route.predictors import Checkpoint, Estimator, Observation
from ripieno.tasks import make_training_set, read_folder

SEEDS, WARM, REQUESTS, AFTER, JUDGED, FALL = range(5), 300, 2000, 1500, 1500, 0.3
BEST = Objective(preference=1.0, preset="best", mission_criticality=0, time_criticality=0)


def fit(data: TrainingSet, seed: int) -> Estimator:
    return Estimator(Checkpoint.fit("stack", data, rng=np.random.default_rng(seed)))


def take(estimator: Estimator, data: TrainingSet, row: int, rng: np.random.Generator, *, explores: float) -> int:
    workers = [Worker(id=worker, binding=Binding(provider="p", model="m")) for worker in data.workers]
    policy = UtilityPolicy(DecisionRule(exploration=explores, margin=estimator.checkpoint.margin))
    estimates = estimator.forecast(data.features[row], workers).estimates
    choice = policy.decide(data.features[row], estimates, objective=BEST, rng=rng)
    return data.workers.index(choice.order[0])


def serve(estimator: Estimator, data: TrainingSet, rows: np.ndarray, quality: np.ndarray, seed: int) -> Estimator:
    rng = np.random.default_rng(seed)
    for row in rows.tolist():
        taken = take(estimator, data, row, rng, explores=0.02)
        worker = Worker(id=data.workers[taken], binding=Binding(provider="p", model="m"))
        seen = Observation(features=data.features[row], worker=worker, quality=float(quality[row, taken]))
        estimator, _ = estimator.fold([seen], until=row)
    return estimator


def judge(estimator: Estimator, data: TrainingSet, quality: np.ndarray) -> float:
    rows = np.random.default_rng(0).permutation(len(data))[:JUDGED].tolist()
    rng = np.random.default_rng(0)
    return float(np.mean([quality[row, take(estimator, data, row, rng, explores=0.0)] for row in rows]))


def main(folder: Path) -> None:
    data = read_folder(folder)
    features = asyncio.run(analyze_prompts(Analyzer(StaticEncoder()), data))
    sets = []
    for split in ("train", "test"):
        rows = data.split_rows(split)
        found = make_training_set(data, [features[row] for row in rows], rows)
        sets.append(found.take(np.flatnonzero(~np.isnan(found.quality).any(axis=1))))
    known, fresh = sets
    strongest = int(column_means(known.quality).argmax())
    fallen, fallen_fresh = known.quality.copy(), fresh.quality.copy()
    fallen[:, strongest] *= FALL
    fallen_fresh[:, strongest] *= FALL
    table = []
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(known))
        warm = known.take(order[:WARM])
        router, still = fit(warm, seed), fit(warm, seed)
        first, then = order[WARM : WARM + REQUESTS], order[WARM + REQUESTS : WARM + REQUESTS + AFTER]
        single, cold = float(fresh.quality[:, warm.best_single()].mean()), judge(router, fresh, fresh.quality)
        router = serve(router, known, first, known.quality, seed)
        learned, false_alarms = judge(router, fresh, fresh.quality), len(router.state.drifts)
        router = serve(router, known, then, fallen, seed)
        anew = fit(replace(known, quality=fallen).take(first), seed)
        table.append(
            (single, cold, learned, judge(still, fresh, fallen_fresh), judge(router, fresh, fallen_fresh),
             float(column_means(fallen_fresh).max()), judge(anew, fresh, fallen_fresh))
        )  # fmt: skip
        print(f"seed {seed}: {' '.join(f'{value:.4f}' for value in table[-1])}; "
              f"{false_alarms} false alarms, then {router.state.drifts[false_alarms:]}", flush=True)  # fmt: skip
    single, cold, learned, fixed, recovered, best, anew = np.mean(table, axis=0).tolist()
    print(f"best single {single:.4f}, router of {WARM} rows {cold:.4f}, after {REQUESTS} requests {learned:.4f}")
    print(f"{100 * (learned - single):+.2f} points on the best single, {100 * (learned - cold):+.2f} on the router")
    print(f"after the fall: not learning {fixed:.4f}, learning {recovered:.4f}; best single {best:.4f}")
    print(f"trained anew on {REQUESTS} full rows {anew:.4f}")
    print(f"recovered: {(recovered - fixed) / (learned - fixed):.0%} of the fall, "
          f"{(recovered - fixed) / (anew - fixed):.0%} of the way to the router trained anew")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
