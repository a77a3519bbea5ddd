"""Folding outcomes in: alike in any batches, equal to the plain form, and without a trace on the state before."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import anyio
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.learning.test_predictors import make_world

from ripieno.domain import Binding, Features, Worker, WorkerId
from ripieno.route.predictors import Checkpoint, Estimator, Observation, OnlineState
from ripieno.route.predictors.belief import EDGE, to_logit
from ripieno.route.predictors.drift import DriftWatch
from ripieno.route.predictors.online import EPOCH, FORGETTING

NAMES = ("chef", "coder", "even", "coder-next")
SEEN = st.tuples(st.integers(0, 39), st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0]), st.booleans())


@cache
def prepare() -> tuple[Checkpoint, list[Worker]]:
    """A checkpoint of three workers, and a fourth that it does not know."""
    checkpoint = Checkpoint.fit("ridge", anyio.run(make_world, 1), rng=np.random.default_rng(0))
    return checkpoint, [Worker(id=WorkerId(name), binding=Binding(provider="p", model="m")) for name in NAMES]


@cache
def fresh() -> tuple[Features, ...]:
    return anyio.run(make_world, 9, 40).features


def observe(seen: Sequence[tuple[int, int, float, bool]]) -> list[Observation]:
    _, workers = prepare()
    return [
        Observation(
            features=fresh()[row],
            worker=workers[worker],
            quality=quality,
            cost_usd=0.01 if is_timed else None,
            latency_s=2.0 if is_timed else None,
            first_token_s=0.5 if is_timed and row % 2 else None,
        )
        for row, worker, quality, is_timed in seen
    ]


def fold_plainly(seen: Sequence[Observation]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each worker's mean and covariance by the textbook: precisions are added, then inverted."""
    checkpoint, _ = prepare()
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    watch = DriftWatch()
    for each in seen:
        z = checkpoint.vectors([each.features])
        g = checkpoint.groups.weigh(z)[0]
        quality = checkpoint.predict([each.features]).quality[0]
        column = checkpoint.columns.get(each.worker.id)
        expected = quality[column] if column is not None else checkpoint.weigh_similar(each.worker) @ quality
        prior = checkpoint.prior_of(each.worker.id)
        mean, covariance = found.get(each.worker.id, (prior.mean, prior.covariance))
        if watch.see(each.worker.id, int(g.argmax()), expected=float(expected), outcome=each.quality) is not None:
            covariance = covariance + checkpoint.newcomer.covariance
        covariance = covariance + FORGETTING * prior.covariance
        p = 1.0 / (1.0 + np.exp(-(to_logit(np.array(expected)) + g @ mean)))
        information = max(p * (1.0 - p), EDGE * (1.0 - EDGE))
        after = np.linalg.inv(np.linalg.inv(covariance) + information * np.outer(g, g))
        found[each.worker.id] = mean + after @ g * (each.quality - p), after
    return found


@settings(max_examples=25, deadline=None)
@given(seen=st.lists(SEEN, min_size=1, max_size=40), cuts=st.lists(st.integers(0, 40), max_size=3))
def test_outcomes_in_any_batches_equal_the_plain_form(
    seen: list[tuple[int, int, float, bool]], cuts: list[int]
) -> None:
    checkpoint, workers = prepare()
    observations = observe(seen)
    whole, _ = Estimator(checkpoint).fold(observations, until=len(seen))
    parts = Estimator(checkpoint)
    edges = [0, *sorted(cut for cut in cuts if cut < len(seen)), len(seen)]
    for start, end in pairwise(edges):
        parts, _ = parts.fold(observations[start:end], until=end)
    for row in (0, 7):
        assert whole.forecast(observe([(row, 0, 0.0, False)])[0].features, workers).estimates == (
            parts.forecast(observe([(row, 0, 0.0, False)])[0].features, workers).estimates
        ), "to the last bit"
    assert (whole.version, parts.version) == (f"{checkpoint.version}+{len(seen)}",) * 2
    for name, (mean, covariance) in fold_plainly(observations).items():
        belief = whole.belief_of(WorkerId(name))
        np.testing.assert_allclose(belief.mean, mean, atol=1e-9)  # inverses of 3x3 matrices of condition 1e3
        np.testing.assert_allclose(belief.covariance, covariance, atol=1e-9)


def test_a_state_never_changes_and_can_be_folded_twice() -> None:
    checkpoint, workers = prepare()
    code = [row for row, features in enumerate(fresh()) if features.kind == "code"]
    broken = observe([(code[place % len(code)], 1, 0.0, True) for place in range(120)])
    first, _ = OnlineState().fold(broken[:20], checkpoint, until=20)
    kept = Estimator(checkpoint, first).forecast(broken[0].features, workers).estimates
    again = [first.fold(broken[20:], checkpoint, until=120) for _ in range(2)]
    assert Estimator(checkpoint, first).forecast(broken[0].features, workers).estimates == kept
    assert (first.folded, first.watermark) == (20, 20)
    one, two = (Estimator(checkpoint, state).forecast(broken[0].features, workers).estimates for state, _ in again)
    assert one == two
    assert again[0][1] == again[1][1], "the detectors of the first try are not those of the second"
    assert again[0][1] == ("coder answers worse than it did",)


def test_a_state_without_outcomes_only_moves_its_watermark() -> None:
    checkpoint, _ = prepare()
    state, notices = OnlineState(watermark=3).fold([], checkpoint, until=9)
    assert (state.watermark, state.folded, notices) == (9, 0, ())
    assert Estimator(checkpoint, state).version == checkpoint.version
    assert (state.to_epoch, state.is_between_epochs) == (EPOCH, False)
    assert OnlineState(folded=EPOCH).is_between_epochs
    assert OnlineState(folded=EPOCH + 1).to_epoch == EPOCH - 1
