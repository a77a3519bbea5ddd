"""`ripieno report`: what the record says should change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.output import money, print_json, print_table, say, seconds
from ripieno.cli.running import run_app
from ripieno.errors import NotFound

if TYPE_CHECKING:
    from ripieno.app import App
    from ripieno.evaluate.bootstrap import Interval
    from ripieno.evaluate.profiles import Counted
    from ripieno.evaluate.questions import Answers, Spend, Swap


@click.command(epilog="\b\nExample:\n  ripieno report --last 20000")
@click.option("--last", type=click.IntRange(1), default=100_000, show_default=True, help="Latest decisions to look at.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def report(config: Path | None, *, last: int, as_json: bool) -> None:
    """Show what the recorded decisions say should change in the routing, and where evidence is missing.

    What takes the most, who is overqualified, which fallback recovers, which tool breaks runs, what should move here.
    """
    from ripieno.app.sources import list_campaigns, list_local
    from ripieno.learn.reports import make_report

    async def work(app: App) -> Answers:
        found, _ = make_report(app.ledger, last=last, local=list_local(app.pool), datasets=list_campaigns(app))
        if not found.decisions:
            raise NotFound("no task of traffic is recorded yet", hint="make some: `ripieno ask TEXT`, or serve traffic")
        return found

    found = run_app(config, work, decides=False)
    if as_json:
        print_json(asdict(found))
    else:
        show(found)


def show(found: Answers) -> None:
    """All answers as tables."""
    from ripieno.evaluate.profiles import Counted

    groups = (("kinds of task", found.kinds), ("keys", found.keys), ("projects", found.projects))
    for title, listed in (*groups, ("workers", found.workers)):
        _show_spend(title, listed)
    _show_profiles(found)
    _show_swaps("overqualified workers: a cheaper one does as well", found, "overqualified", found.overqualified)
    rows = [
        [f"{edge.failed} ({edge.failure})", edge.then, str(edge.count), str(edge.answered),
         _count(Counted(count=edge.judged, share=edge.accepted)),
         "never" if edge.never_recovers else _tell(edge.lift), str(edge.false), seconds(edge.added_s),
         money(edge.added_usd)]
        for edge in found.fallbacks
    ]  # fmt: skip
    _show("fallbacks by what is accepted in the end", found, "fallbacks",
          ("failed", "then", "runs", "answered", "accepted", "better than another try", "answered, then rejected",
           "added time", "added cost"), rows)  # fmt: skip
    rows = [
        [fault.tool, f"{fault.faults} of {fault.calls}", _tell(fault.harm), str(fault.tokens)] for fault in found.tools
    ]
    _show(
        "tools whose failures cost runs", found, "tools", ("tool", "failed", "accepted less often by", "tokens"), rows
    )
    _show_swaps("what should move to this machine", found, "local", found.local)
    _show_steps(found)
    _show_prices(found)
    say(f"{found.decisions} decisions, {found.judged} judged; intervals are of 95 %")


def _show_steps(found: Answers) -> None:
    from ripieno.evaluate.profiles import Counted

    rows = [
        [use.step, use.worker, str(use.runs), money(use.cost_usd),
         _count(Counted(count=use.judged, share=use.accepted)), use.does_for or "-",
         _tell(use.difference)]
        for use in found.steps
    ]  # fmt: skip
    columns = ("step", "worker", "runs", "cost", "accepted in the end", "does as well as", "difference")
    _show("who is good enough for a step", found, "steps", columns, rows)


def _show_prices(found: Answers) -> None:
    from ripieno.evaluate.observed import LEAST_EVIDENCE

    rows = [
        [row.worker, row.beside, str(row.tasks), money(row.cost_usd), money(row.other_cost_usd),
         _tell(row.difference) if row.difference else f"{row.tasks} of {LEAST_EVIDENCE} tasks"]
        for row in found.prices
    ]  # fmt: skip
    columns = ("worker", "beside", "tasks", "cost", "its cost", "better by")
    _show("prices on the same measured tasks", found, "prices", columns, rows)


def _show_profiles(found: Answers) -> None:
    from ripieno.evaluate.profiles import LENGTHS, name_range

    shown = [place for place in range(len(LENGTHS)) if any(each.accepted[place].count for each in found.profiles)]
    rows = [
        [
            profile.worker,
            str(profile.calls),
            money(profile.cost_usd),
            seconds(profile.latency_s),
            _count(profile.failed),
            _count(profile.bad_tool_calls),
            *(_count(profile.accepted[place]) for place in shown),
            _count(profile.corrected),
        ]
        for profile in found.profiles
    ]
    lengths = [f"accepted, {name_range(place)}" for place in shown]
    columns = ("worker", "calls", "cost", "median time", "failed", "bad tool calls", *lengths, "corrected heavily")
    _show("workers by their calls and answers", found, "profiles", columns, rows)


def _count(found: Counted) -> str:
    from ripieno.evaluate.observed import LEAST_EVIDENCE

    if not found.count:
        return "-"
    return f"{_tell(found.share)} of {found.count}" if found.share is not None else f"{found.count} of {LEAST_EVIDENCE}"


def _show_spend(title: str, listed: Sequence[Spend]) -> None:
    from ripieno.evaluate.profiles import Counted

    rows = [
        [
            spend.name,
            str(spend.runs),
            str(spend.tokens),
            "-" if spend.change is None else f"{spend.change:+.0%}",
            money(spend.cost_usd),
            f"{spend.wasted:.0%}",
            _count(Counted(count=spend.judged, share=spend.accepted)),
            "-" if spend.tokens_per_accepted is None else f"{spend.tokens_per_accepted:.0f}",
            seconds(spend.latency_s),
        ]
        for spend in listed[:20]
    ]
    columns = (title, "runs", "tokens", "lately", "cost", "wasted", "accepted", "tokens an accepted", "median time")
    print_table("", columns, rows)


def _show_swaps(title: str, found: Answers, name: str, listed: Sequence[Swap]) -> None:
    rows = [
        [swap.kind, swap.worker, swap.cheaper, _tell(swap.difference), money(swap.saved_usd), f"{swap.evidence:.0f}",
         str(swap.private_tokens), swap.blocked or (f"{swap.load:.0%} busy" if swap.load is not None else "-")]
        for swap in listed
    ]  # fmt: skip
    columns = ("kind", "worker", "in its place", "accepted more often by", "saved", "evidence", "private tokens",
               "room")  # fmt: skip
    _show(title, found, name, columns, rows)


def _show(title: str, found: Answers, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        print_table(title, columns, rows)
    else:
        click.echo(f"{title}: {found.thin.get(name, 'none')}")


def _tell(share: Interval | None) -> str:
    return "-" if share is None else f"{share.mean:.3f} [{share.low:.3f}, {share.high:.3f}]"
