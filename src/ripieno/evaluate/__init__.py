"""Benchmarks, baselines, intervals and plots."""

from ripieno.evaluate.bootstrap import Interval, bootstrap_mean
from ripieno.evaluate.report import Field, Line, Report, Table

__all__ = ["Field", "Interval", "Line", "Report", "Table", "bootstrap_mean"]
