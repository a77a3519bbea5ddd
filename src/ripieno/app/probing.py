"""Probing: the few tasks that say most about where a new worker should be used."""

import asyncio
from collections.abc import Callable

from ripieno.app.installation import Installation
from ripieno.app.sources import find_source, load_tasks, name_source
from ripieno.errors import ConfigError, InvalidTask
from ripieno.learn.checkpoint import read_card
from ripieno.measure import CampaignProgress, Prober, Probing, choose_probe_tasks, name_probes, require_plain
from ripieno.measure.probe import ProbeProfile


async def probe(
    app: Installation,
    worker: str,
    *,
    budget: int,
    tasks: str | None = None,
    most_cost: float | None = None,
    told: Callable[[CampaignProgress], None] | None = None,
) -> ProbeProfile:
    """Ask a worker tasks until the budget is used or more would change little; goes on where an earlier one was.

    Args:
        app: the opened app.
        worker: its id.
        budget: most probes in all.
        tasks: graded tasks; those that the checkpoint in traffic learned from, if not given.
        most_cost: ceiling in US dollars.
        told: hears of the progress.

    Raises:
        InvalidTask: there is no such worker, or its calls have effects or need approval.
        ConfigError: no checkpoint decides yet.
        NotFound: the tasks cannot be read again.
    """
    runtime = app.runtime
    if worker not in runtime.pool:
        raise InvalidTask(f"no worker is called {worker!r}", hint=f"workers: {', '.join(runtime.pool.ids)}")
    card = runtime.pool[worker]
    require_plain([card])
    prober = make_prober(app)
    version = app.registry.current()
    assert version is not None
    if not tasks:
        learned_from = read_card(app.registry.folder / version).datasets[0]
        tasks = await asyncio.to_thread(find_source, app, learned_from)
    graded = choose_probe_tasks(await asyncio.to_thread(load_tasks, tasks))
    known = await asyncio.to_thread(app.ledger.campaigns.run_ids, name_probes(card.id))
    probing = Probing(worker=card.id, tasks=graded, budget=budget, most_cost_usd=most_cost, source=name_source(tasks))
    return await prober.run(probing, runtime.pool, known=known, on_progress=told)


def make_prober(app: Installation) -> Prober:
    """Make a prober on what the checkpoint in traffic believes.

    Raises:
        ConfigError: no checkpoint decides yet, so there is nothing to hold a new worker against.
    """
    if app.runtime.routing.router.estimator is None:
        raise ConfigError(
            "no checkpoint decides yet: a new worker cannot be held against the others",
            hint="measure the pool and train: `ripieno profile TASKS`, `ripieno train`",
        )
    return Prober(app.runtime.make_profiler(), app.analyzer, app.learn_now)
