"""The table of proof of a conductor: rows, verdict and layout."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ripieno.domain.report import Interval, Report, number, text
from ripieno.workbench.audit import LEAST_HEADROOM

GATED = "conductor behind its gate"
SINGLE, ONE_STEP, TRAINED, CEILING = "best single", "one-step router", "conductor", "search ceiling"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrantRow:
    """One entrant, over all seeds."""

    name: str
    right: Interval
    cost: float
    """In thousandths of a US dollar per task."""
    reward: Interval
    steps: float
    lead_right: Interval | None
    """Lead of the conductor over this entrant, paired."""
    lead_reward: Interval | None
    parsed: float
    """Share of valid plans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRow:
    """Accuracy in one family of tasks, with and without plans."""

    name: str
    one_step: float
    """Share right."""
    conductor: float
    ceiling: float

    @property
    def is_flat(self) -> bool:
        """Return whether even the best plans add too little to single steps."""
        return self.ceiling - self.one_step < LEAST_HEADROOM


_ENTRANTS = (
    text("name", "entrant"), number("right.mean", "right", spec=".3f"),
    number("cost", unit="0.001 USD", spec=".2f"), number("reward.mean", "reward", spec=".3f"),
    number("steps", spec=".2f"), number("lead_right", "lead, right", spec="+.3f"),
    number("lead_reward", "lead, reward", spec="+.3f"),
)  # fmt: skip
_FAMILIES = (
    text("name", "family"), number("one_step", "one step", spec=".3f"), number("conductor", spec=".3f"),
    number("ceiling", "search", spec=".3f"), text("is_flat", "flat"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ConductorReport:
    """The table, and further results."""

    rows: tuple[EntrantRow, ...]
    pools: int
    tasks: int
    seeds: int
    shares: Mapping[str, float]
    """Share of the conductor's calls that each kind of worker gets. It shows a collapse."""
    steps: Mapping[int, float]
    """Share of its plans by number of steps."""
    families: tuple[FamilyRow, ...]
    flat_lead: Interval | None
    """Lead in reward over the one-step router in flat families; None if there is no such family."""
    gated_flat_lead: Interval | None
    """The same lead behind its gate."""

    def find(self, name: str) -> EntrantRow:
        """Find a row by its name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def headroom(self) -> float:
        """Return the accuracy that the search ceiling adds to the one-step router."""
        return self.find(CEILING).right.mean - self.find(ONE_STEP).right.mean

    @property
    def verdict(self) -> str:
        """Describe the result in a sentence."""
        if self.headroom < LEAST_HEADROOM:
            return f"little headroom: plans add {self.headroom:+.3f} to single steps; do not train"
        lead = self.find(ONE_STEP).lead_reward
        if lead is None or lead.low <= 0.0:
            return "router-bound: the conductor does not beat a one-step router of the same features"
        share = self.find(TRAINED).right.mean / self.find(CEILING).right.mean
        place = "near the ceiling" if share >= 0.9 else "below the ceiling"
        return f"the conductor pays: {lead.mean:+.3f} reward over the one-step router; {place} ({share:.0%} of search)"

    def tabulate(self) -> tuple[Report, Report]:
        """Lay out the entrants, and the families of tasks with the verdict."""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        lengths = ", ".join(f"{length}: {share:.0%}" for length, share in self.steps.items())
        unread = "".join(f"{row.parsed:.1%} of {row.name}, " for row in self.rows if row.parsed < 1.0)
        leads = (("its", self.flat_lead), ("behind its gate its", self.gated_flat_lead))
        entrants = Report(
            title=f"{self.tasks} tasks on {self.pools} unseen pools, {self.seeds} seeds",
            columns=_ENTRANTS,
            rows=self.rows,
            notes=(
                f"plans that the grammar reads: {unread}all of every other's",
                f"calls by kind of worker: {shares}",
                f"plans by steps: {lengths}",
            ),
        )
        flat = [
            f"where plans add nothing, {name} lead over one step is {lead:+.3f} reward"
            for name, lead in leads
            if lead is not None
        ]
        return entrants, Report(title="families", columns=_FAMILIES, rows=self.families, notes=(*flat, self.verdict))

    def describe(self) -> dict[str, object]:
        """Make the JSON document, in which an interval is a list of mean, low and high."""
        found: dict[str, object] = asdict(self, dict_factory=_list_intervals)
        return found | {"headroom": self.headroom, "verdict": self.verdict}


def _list_intervals(pairs: list[tuple[str, Any]]) -> Any:
    named = dict(pairs)
    return [*named.values()] if named.keys() == {"mean", "low", "high"} else named
