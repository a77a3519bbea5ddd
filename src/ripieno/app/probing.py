"""Probing: the few tasks that say most about where a new worker should be used."""

import asyncio
from collections.abc import Callable

from ripieno.app.app import App
from ripieno.app.sources import find_source, load_tasks, name_source
from ripieno.errors import InvalidTask
from ripieno.learn.checkpoint import read_card
from ripieno.measure import CampaignProgress, Probing, choose_probe_tasks, name_probes, require_plain
from ripieno.measure.probe import ProbeProfile


async def probe(
    app: App,
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
    if worker not in app.pool:
        raise InvalidTask(f"no worker is called {worker!r}", hint=f"workers: {', '.join(app.pool.ids)}")
    card = app.pool[worker]
    require_plain([card])
    prober = app.make_prober()
    version = app.registry.current()
    assert version is not None
    if not tasks:
        learned_from = read_card(app.registry.folder / version).datasets[0]
        tasks = await asyncio.to_thread(find_source, app, learned_from)
    graded = choose_probe_tasks(await asyncio.to_thread(load_tasks, tasks))
    known = await asyncio.to_thread(app.ledger.campaigns.run_ids, name_probes(card.id))
    probing = Probing(worker=card.id, tasks=graded, budget=budget, most_cost_usd=most_cost, source=name_source(tasks))
    return await prober.run(probing, app.pool, known=known, on_progress=told)
