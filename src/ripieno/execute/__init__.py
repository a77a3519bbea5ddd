"""Workflow to Run."""

from ripieno.execute.director import Director, Turn
from ripieno.execute.execution import Execution
from ripieno.execute.executor import Executor, has_steps
from ripieno.execute.journal import Journal, Journals, Unfinished

__all__ = ["Director", "Execution", "Executor", "Journal", "Journals", "Turn", "Unfinished", "has_steps"]
