"""Task to Plan: the writers of workflows, and the one grammar for plans."""

from ripieno.conductor.base import Brief, Conductor, Directors, Roster, WrittenPlan
from ripieno.conductor.decompose import Decomposer
from ripieno.conductor.grammar import format_plan, make_schema, parse_json, parse_text
from ripieno.conductor.planner import Planner
from ripieno.conductor.prompted import PromptedConductor, make_prompt

__all__ = [
    "Brief",
    "Conductor",
    "Decomposer",
    "Directors",
    "Planner",
    "PromptedConductor",
    "Roster",
    "WrittenPlan",
    "format_plan",
    "make_prompt",
    "make_schema",
    "parse_json",
    "parse_text",
]
