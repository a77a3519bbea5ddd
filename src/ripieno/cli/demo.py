"""`ripieno demo`: measure, train, evaluate and serve, in one run."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import click

from ripieno.cli.evaluate import draw
from ripieno.cli.output import print_report, print_table, say
from ripieno.cli.profile import find_able, progress_bar, report_unjudged
from ripieno.domain.report import Report, format_money, format_seconds, money, number, text
from ripieno.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from ripieno.app import Installation
    from ripieno.domain.grader import GradedTask
    from ripieno.evaluate.report import Entrant


CAMPAIGN = "demo"
MEASURED_SHARES = {"smollm2-135m": 2, "smollm2-135m-vote": 12}
"""Slow workers, each with the number of training tasks of which one is measured."""
REPEATS = 2
LIBRARIES = ("sklearn", "scipy", "river", "pint", "dateutil", "symspellpy", "vaderSentiment", "openai")
"""Modules that the demo's workers, its training and its client import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Tasks of each family that the demo measures."""

    train: int
    test: int
    seed: int


@click.command(epilog="\b\nExample:\n  ripieno demo")
@click.option(
    "--train-tasks", type=click.IntRange(6, 500), default=36, show_default=True, help="Training tasks of each family."
)
@click.option(
    "--test-tasks", type=click.IntRange(4, 500), default=8, show_default=True, help="Held-out tasks of each family."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of tasks, folds and intervals.")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".ripieno/demo"),
    show_default=True,
    help="Folder for ledger, checkpoint and plots.",
)
def demo(*, train_tasks: int, test_tasks: int, seed: int, home: Path) -> None:
    """Measure the embedded pool, train a router, evaluate it on held-out tasks, and answer through the gateway.

    No keys, no network. A repeated run keeps earlier measurements. Needs `pip install 'ripieno[demo]'`.
    """
    from ripieno.app import Installation
    from ripieno.config import load_settings
    from ripieno.plugins import require_extra

    require_extra("demo", "`ripieno demo`", LIBRARIES)
    settings = _write_settings(home)
    size = Size(train=train_tasks, test=test_tasks, seed=seed)
    started = time.monotonic()

    async def run() -> None:
        async with Installation(load_settings(settings)) as app:
            await _measure(app, size)
            await _learn(app, size, home)
            await _serve(app, size)

    asyncio.run(run())
    say(f"\ndone in {time.monotonic() - started:.0f} s; the next three commands:")
    click.echo(f"  ripieno --config {settings} explain last")
    click.echo(f"  ripieno --config {settings} ask 'Solve 3x + 4 = 19 for x' --explain")
    click.echo(f"  ripieno --config {settings} serve")


def _write_settings(home: Path) -> Path:
    """Write the demo's settings file, so that later commands find the same ledger and checkpoint.

    Raises:
        ConfigError: the folder cannot be written.
    """
    path = home / "ripieno.toml"
    from ripieno.privacy.files import make_folder

    mark = "# Written by `ripieno demo`; lists no workers, so the embedded pool is used.\n"
    try:
        make_folder(home)
        # earlier versions wrote paths relative to the folder in which they ran
        if not path.exists() or path.read_text(encoding="utf-8").startswith(mark):
            path.write_text(f'{mark}home = "."\n', encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the demo cannot write into {str(home)!r}: {error.strerror}", path=str(path), hint="choose another --home"
        ) from error
    return path


async def _measure(app: Installation, size: Size) -> None:
    from ripieno.app.sources import EMBEDDED
    from ripieno.embedded.families import generate_tasks
    from ripieno.measure import Campaign

    tasks = generate_tasks(train=size.train, test=size.test, seed=size.seed)
    workers = await find_able(app)
    say(f"1. Measuring {len(workers)} workers on {len(tasks)} tasks of {len({t.family for t in tasks})} families.")
    profiler = app.runtime.make_profiler()
    started = time.monotonic()
    with progress_bar("measuring") as show:
        learning = Campaign(
            name=CAMPAIGN,
            tasks=tuple(t for t in tasks if t.split == "train"),
            workers=workers,
            skip=_is_skipped,
            source=EMBEDDED,
        )
        first = await profiler.run(learning, app.runtime.pool, on_progress=show)
        held_out = Campaign(
            name=CAMPAIGN, tasks=tuple(t for t in tasks if t.split == "test"), workers=workers, repeats=REPEATS
        )
        second = await profiler.run(held_out, app.runtime.pool, on_progress=show)
    report_unjudged(second)
    known = first.resumed + second.resumed
    fresh, took_s = first.done + second.done - known, time.monotonic() - started
    say(f"   {fresh} samples measured, {known} known from before, in {took_s:.0f} s. The ledger has all of them.")
    _show_profile(app, workers)


