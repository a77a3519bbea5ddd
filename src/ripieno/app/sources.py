"""Sources of graded tasks and measured outcomes."""

from pathlib import Path

from ripieno.app.installation import Installation
from ripieno.domain import Pool, Privacy
from ripieno.domain.grader import GradedTask
from ripieno.errors import NotFound
from ripieno.learn.checkpoint import ModelCard, read_card
from ripieno.ledger import export_data
from ripieno.tasks import RoutingData, read_tasks

EMBEDDED = "embedded"
GYM = "gym:"


def name_source(source: str) -> str:
    """Return the source in a form that is valid in any folder."""
    return source if source == EMBEDDED or source.startswith(GYM) else str(Path(source).resolve())


def load_tasks(source: str) -> list[GradedTask]:
    """Load tasks from a file, from the embedded families, or from reasoning-gym."""
    if source == EMBEDDED:
        from ripieno.embedded.families import generate_tasks

        return generate_tasks(train=30, test=16, seed=1)
    if source.startswith(GYM):
        from ripieno.embedded.families.gym import generate_gym_tasks

        return generate_gym_tasks(source.removeprefix(GYM).split(","), count=60, seed=1)
    return read_tasks(Path(source))


def find_tasks(app: Installation, card: ModelCard, stated: str | None) -> str:
    """Return the stated source of graded tasks, or that of the first data set of a checkpoint.

    Raises:
        NotFound: the source of the data set is not recorded.
    """
    source = stated or app.ledger.campaigns.find_source(card.datasets[0])
    if not source:
        raise NotFound(
            f"the source of the tasks of {card.datasets[0]!r} is not recorded", hint="name graded tasks: --tasks FILE"
        )
    return source


def load_measured(app: Installation, dataset: str | None) -> RoutingData:
    """Load the outcomes of one campaign, of the pool's workers in their current versions.

    Probes and traffic are left out, because their tasks were chosen for the worker, which biases its means. Every
    checkpoint learns from them later, one by one.
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
            hint="run `ripieno profile` again when the judge works: it judges the recorded answers",
        ) from error


def list_campaigns(app: Installation) -> tuple[str, ...]:
    """List the data sets of the checkpoint in traffic."""
    version = app.registry.current()
    return read_card(app.registry.folder / version).datasets if version is not None else ()


def list_local(pool: Pool) -> dict[str, int]:
    """Return the concurrent tasks of each worker that runs on this machine."""
    return {worker.id: worker.max_concurrency for worker in pool if worker.privacy is Privacy.LOCAL}
