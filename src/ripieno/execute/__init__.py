"""Workflow to Run."""

from ripieno.execute.executor import Execution, Executor

__all__ = ["Execution", "Executor"]
