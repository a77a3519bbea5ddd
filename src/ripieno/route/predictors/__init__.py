"""Predictors: Features and workers to Estimates."""

from ripieno.route.predictors.checkpoint import KINDS, Checkpoint, make_learner
from ripieno.route.predictors.estimator import Estimator
from ripieno.route.predictors.learner import FitReport, Forecast, Learner, Predictions
from ripieno.route.predictors.online import Observation, OnlineState
from ripieno.route.predictors.pair import KINDS as REGRESSORS
from ripieno.route.predictors.prior import PriorPredictor

__all__ = [
    "KINDS",
    "REGRESSORS",
    "Checkpoint",
    "Estimator",
    "FitReport",
    "Forecast",
    "Learner",
    "Observation",
    "OnlineState",
    "Predictions",
    "PriorPredictor",
    "make_learner",
]
