"""Conformance kits for plugin authors. Each check raises AssertionError, and names the rule that is broken."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ripieno.domain import Estimate, Features, Objective, Task, Worker, WorkerId
from ripieno.domain.training import TrainingSet
from ripieno.encoders import Encoder
from ripieno.errors import ProviderError
from ripieno.providers import Provider
from ripieno.route import Policy, Predictor
from ripieno.route.predictors import Learner
from ripieno.route.predictors.checkpoint import require_sound

_TEXTS = ("What is 2 + 2?", "Translate 'good morning' into French.", "", "word " * 20_000, "日本語のテキスト")


async def check_encoder(encoder: Encoder) -> None:
    """Check the vectors: stated size, length 1 or 0, in order, and independent of the batch."""
    texts = _TEXTS
    together = await encoder.encode(texts)
    assert together.shape == (len(texts), encoder.dimensions), f"shape {together.shape} is not (texts, dimensions)"
    assert np.isfinite(together).all(), "a vector is not finite"
    lengths = np.linalg.norm(together, axis=1)
    assert ((np.abs(lengths - 1) < 1e-3) | (lengths < 1e-6)).all(), f"lengths {lengths} are neither 1 nor 0"
    for index, text in enumerate(texts):
        alone = (await encoder.encode([text]))[0]
        assert np.allclose(alone, together[index], atol=1e-3), f"text {index} depends on its batch"
    assert encoder.name, "the encoder has no name"
    assert (await encoder.encode([])).shape == (0, encoder.dimensions), "no text must give no row"


def check_policy(policy: Policy) -> None:
    """Check that the order is the eligible set, the propensity is true, and equal seeds choose alike."""
    shown = make_features()
    estimates = [
        _estimate("cheap", quality=0.4, cost_usd=1e-6),
        _estimate("middle", quality=0.6, cost_usd=1e-4),
        _estimate("strong", quality=0.9, cost_usd=1e-2),
    ]
    objective = Objective()
    counts: dict[str, int] = {}
    stated: dict[str, float] = {}
    draws = 2000
    for seed in range(draws):
        choice = policy.decide(shown, estimates, objective=objective, rng=np.random.default_rng(seed))
        assert sorted(choice.order) == ["cheap", "middle", "strong"], f"order {choice.order} is not the eligible set"
        counts[choice.order[0]] = counts.get(choice.order[0], 0) + 1
        stated[choice.order[0]] = choice.propensity
    for worker, count in counts.items():
        slack = 4.0 * np.sqrt(stated[worker] * (1 - stated[worker]) / draws) + 1e-9
        met = count / draws
        assert abs(met - stated[worker]) <= slack, (
            f"{worker} starts {met:.3f} of the time, {stated[worker]:.3f} is stated"
        )
    first = policy.decide(shown, estimates, objective=objective, rng=np.random.default_rng(7))
    again = policy.decide(shown, estimates, objective=objective, rng=np.random.default_rng(7))
    assert first == again, "the same seed gives another choice"
    alone = policy.decide(shown, estimates[:1], objective=objective, rng=np.random.default_rng(0))
    assert alone.order == (WorkerId("cheap"),), "one eligible worker must be taken"
    assert alone.propensity == 1.0, "a choice without alternative has propensity 1"


def check_predictor(predictor: Predictor, workers: Sequence[Worker], *, features: Features | None = None) -> None:
    """Check that each worker gets one estimate, in order, which does not depend on the other workers."""
    shown = features or make_features()
    together = predictor.forecast(shown, workers)
    assert tuple(e.worker for e in together.estimates) == tuple(w.id for w in workers), (
        "estimates are not in the workers' order"
    )
    for worker, estimate in zip(workers, together.estimates, strict=True):
        alone = predictor.forecast(shown, [worker]).estimates
        assert alone == (estimate,), f"the estimate of {worker.id} depends on the others"
    assert predictor.version, "the predictor has no version"
    assert together.kind is None or together.kind, "a kind is a word, or None"
    advice = together.advice
    assert all(0.0 <= share <= 1.0 for share in advice.values()), f"advice {advice} holds what is no share"
    assert predictor.forecast(shown, []).estimates == (), "no worker must give no estimate"


def check_learner(make: Callable[[], Learner]) -> None:
    """Check shape and range of the predictions, in any batch, and after an untrained learner restores the arrays."""
    shown = make_training_data()
    learner = make()
    learner.fit(shown, rng=np.random.default_rng(0))
    z = learner.vectors(shown.features)
    assert z.ndim == 2, f"vectors have shape {z.shape}, not (tasks, width)"
    assert len(z) == len(shown), f"{len(z)} vectors are not one for each of {len(shown)} tasks"
    assert np.isfinite(z).all(), "a vector is not finite"
    found = learner.predict(z, shown.features)
    try:
        require_sound(found, (len(shown), len(shown.workers)))
    except ValueError as error:
        raise AssertionError(str(error)) from error
    alone = learner.predict(z[:1], shown.features[:1])
    assert np.allclose(alone.quality, found.quality[:1], atol=1e-9), "a prediction depends on its batch"
    arrays = learner.state()
    assert all(isinstance(value, np.ndarray) for value in arrays.values()), "a learned array is no numpy array"
    again = make()
    again.restore(shown.workers, {name: value.copy() for name, value in arrays.items()})
    assert np.allclose(
        again.predict(again.vectors(shown.features), shown.features).quality, found.quality, atol=1e-6
    ), "a restored learner predicts something else"


async def check_provider(provider: Provider, worker: Worker) -> None:
    """Check that an answer and its stream are equal, and that every failure is a ProviderError."""
    task = Task.from_text("What is 2 + 2?")
    try:
        answer = await provider.complete(worker, task)
        pieces = [piece async for piece in provider.stream(worker, task)]
        seen = await provider.check(worker)
    except ProviderError as error:
        raise AssertionError(f"a healthy worker failed: {error.message}") from error
    assert answer.text == "".join(piece.text for piece in pieces), "the stream says something else than the answer"
    assert any(piece.finish_reason for piece in pieces), "the stream ends without a finish reason"
    assert seen, "check must return a description"


def make_features() -> Features:
    """Make the features of a short question."""
    return Features(
        embedding=np.zeros(256, dtype=np.float32),
        terms=np.array([1, 5], dtype=np.int64),
        term_counts=np.array([0.7, 0.7], dtype=np.float32),
        shape=np.zeros(14, dtype=np.float32),
        tool_shape=np.zeros(28, dtype=np.float32),
        prompt_tokens=12,
        turns=1,
        code_blocks=0,
        images=0,
        tools=0,
    )


def _estimate(worker: str, *, quality: float, cost_usd: float) -> Estimate:
    return Estimate(worker=WorkerId(worker), quality=quality, quality_sd=0.05, cost_usd=cost_usd, latency_s=1.0)


def make_training_data() -> TrainingSet:
    """Make outcomes of forty tasks of two kinds. Each of two workers is right on one kind."""
    kinds = np.arange(40) % 2
    quality = np.stack([kinds, 1 - kinds], axis=1).astype(np.float64)
    cost = np.tile([1e-4, 1e-3], (40, 1))
    shown = make_features()
    embeddings = np.eye(256, dtype=np.float32)
    return TrainingSet(
        features=tuple(
            replace(shown, embedding=embeddings[kind], terms=np.array([kind, 2 + row]), kind=f"kind-{kind}")
            for row, kind in enumerate(kinds.tolist())
        ),
        workers=(WorkerId("cheap"), WorkerId("strong")),
        quality=quality,
        counts=np.ones_like(quality),
        cost_usd=cost,
        latency_s=100.0 * cost,
        groups=tuple(str(row) for row in range(40)),
    )
