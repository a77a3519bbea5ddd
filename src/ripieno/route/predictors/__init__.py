"""Predictors: Features and workers to Estimates."""

from ripieno.route.predictors.heads import HeadsPredictor
from ripieno.route.predictors.pair import KINDS as REGRESSORS
from ripieno.route.predictors.pair import PairPredictor
from ripieno.route.predictors.prior import PriorPredictor
from ripieno.route.predictors.trained import TrainedPredictor

KINDS = (*REGRESSORS, HeadsPredictor.kind)


def make_predictor(kind: str) -> TrainedPredictor:
    """An untrained predictor of one of `KINDS`."""
    return HeadsPredictor() if kind == HeadsPredictor.kind else PairPredictor(kind=kind)


__all__ = [
    "KINDS",
    "REGRESSORS",
    "HeadsPredictor",
    "PairPredictor",
    "PriorPredictor",
    "TrainedPredictor",
    "make_predictor",
]
