"""Benchmarks, baselines, intervals and plots."""

from ripieno.evaluate.bootstrap import bootstrap_mean
from ripieno.evaluate.report import BenchmarkReport, Field, Line, Table

__all__ = ["BenchmarkReport", "Field", "Line", "Table", "bootstrap_mean"]
