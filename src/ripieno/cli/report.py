"""`ripieno report`: what the record says should change."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from ripieno.app import App
from ripieno.cli.output import money, print_json, print_table, say, seconds
from ripieno.cli.running import run_app
from ripieno.domain import Privacy
from ripieno.errors import NotFound
from ripieno.evaluate.bootstrap import Interval
from ripieno.evaluate.questions import LEAST_EVIDENCE, Answers, Spend, Swap, answer
from ripieno.learn.logs import observe


@click.command(epilog="\b\nExample:\n  ripieno report --last 20000")
@click.option("--last", type=click.IntRange(1), default=100_000, show_default=True, help="Latest decisions to look at.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def report(config: Path | None, *, last: int, as_json: bool) -> None:
    """Answer from the record what would change the routing, and where there is not enough evidence.

    What takes the most, who is overqualified, which fallback recovers, which tool breaks runs, what should move here.
    """

    async def work(app: App) -> Answers:
        rows = observe(app.ledger, last=last)
        if not rows:
            raise NotFound("no task of traffic is recorded yet", hint="make some: `ripieno ask TEXT`, or serve traffic")
        return answer(rows, local=[worker.id for worker in app.pool if worker.privacy is Privacy.LOCAL])

    found = run_app(config, work, decides=False)
    if as_json:
        print_json(asdict(found))
    else:
        show(found)


def show(found: Answers) -> None:
    """All answers as tables."""
    for title, listed in (("kinds of task", found.kinds), ("keys", found.keys), ("workers", found.workers)):
        _show_spend(title, listed)
    _show_swaps("overqualified workers: a cheaper one does as well", found, "overqualified", found.overqualified)
    rows = [
        [f"{edge.failed} ({edge.failure})", edge.then, str(edge.count), str(edge.answered), _tell(edge.accepted),
         str(edge.false)]
        for edge in found.fallbacks
    ]  # fmt: skip
    _show("fallbacks by what is accepted in the end", found, "fallbacks",
          ("failed", "then", "runs", "answered", "accepted", "answered, then rejected"), rows)  # fmt: skip
    rows = [
        [fault.tool, f"{fault.faults} of {fault.calls}", _tell(fault.harm), str(fault.tokens)] for fault in found.tools
    ]
    _show(
        "tools whose failures cost runs", found, "tools", ("tool", "failed", "accepted less often by", "tokens"), rows
    )
    _show_swaps("what should move to this machine", found, "local", found.local)
    say(f"{found.decisions} decisions, {found.judged} judged; intervals are of 95 %")


def _show_spend(title: str, listed: Sequence[Spend]) -> None:
    rows = [
        [
            spend.name,
            str(spend.runs),
            str(spend.tokens),
            money(spend.cost_usd),
            f"{spend.wasted:.0%}",
            _tell(spend.accepted) if spend.accepted is not None else f"{spend.judged} of {LEAST_EVIDENCE} judged",
            "-" if spend.tokens_per_accepted is None else f"{spend.tokens_per_accepted:.0f}",
            seconds(spend.latency_s),
        ]
        for spend in listed[:20]
    ]
    columns = (title, "runs", "tokens", "cost", "wasted", "accepted", "tokens an accepted", "median time")
    print_table("", columns, rows)


def _show_swaps(title: str, found: Answers, name: str, listed: Sequence[Swap]) -> None:
    rows = [
        [swap.kind, swap.worker, swap.cheaper, _tell(swap.difference), money(swap.saved_usd), f"{swap.evidence:.0f}",
         str(swap.private_tokens)]
        for swap in listed
    ]  # fmt: skip
    columns = ("kind", "worker", "in its place", "accepted more often by", "saved", "evidence", "private tokens")
    _show(title, found, name, columns, rows)


def _show(title: str, found: Answers, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        print_table(title, columns, rows)
    else:
        click.echo(f"{title}: {found.thin.get(name, 'none')}")


def _tell(share: Interval | None) -> str:
    return "-" if share is None else f"{share.mean:.3f} [{share.low:.3f}, {share.high:.3f}]"
