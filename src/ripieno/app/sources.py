"""Where graded tasks and measured outcomes come from."""

from pathlib import Path

from ripieno.app.installation import Installation
from ripieno.domain import Pool, Privacy
from ripieno.domain.grader import GradedTask
from ripieno.errors import NotFound
from ripieno.learn.checkpoint import read_card
from ripieno.ledger import export_data
from ripieno.tasks import RoutingData, read_tasks

EMBEDDED = "embedded"
GYM = "gym:"


def name_source(source: str) -> str:
    """What `load_tasks` finds the same tasks by from any folder."""
    return source if source == EMBEDDED or source.startswith(GYM) else str(Path(source).resolve())


def load_tasks(source: str) -> list[GradedTask]:
    """Tasks of a file, of the embedded families, or of reasoning-gym."""
    if source == EMBEDDED:
        from ripieno.embedded.families import generate_tasks

        return generate_tasks(train=30, test=16, seed=1)
    if source.startswith(GYM):
        from ripieno.embedded.families.gym import generate_gym_tasks

        return generate_gym_tasks(source.removeprefix(GYM).split(","), count=60, seed=1)
    return read_tasks(Path(source))


def find_source(app: Installation, dataset: str) -> str:
    """Where the graded tasks of a data set can be read again.

    Raises:
        NotFound: nothing says so.
    """
    source = app.ledger.campaigns.find_source(dataset)
    if not source:
        raise NotFound(f"the tasks of {dataset!r} cannot be read again", hint="name graded tasks: --tasks FILE")
    return source


def load_measured(app: Installation, dataset: str | None) -> RoutingData:
    """Outcomes of one campaign, of the pool's workers in their present versions.

    Probes and traffic are not mixed in: who chose those tasks chose them for the worker, so that their means would
    flatter it. They are folded in one by one on top of every checkpoint.
    """
    known = [name for name in app.ledger.campaigns.datasets() if ":" not in name]
    if dataset is None:
        if len(known) != 1:
            raise NotFound(
                "the ledger holds no measured data set" if not known else "the ledger holds several data sets",
                hint=f"choose one: --dataset {' | '.join(sorted(known))}"
                if known
                else "measure one: `ripieno profile`",
            )
        dataset = known[0]
    try:
        return export_data(app.ledger, dataset, versions={worker.id: worker.version for worker in app.runtime.pool})
    except NotFound as error:
        waiting = len(app.ledger.outcomes.unjudged(dataset))
        if not waiting:
            raise
        raise NotFound(
            f"none of the {waiting} recorded answers of {dataset!r} has a verdict",
            hint="run `ripieno profile` again once the judge works: it judges the recorded answers",
        ) from error


def list_campaigns(app: Installation) -> tuple[str, ...]:
    """Data sets in which the workers of the checkpoint in traffic were measured on the same tasks."""
    version = app.registry.current()
    return read_card(app.registry.folder / version).datasets if version is not None else ()


def list_local(pool: Pool) -> dict[str, int]:
    """Workers that run on this machine, with how many tasks each takes at once."""
    return {worker.id: worker.max_concurrency for worker in pool if worker.privacy is Privacy.LOCAL}
