"""Probing: measures a new worker on few, informative tasks."""

import asyncio
from collections.abc import Callable

from ripieno.app.installation import Installation
from ripieno.app.sources import find_tasks, load_tasks, name_source
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
    on_progress: Callable[[CampaignProgress], None] | None = None,
) -> ProbeProfile:
    """Probe a worker until the budget is used, or more probes would change little. Earlier probes count.

    The budget includes earlier probes. The default tasks are those of the checkpoint in traffic.

    Raises:
        InvalidTask: there is no such worker, or its calls have effects or need approval.
        ConfigError: no checkpoint decides yet.
        NotFound: the source of the tasks is not recorded.
    """
    runtime = app.runtime
    if worker not in runtime.pool:
        raise InvalidTask(f"no worker is called {worker!r}", hint=f"workers: {', '.join(runtime.pool.ids)}")
    card = runtime.pool[worker]
    require_plain([card])
    prober = make_prober(app)
    version = app.registry.current()
    assert version is not None
    tasks = await asyncio.to_thread(find_tasks, app, read_card(app.registry.folder / version), tasks)
    graded = choose_probe_tasks(await asyncio.to_thread(load_tasks, tasks))
    known = await asyncio.to_thread(app.ledger.campaigns.run_ids, name_probes(card.id))
    probing = Probing(worker=card.id, tasks=graded, budget=budget, most_cost_usd=most_cost, source=name_source(tasks))
    return await prober.run(probing, runtime.pool, known=known, on_progress=on_progress)


def make_prober(app: Installation) -> Prober:
    """Make a prober for the checkpoint in traffic.

    Raises:
        ConfigError: no checkpoint is in traffic, so a new worker cannot be compared.
    """
    if app.runtime.routing.router.estimator is None:
        raise ConfigError(
            "no checkpoint decides yet: a new worker cannot be compared with the others",
            hint="measure the pool and train: `ripieno profile TASKS`, `ripieno train`",
        )
    return Prober(app.runtime.make_profiler(), app.analyzer, app.learn_now)
