"""Cost of one decision (analyze, mask, estimate, decide): 20 workers, prompts of 300 tokens, one core.

    OMP_NUM_THREADS=1 python benchmarks/decide.py

Every figure is a ratio to the default predictor with the default encoder, in the same process: other predictors,
the sentence transformer where `make minilm` has fetched it, and the bare embedding.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np

from ripieno.analyze import Analyzer
from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.domain import Binding, Pool, Price, RoutingSetup, Task, Worker, WorkerId
from ripieno.domain.training import TrainingSet
from ripieno.embedded.families import generate_tasks
from ripieno.encoders import Encoder
from ripieno.encoders.onnx import OnnxEncoder
from ripieno.encoders.static import StaticEncoder
from ripieno.execute import Executor
from ripieno.orchestrator import Orchestrator, OrchestratorServices, RoutingState
from ripieno.route.predictors import Checkpoint, Estimator
from ripieno.route.router import Router

ROUNDS, WORKERS, TOKENS = 300, 20, 300
MINILM = Path(__file__).parents[1] / ".cache" / "minilm"
WORDS = ("please", "consider", "the", "following", "report", "about", "rivers", "prices", "weather", "engines", "with")


def make_pool() -> Pool:
    cards = (
        Worker(
            id=WorkerId(f"worker-{number}"),
            binding=Binding(provider="p", model="m"),
            price=Price(input_usd_per_mtok=0.1 * (1 + number), output_usd_per_mtok=0.4 * (1 + number)),
        )
        for number in range(WORKERS)
    )
    return Pool(tuple(cards))


def make_prompts() -> Iterator[str]:
    rng = np.random.default_rng(0)
    for number in range(ROUNDS):
        yield f"Question {number}: " + " ".join(rng.choice(np.array(WORDS), size=int(TOKENS * 0.8)).tolist())


async def make_outcomes(analyzer: Analyzer) -> TrainingSet:
    """Outcomes in which each worker has families that it is good at."""
    graded = generate_tasks(train=36, test=0, seed=1)
    features = await analyzer.analyze_many([task.task for task in graded])
    rng, shape = np.random.default_rng(0), (len(graded), WORKERS)
    skill = np.array([[(crc32(f"{task.family}{w}".encode()) % 100) / 100 for w in range(WORKERS)] for task in graded])
    return TrainingSet(
        features=tuple(features), workers=make_pool().ids, quality=(rng.random(shape) < skill).astype(float),
        counts=np.ones(shape), cost_usd=rng.random(shape), latency_s=rng.random(shape),
        groups=tuple(task.task.text for task in graded),
    )  # fmt: skip


async def measure(app: Installation, encoder: Encoder, kind: str) -> np.ndarray:
    """Seconds of each decision, shape (ROUNDS,)."""
    analyzer, pool = Analyzer(encoder), make_pool()
    predictor = Estimator(Checkpoint.fit(kind, await make_outcomes(analyzer), rng=np.random.default_rng(0)))
    setup = RoutingSetup(pool=pool, features=analyzer.schema.name)
    state = RoutingState(router=Router(setup=setup, predictor=predictor, policy=app.runtime.routing.router.policy))
    services = OrchestratorServices(
        analyzer=analyzer,
        executor=Executor(app.runtime.caller, app.runtime.grading),
        ledger=app.ledger,
        conditions=app.runtime.availability.conditions,
        clock=app.clock,
    )
    orchestrator = Orchestrator(services, state)
    spent = []
    for text in make_prompts():
        start = time.perf_counter()
        await orchestrator.decide(Task.from_text(text))
        spent.append(time.perf_counter() - start)
    return np.array(spent)


async def measure_embedding(encoder: Encoder) -> np.ndarray:
    spent = []
    for text in make_prompts():
        start = time.perf_counter()
        await encoder.encode([text])
        spent.append(time.perf_counter() - start)
    return np.array(spent)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        flags = {"home": folder, "ledger": {"url": f"sqlite:///{folder}/ledger.db"}}
        async with Installation(load_settings(flags=flags)) as app:
            static = StaticEncoder()
            base = await measure(app, static, "stack")
            rows = {"default (stack)": base, "embedding alone": await measure_embedding(static)}
            for kind, name in (("factors", "matrix factorisation"), ("knn", "kNN"), ("boosting", "boosted trees"),
                               ("heads", "heads")):  # fmt: skip
                rows[name] = await measure(app, static, kind)
            if any(MINILM.glob("**/*.onnx")):
                rows["default on MiniLM"] = await measure(app, OnnxEncoder(MINILM), "stack")
            else:
                print("MiniLM is not fetched: `make minilm`")
    print(f"{WORKERS} workers, {TOKENS} tokens, {ROUNDS} decisions each")
    print(f"default: p50 {np.quantile(base, 0.5) * 1e3:.2f} ms, p99 {np.quantile(base, 0.99) * 1e3:.2f} ms")
    for name, spent in rows.items():
        ratio = np.quantile(spent, 0.5) / np.quantile(base, 0.5)
        print(f"{name:22} {ratio:7.2f} x  (p50 {np.quantile(spent, 0.5) * 1e3:.2f} ms)")


if __name__ == "__main__":
    asyncio.run(main())
