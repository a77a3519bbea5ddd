"""Predictors: Features and workers to Estimates."""

from ripieno.route.predictors.pair import KINDS, PairPredictor
from ripieno.route.predictors.prior import PriorPredictor

__all__ = ["KINDS", "PairPredictor", "PriorPredictor"]
