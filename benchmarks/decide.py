"""Cost of one decision, against the time of embedding the same text alone, in one process and one run.

python benchmarks/decide.py
"""

import asyncio
import tempfile
import time

import numpy as np

from ripieno.app import App
from ripieno.config import load_settings
from ripieno.domain import Task
from ripieno.domain.training import TrainingSet
from ripieno.embedded.families import generate_tasks
from ripieno.encoders.static import StaticEncoder
from ripieno.route.predictors import PairPredictor
from ripieno.route.router import Router

ROUNDS = 400


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        flags = {"home": folder, "ledger": {"url": f"sqlite:///{folder}/ledger.db"}}
        async with App(load_settings(flags=flags)) as app:
            tasks = [graded.task for graded in generate_tasks(train=36, test=0, seed=1)]
            features = await app.analyzer.analyze_many(tasks)
            rng = np.random.default_rng(0)
            shape = (len(tasks), len(app.pool))
            outcomes = TrainingSet(
                features=tuple(features), workers=app.pool.ids, quality=(rng.random(shape) < 0.3).astype(float),
                counts=np.ones(shape), cost_usd=rng.random(shape), latency_s=rng.random(shape),
                groups=tuple(task.text for task in tasks),
            )  # fmt: skip
            predictor = PairPredictor()
            predictor.fit(outcomes, rng=rng)
            brain = app.brain()
            router = Router(predictor=predictor, policy=brain.router.policy, clock=app.clock)
            trained = type(brain)(pool=brain.pool, router=router)
            encoder = StaticEncoder()
            decide, embed = [], []
            for index in range(ROUNDS):
                text = f"Please work out number {index}: how many days lie between March 4, 2021 and May 9, 2022?"
                start = time.perf_counter()
                await encoder.encode([text])
                embed.append(time.perf_counter() - start)
                start = time.perf_counter()
                await app.orchestrator.decide(Task.from_text(text), brain=trained)
                decide.append(time.perf_counter() - start)
    p50, p99, base = np.quantile(decide, 0.5), np.quantile(decide, 0.99), np.quantile(embed, 0.5)
    print(f"decision p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms")
    print(f"{p50 / base:.1f} x embedding the same text alone ({base * 1e6:.0f} us)")


if __name__ == "__main__":
    asyncio.run(main())
