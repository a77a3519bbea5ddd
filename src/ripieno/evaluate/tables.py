"""Tables of the report on traffic: the columns of each question, and the evidence that they need."""

from collections.abc import Sequence

from ripieno.domain.report import Evidence, Report, money, number, seconds, text
from ripieno.evaluate.observed import LEAST_EVIDENCE
from ripieno.evaluate.profiles import LENGTHS, WorkerProfile, name_range
from ripieno.evaluate.questions import LEAST_EDGES, TrafficReport

MOST_ROWS = 30
"""Most rows of one grouping."""

_SPEND = (
    text("name"), number("runs"), number("tokens"), number("change", "lately", spec="+.0%"),
    money("cost_usd", "cost", beside="unknown"), number("wasted", spec=".0%"),
    number("accepted", spec=".3f", beside="judged", least=LEAST_EVIDENCE),
    number("tokens_per_accepted", "tokens an accepted"), seconds("latency_s", "median time"),
)  # fmt: skip
_SWAPS = (
    text("kind"), text("worker"), text("cheaper", "in its place"),
    number("difference", "accepted more often by", spec=".3f"), money("saved_usd", "saved"),
    number("evidence"), number("private_tokens", "private tokens"), text("room"),
)  # fmt: skip
_EDGES = (
    text("failed"), text("failure", "how"), text("then"), number("count", "runs"), number("answered"),
    number("accepted", spec=".3f", beside="judged", least=LEAST_EDGES),
    number("recovery", "better than another try", spec=".3f"), number("false", "answered, then rejected"),
    seconds("added_s", "added time"), money("added_usd", "added cost"),
)  # fmt: skip
_TOOLS = (
    text("tool"), number("faults", "failed", beside="calls"),
    number("harm", "accepted less often by", spec=".3f"), number("tokens"),
)  # fmt: skip
_STEPS = (
    text("step"), text("worker"), number("runs"), money("cost_usd", "cost"),
    number("accepted", "accepted in the end", spec=".3f", beside="judged", least=LEAST_EVIDENCE),
    text("does_for", "does as well as"), number("difference", spec=".3f"),
)  # fmt: skip
_PRICES = (
    text("worker"), text("beside"), money("cost_usd", "cost"), money("other_cost_usd", "its cost"),
    number("difference", "better by", spec=".3f", beside="tasks", least=LEAST_EVIDENCE),
)  # fmt: skip


def tabulate_traffic(found: TrafficReport) -> tuple[Report, ...]:
    """Lay out every question, spending first."""
    evidence = Evidence(n=found.judged, least=LEAST_EVIDENCE)
    return (
        Report(title="kinds of task", columns=_SPEND, rows=found.kinds[:MOST_ROWS]),
        Report(title="keys", columns=_SPEND, rows=found.keys[:MOST_ROWS]),
        Report(title="projects", columns=_SPEND, rows=found.projects[:MOST_ROWS]),
        Report(title="workers", columns=_SPEND, rows=found.workers[:MOST_ROWS]),
        tabulate_profiles(found.profiles),
        Report(title="overqualified workers: a cheaper one does as well", columns=_SWAPS, rows=found.overqualified,
               evidence=evidence),
        Report(title="fallbacks by what is accepted in the end", columns=_EDGES, rows=found.fallbacks,
               evidence=evidence),
        Report(title="tools whose failures cost runs", columns=_TOOLS, rows=found.tools, evidence=evidence),
        Report(title="what should move to this machine", columns=_SWAPS, rows=found.local, evidence=evidence),
        Report(title="good enough workers for a step", columns=_STEPS, rows=found.steps,
               notes=("the author of each plan chose the worker, so these are shares met",) * bool(found.steps),
               empty="no workflow of several steps was run"),
        Report(title="prices on the same measured tasks", columns=_PRICES, rows=found.prices,
               empty="no campaign has measured several workers"),
    )  # fmt: skip


def summarise_traffic(found: TrafficReport) -> str:
    """Describe the evidence of all tables, and how they show missing evidence."""
    return (
        f"{found.decisions:,} decisions, {found.judged:,} judged; intervals are of 95 %; "
        f"a share shown as `n of {LEAST_EVIDENCE}` has not enough evidence"
    )


def tabulate_profiles(profiles: Sequence[WorkerProfile]) -> Report:
    """Lay out the profiles. Only lengths at which a worker has answered have a column."""
    answered = [place for place in range(len(LENGTHS)) if any(row.accepted[place].count for row in profiles)]
    shares = [("failed", "failed"), ("bad_tool_calls", "bad tool calls")]
    shares += [(f"accepted.{place}", f"accepted, {name_range(place)}") for place in answered]
    columns = (
        text("worker"), number("calls"), money("cost_usd", "cost of one"), seconds("latency_s", "median time"),
        *(number(*named, spec=".3f", least=LEAST_EVIDENCE) for named in (*shares, ("corrected", "corrected heavily"))),
    )  # fmt: skip
    return Report(title="workers by their calls and answers", columns=columns, rows=profiles)
