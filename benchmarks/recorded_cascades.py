"""A cascade checked by the task's own tests, against the router that sees only the question, at the same price.

    python benchmarks/recorded_cascades.py ../shared/data/routerbench-3task --kind mbpp

Recorded outcomes are replayed: each stage costs what the model's answer cost, and the tests, which stand in the
prompt, pass exactly where the record says that the answer is right. Stages are chosen on the training split; the
router is trained by the installed command, and walks its own frontier to the cascade's mean price on held-out tasks.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ripieno.evaluate.bootstrap import Draws

RIPIENO = str(Path(sys.executable).with_name("ripieno"))
MOST_STAGES = 3
BUDGETS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Mean price of a task, as a share of the dearest model's."""


@dataclass(frozen=True)
class Recorded:
    """Outcomes of one split, shape (tasks, models)."""

    right: np.ndarray
    cost: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--kind", default="mbpp")
    asked = parser.parse_args()
    if not (asked.data / "outcomes.parquet").exists():
        sys.exit(f"no routing data in {asked.data}: nothing to measure")
    scores = train_router(asked.data.resolve())
    models, splits, names = load(asked.data, asked.kind)
    train, test = splits["train"], splits["test"]
    scored = np.array([[scores[name, model] for model in models] for name in names])
    draws = Draws(np.arange(len(test.right)), rng=np.random.default_rng(0))
    print(
        f"{len(test.right)} held-out tasks of {asked.kind}, {len(models)} models; prices in thousandths of a US dollar"
    )
    print("| cascade, chosen on training | its price | right | router at that price | cascade's lead [95 %] |")
    print("| --- | ---: | ---: | ---: | --- |")
    for share in BUDGETS:
        stages = choose(train, share * train.cost.mean(axis=0).max())
        right, cost = follow(test, stages)
        routed = walk(scored, train.cost.mean(axis=0), test, cost.mean())
        lead = draws.interval(right - routed)
        told = " > ".join(models[stage].split("/")[-1] for stage in stages)
        cells = (told, f"{1000 * cost.mean():.3f}", f"{right.mean():.3f}", f"{routed.mean():.3f}")
        print(f"| {' | '.join(cells)} | {lead.mean:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}] |")
    best = int(train.right.mean(axis=0).argmax())
    print(f"best single, {models[best]}: {test.right[:, best].mean():.3f} at {1000 * test.cost[:, best].mean():.3f}")
    print(f"oracle: {test.right.max(axis=1).mean():.3f}")


def train_router(data: Path) -> dict[tuple[str, str], float]:
    """Expected quality of each held-out (prompt, model), by the installed command."""
    with tempfile.TemporaryDirectory() as scratch:

        def run(*arguments: str) -> str:
            done = subprocess.run([RIPIENO, *arguments], cwd=scratch, capture_output=True, text=True, check=True)
            return done.stdout

        run("ledger", "import", str(data))
        made = json.loads(run("train", "--data", str(data), "--out", "made", "--json"))["checkpoint"]
        evaluate = ("evaluate", "--data", str(data), "--checkpoint", f"made/{made}", "--predictions", "p.parquet")
        run(*evaluate, "--json")
        rows = pq.read_table(Path(scratch) / "p.parquet").to_pylist()
    return {(row["prompt_id"], row["model_id"]): row["score"] for row in rows}


def load(data: Path, kind: str) -> tuple[list[str], dict[str, Recorded], list[str]]:
    """Models, outcomes of both splits, and the ids of held-out prompts."""
    prompts = [row for row in pq.read_table(data / "prompts.parquet").to_pylist() if row["task"] == kind]
    known = {(row["prompt_id"], row["model_id"]): row for row in pq.read_table(data / "outcomes.parquet").to_pylist()}
    models = sorted({model for _, model in known})
    splits = {}
    for split in ("train", "test"):
        rows = [[known[p["prompt_id"], model] for model in models] for p in prompts if p["split"] == split]
        splits[split] = Recorded(
            right=np.array([[float(cell["quality"]) for cell in row] for row in rows]),
            cost=np.array([[cell["cost_usd"] for cell in row] for row in rows]),
        )
    return models, splits, [p["prompt_id"] for p in prompts if p["split"] == "test"]


def follow(recorded: Recorded, stages: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Whether a cascade's answer is right, and its price: it ends with the first answer that passes."""
    right, cost = np.zeros(len(recorded.right)), np.zeros(len(recorded.right))
    for stage in stages:
        cost += np.where(right < 1.0, recorded.cost[:, stage], 0.0)
        right = np.maximum(right, (recorded.right[:, stage] >= 1.0).astype(float))
    return right, cost


def choose(train: Recorded, most: float) -> tuple[int, ...]:
    """The stages that are right most often on training tasks, at a mean price of at most `most`."""
    models = range(train.right.shape[1])
    best: tuple[float, float, tuple[int, ...]] = (-1.0, 0.0, (0,))
    for size in range(1, MOST_STAGES + 1):
        for stages in itertools.permutations(models, size):
            right, cost = follow(train, stages)
            if cost.mean() <= most:
                best = max(best, (right.mean(), -cost.mean(), stages))
    return best[2]


def walk(scored: np.ndarray, price: np.ndarray, test: Recorded, most: float) -> np.ndarray:
    """Whether the router is right on each task, where its dial is set so that it costs `most` on average.

    Between two settings it draws one of them by lot; that it is told the held-out mean price is in its favour.
    """
    rows = np.arange(len(scored))
    seen = []
    for weight in np.concatenate([[0.0], np.logspace(-2, 6, 400)]):
        picked = (scored - weight * price).argmax(axis=1)
        seen.append((test.cost[rows, picked].mean(), test.right[rows, picked].mean(), picked))
    best = max((point for point in seen if point[0] <= most), key=lambda point: point[1], default=None)
    found = np.zeros(len(rows)) if best is None else test.right[rows, best[2]]
    for cheap, dear in itertools.product(seen, seen):
        if cheap[0] <= most < dear[0]:
            share = (most - cheap[0]) / (dear[0] - cheap[0])
            mixed = (1.0 - share) * test.right[rows, cheap[2]] + share * test.right[rows, dear[2]]
            if mixed.mean() > found.mean():
                found = mixed
    return found


if __name__ == "__main__":
    main()
