"""Workflow to Run."""

from ripieno.execute.execution import Execution
from ripieno.execute.executor import Executor, has_steps
from ripieno.execute.journal import Journal, Journals, Unfinished

__all__ = ["Execution", "Executor", "Journal", "Journals", "Unfinished", "has_steps"]
