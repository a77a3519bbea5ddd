"""Ripieno: a learned model orchestrator. `__all__` lists the public interface."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.config import Settings, load_settings
    from ripieno.domain import (
        Answer,
        Budget,
        Decision,
        Message,
        Objective,
        Pool,
        Privacy,
        Run,
        Task,
        Worker,
    )
    from ripieno.domain.memory import NewItem, Scope
    from ripieno.errors import RipienoError

__all__ = [
    "Answer",
    "Budget",
    "Decision",
    "Installation",
    "Message",
    "NewItem",
    "Objective",
    "Pool",
    "Privacy",
    "RipienoError",
    "Run",
    "Scope",
    "Settings",
    "Task",
    "Worker",
    "load_settings",
]

_HOMES = (
    {"Installation": "ripieno.app", "RipienoError": "ripieno.errors"}
    | dict.fromkeys(("Settings", "load_settings"), "ripieno.config")
    | dict.fromkeys(("NewItem", "Scope"), "ripieno.domain.memory")
)


def __getattr__(name: str) -> object:
    """Load public names when they are asked for: importing the package stays free."""
    if name == "App":
        raise AttributeError("ripieno.App is called ripieno.Installation now; its pool is at installation.runtime.pool")
    if name not in __all__:
        raise AttributeError(f"module 'ripieno' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "ripieno.domain")), name)
