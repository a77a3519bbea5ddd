"""`ripieno profile`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.options import prints_json
from ripieno.cli.output import open_bar, print_json, say
from ripieno.cli.running import require_workers, run_app
from ripieno.domain.report import format_money_sum
from ripieno.errors import ConfigError, ProviderRejected

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.measure import CampaignProgress

REASONS = 5


@click.command(epilog="\b\nExample:\n  ripieno profile tasks.jsonl --repeats 3 --most-cost 0.50")
@click.argument("tasks")
@click.option("--name", help="Name of the campaign. Default: the file's name. The same name resumes.")
@click.option("--worker", "workers", multiple=True, help="Measure only this worker. Repeat it for several.")
@click.option("--with-effects", is_flag=True,
              help="Also measure named workers whose calls have effects or need approval.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1, 1000), default=1, show_default=True, help="Samples of each pair.")
@click.option("--most-cost", type=click.FloatRange(0), help="Ceiling in USD for the whole campaign.")
@prints_json
def profile(
    config: Path | None,
    *,
    tasks: str,
    name: str | None,
    workers: tuple[str, ...],
    with_effects: bool,
    repeats: int,
    most_cost: float | None,
    as_json: bool,
) -> None:
    """Measure workers on TASKS.

    TASKS is a JSON-lines file, `embedded` for the families that come with Ripieno, or `gym:chain_sum,letter_counting`
    for families of reasoning-gym.

    A worker that has effects or needs approval is left out. `--worker W --with-effects` measures it: each sample is a
    real call, made once, without approval.

    Ctrl-C, `kill -9` and a power cut lose at most the samples in progress. The same command resumes the campaign, and
    judges recorded answers without a verdict again, without calling the workers.
    """
    if with_effects and not workers:
        raise click.UsageError("--with-effects needs --worker: name the workers whose calls may change something")

    from ripieno.app.sources import load_tasks, name_source
    from ripieno.measure import Campaign

    graded = load_tasks(tasks)

    async def work(app: Installation) -> CampaignProgress:
        pool = app.runtime.pool
        require_workers(pool, workers)
        chosen = workers or await find_able(app)
        campaign = Campaign(
            name=name or Path(tasks).stem.replace(":", "-"),
            tasks=tuple(graded),
            workers=chosen,
            repeats=repeats,
            most_cost_usd=most_cost,
            source=name_source(tasks),
            with_effects=with_effects,
        )
        with progress_bar("profiling") as show:
            return await app.runtime.make_profiler().run(campaign, pool, on_progress=show)

    _print_campaign(run_app(config, work, decides=False), as_json=as_json)


def _print_campaign(done: CampaignProgress, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "samples": done.total,
                "resumed": done.resumed,
                "measured": done.done - done.resumed,
                "cost_usd": done.spent_usd if not done.unknown else None,
                "failures": done.failures,
                "judged_again": done.judged_again,
                "unjudged": done.unjudged_workers,
                "unjudged_reasons": done.unjudged_reasons,
            }
        )
        return
    spent = format_money_sum(done.spent_usd, done.unknown)
    say(f"{done.done} of {done.total} samples, {done.resumed} of them from before; {spent} spent")
    for failure, count in sorted(done.failures.items()):
        say(f"{count} calls failed: {failure}")
    report_unjudged(done)


def report_unjudged(done: CampaignProgress) -> None:
    """Print how many answers have no verdict, with their workers, the reasons and the fix."""
    if done.judged_again:
        say(f"{done.judged_again} answers of earlier runs have got their verdict now; no worker was called again")
    if not done.unjudged:
        return
    workers = ", ".join(f"{worker} {count}" for worker, count in done.unjudged_workers.items())
    say(f"{len(done.unjudged)} of {done.done} answers have no verdict, and count as unknown: {workers}")
    for reason, count in list(done.unjudged_reasons.items())[:REASONS]:
        say(f"{count} times: {reason}")
    say("run the same command again once the judge works: it judges the recorded answers")


async def find_able(app: Installation) -> tuple[str, ...]:
    """Find the workers that can be measured by default. Name the others on stderr."""
    able = []
    for worker in app.runtime.pool:
        if worker.is_muted:
            say(f"{worker.id} is muted and left out")
            continue
        if worker.is_restricted:
            what = "change something" if worker.has_effects else "need approval"
            say(f"{worker.id} is left out: its calls {what} (--worker {worker.id} --with-effects measures it)")
            continue
        try:
            await app.runtime.caller.check(worker)
            able.append(worker.id)
        except (ConfigError, ProviderRejected) as error:
            say(f"{error.message}: {worker.id} is left out ({error.hint})")
    return tuple(able)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[CampaignProgress], None]]:
    """Show the progress of a campaign, with its cost. See `open_bar`."""
    from rich.progress import TextColumn

    with open_bar(title, TextColumn("{task.fields[spent]}")) as bar:
        task = bar.add_task(title, total=None, spent="")

        def show(progress: CampaignProgress) -> None:
            bar.update(
                task,
                total=progress.total,
                completed=progress.done,
                spent=format_money_sum(progress.spent_usd, progress.unknown),
            )

        yield show