def _is_skipped(task: GradedTask, worker: str) -> bool:
    return crc32(task.id.encode()) % MEASURED_SHARES.get(worker, 1) != 0


def _show_profile(app: Installation, workers: tuple[str, ...]) -> None:
    import numpy as np

    from ripieno.evaluate.observed import mean_known

    families: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, list[float | None]] = {}
    measured = list(app.ledger.outcomes.measured(dataset=CAMPAIGN))
    tasks = app.ledger.outcomes.tasks({row.outcome.task for row in measured})
    kinds = {digest: task.kind or "" for digest, task in tasks.items()}
    for row in measured:
        outcome = row.outcome
        families.setdefault(kinds[outcome.task], {}).setdefault(outcome.worker, []).append(outcome.quality)
        costs.setdefault(outcome.worker, []).append(outcome.cost_usd)
    rows = [
        {
            "worker": worker,
            "cost": mean_known(costs[worker]) if worker in costs else "-",
            **{name: float(np.mean(found[worker])) if worker in found else None for name, found in families.items()},
        }
        for worker in workers
    ]
    shares = (number(name, spec=".2f") for name in families)
    columns = (text("worker"), *shares, money("cost"))
    print_report(Report(title="\nShare of accepted answers, and mean cost of a task", columns=columns, rows=rows))


async def _learn(app: Installation, size: Size, home: Path) -> None:
    from ripieno.evaluate.benchmark import judge, prepare
    from ripieno.learn import Recipe, analyze_prompts
    from ripieno.learn import train as fit
    from ripieno.learn.train import check_gate, promote, record_learned
    from ripieno.ledger import export_data

    say("\n2. Training a router on the training templates, evaluating it on the held-out ones.")
    versions: dict[str, str] = {worker.id: worker.version for worker in app.runtime.pool}
    data = export_data(app.ledger, CAMPAIGN, versions=versions)
    features = await analyze_prompts(app.analyzer, data)
    recipe = Recipe(seed=size.seed, objective=app.runtime.make_objective())
    trained = fit(data, features, recipe=recipe, schema=app.analyzer.schema, clock=app.clock)
    bench = prepare(data, features)
    extra = _hand_written([prompt.text for prompt in data.prompts], bench.test_rows, bench.held_out.workers)
    judged = judge(
        bench, trained.checkpoint, objective=recipe.objective, baselines=("knn",), extra=extra, seed=size.seed
    )
    print_report(judged.report.tabulate())
    draw(bench, judged, home / "plots")
    version = app.registry.save(trained.checkpoint, trained.card)
    await record_learned(app.ledger, version, trained.card)
    check_gate(trained)
    await promote(app.registry, app.ledger, version, reason=trained.card.verdict)
    say(f"   {version} is promoted.")


def _hand_written(texts: list[str], rows: np.ndarray, workers: tuple[str, ...]) -> list[Entrant]:
    """Make the baselines without learning. No worker abstains, so a cascade ends at its first worker."""
    import numpy as np

    from ripieno.embedded.baselines import choose_by_keyword
    from ripieno.evaluate.report import Entrant

    keyword = np.zeros((len(rows), len(workers)))
    for index, row in enumerate(rows):
        keyword[index, workers.index(choose_by_keyword(texts[row], workers))] = 1.0
    first = np.zeros_like(keyword)
    first[:, 0] = 1.0
    return [
        Entrant(name="first that answers", shares=first, note=workers[0]),
        Entrant(name="keyword rule", shares=keyword, note="hand-written"),
    ]


async def _serve(app: Installation, size: Size) -> None:
    """Send one unseen task of each family through the gateway with the official client."""
    from openai import AsyncOpenAI

    from ripieno.embedded.families import generate_tasks
    from ripieno.gateway import bind_socket, running

    fresh = generate_tasks(train=0, test=1, seed=size.seed + 1000)
    with bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0})) as listener:
        async with running(app, listener) as address, AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:
            say(f"\n3. Asking {address}/v1 with the openai client, model='auto'.")
            rows = []
            for task in fresh:
                raw = await client.chat.completions.with_raw_response.create(
                    model="auto", messages=[{"role": "user", "content": task.task.text}]
                )
                headers, answer = raw.headers, raw.parse()
                rows.append(
                    [
                        task.task.text,
                        str(answer.choices[0].message.content),
                        headers["x-ripieno-worker"],
                        format_money(float(headers["x-ripieno-cost-usd"])),
                        headers["x-ripieno-why"].partition(", ")[2] or headers["x-ripieno-why"],
                    ]
                )
    print_table(("task", "answer", "worker", "cost", "why"), rows)
    decided = app.ledger.decisions.last()
    if decided is not None:
        say(f"   the last one was decided in {format_seconds(app.ledger.decisions.find(decided).decision.decide_s)}")
