"""Workflow to Run."""

from ripieno.execute.execution import Execution
from ripieno.execute.executor import Executor, has_steps
from ripieno.execute.journal import Journal, Journals, Unfinished
from ripieno.execute.plans import can_do, check_plan

__all__ = ["Execution", "Executor", "Journal", "Journals", "Unfinished", "can_do", "check_plan", "has_steps"]
