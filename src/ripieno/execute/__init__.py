"""Workflow to Run."""

from ripieno.execute.budget import RunBudget
from ripieno.execute.director import Director, Turn
from ripieno.execute.execution import Answered, CallRecorder, Ended, Failed, Started, Suspended, find_solo
from ripieno.execute.executor import Executor
from ripieno.execute.journal import Journal, Journals, Unfinished

__all__ = [
    "Answered",
    "CallRecorder",
    "Director",
    "Ended",
    "Executor",
    "Failed",
    "Journal",
    "Journals",
    "RunBudget",
    "Started",
    "Suspended",
    "Turn",
    "Unfinished",
    "find_solo",
]
