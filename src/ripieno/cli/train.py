"""`ripieno train`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.options import FOLDER
from ripieno.cli.output import print_json, print_report, say
from ripieno.cli.removed import ChoiceWithRemoved
from ripieno.cli.running import run_app
from ripieno.errors import CheckpointError, GateRefused, PredictorError

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.domain import Objective
    from ripieno.learn import Trained
    from ripieno.learn.criticality import FittedCriticality
    from ripieno.tasks import RoutingData


TRAFFIC = "traffic"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """Data and options of one training."""

    data: Path | None
    dataset: str | None
    kind: str
    seed: int
    out: Path | None
    least_new: int
    has_modes: bool


_KINDS = ("heads", "kinds", "lowrank", "stack")
"""The predictors that can be trained for traffic. The list is explicit, so that help imports none of them."""
_COMPARED = ("boosting", "clusters", "factors", "knn", "logistic", "ridge")
"""Baselines of `evaluate`. Checkpoints of earlier versions with these predictors still load."""
_REMOVED = dict.fromkeys(_COMPARED, "'stack', or compare with it by `ripieno evaluate --policy`")


class PredictorName(ChoiceWithRemoved):
    """Name of a built-in or installed predictor."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the name. Help lists only the built-in ones."""
        from ripieno.plugins import find_plugins

        if value not in _KINDS and value in find_plugins("ripieno.predictors"):
            return value
        return super().convert(value, param, ctx)


@click.command(epilog="\b\nExample:\n  ripieno train --dataset demo")
@click.option("--data", type=FOLDER, help="Train on a routing-data folder instead of the ledger.")
@click.option("--dataset", help="Campaign or data set of the ledger. Default: the only one.")
@click.option("--policy", "kind", type=PredictorName(_KINDS, removed=_REMOVED), default="stack", show_default=True,
              help="Predictor of the policy: one of these, or an installed one.")  # fmt: skip
@click.option("--criticality", "criticality_only", is_flag=True,
              help="Train only the model that estimates criticalities, from columns of --data.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=FOLDER, help="Folder for the checkpoint. Nothing is promoted.")
@click.option("--least-new", type=click.IntRange(0), default=0, show_default=True,
              help="Train only if this many outcomes are new since the last checkpoint.")  # fmt: skip
@click.option("--modes/--no-modes", "has_modes", default=True,
              help="Whether to estimate profitable workflows beside the workers.")  # fmt: skip
@click.option("--watch", is_flag=True, help="Train repeatedly until interrupted.")
@click.option(
    "--every",
    type=click.FloatRange(0.01),
    default=3600.0,
    show_default=True,
    help="With --watch: seconds between two trainings.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, or one per line with --watch.")
@click.pass_obj
def train(
    config: Path | None,
    *,
    data: Path | None,
    dataset: str | None,
    kind: str,
    criticality_only: bool,
    seed: int,
    out: Path | None,
    least_new: int,
    has_modes: bool,
    watch: bool,
    every: float,
    as_json: bool,
) -> None:
    """Train a router on measured outcomes, evaluate it on held-out tasks, and promote it if it passes.

    From the ledger, it learns one campaign. A serving process adds judged traffic and probes to it. With --data, the
    router is for the models of that folder, and is promoted only if the pool has one of them.

    Use --least-new in a cron job, or --watch instead of one.
    """
    if criticality_only:
        train_criticality(config, data, seed=seed, as_json=as_json)
        return
    request = TrainingRequest(
        data=data, dataset=dataset, kind=kind, seed=seed, out=out, least_new=least_new, has_modes=has_modes
    )

    async def work(app: Installation) -> None:
        while True:
            try:
                print_outcome(await train_once(app, request), as_json=as_json)
            except GateRefused as error:
                if not watch:
                    raise
                say(f"{error.message}; {error.hint}")
            if not watch:
                return
            await asyncio.sleep(every)

    run_app(config, work, decides=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingOutcome:
    """Result of one training."""

    version: str
    trained: Trained
    fate: str


async def train_once(app: Installation, request: TrainingRequest) -> TrainingOutcome | None:
    """Train, evaluate and promote. Return None if too few outcomes are new.

    Raises:
        GateRefused: the evaluation failed. The checkpoint is saved, and not promoted.
    """
    from ripieno.app.sources import load_measured
    from ripieno.evaluate.benchmark import BEST_QUALITY
    from ripieno.learn import Recipe, Registry, analyze_prompts
    from ripieno.learn import train as fit
    from ripieno.learn.checks import fit_checks, pair_checks
    from ripieno.learn.missing import check_missing
    from ripieno.learn.train import check_gate, promote, record_learned
    from ripieno.learn.workflow_columns import fit_with_workflows
    from ripieno.tasks import read_folder

    source = read_folder(request.data) if request.data is not None else load_measured(app, request.dataset)
    if request.least_new and count_new(app, source) < request.least_new:
        return None
    features = await analyze_prompts(app.analyzer, source)
    objective = BEST_QUALITY if request.data is not None else app.runtime.make_objective()
    recipe = Recipe(kind=request.kind, seed=request.seed, objective=objective)
    watermark = app.ledger.head() if source.name == TRAFFIC else 0
    trained = fit(source, features, recipe=recipe, schema=app.analyzer.schema, clock=app.clock)
    if request.data is None and request.has_modes:
        found = fit_with_workflows(app.ledger, source, features, app.runtime.pool, recipe=recipe, base=trained)
        if found is not None:
            trained, gain = found
            say(f"workflows add {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] utility on held-out tasks")
    checks = fit_checks(pair_checks(app.ledger))
    for name, trust in checks.items():
        say(f"{name}: its verdicts are calibrated by {trust.outcomes} outcomes")
    unjudged = count_unjudged(app, source) if request.data is None else {}
    facts = {"watermark": watermark, "checks": checks, "unjudged": unjudged}
    trained = replace(trained, card=trained.card.model_copy(update=facts))
    registry = Registry(request.out) if request.out is not None else app.registry
    version = registry.save(trained.checkpoint, trained.card)
    await record_learned(app.ledger, version, trained.card)
    if request.out is not None or not set(trained.card.workers) & set(app.runtime.pool.ids):
        return TrainingOutcome(
            version=version, trained=trained, fate="saved, not promoted: it is for other workers than this pool's"
        )
    check_missing(trained.card)
    check_gate(trained)
    await hold_against_incumbent(app, trained, version, objective)
    folded = await app.prepare(version)
    if folded:
        say(f"{folded} outcomes of traffic are folded in")
    await promote(registry, app.ledger, version, reason=trained.card.verdict)
    return TrainingOutcome(version=version, trained=trained, fate="promoted: it decides from the next request on")


def count_unjudged(app: Installation, source: RoutingData) -> dict[str, tuple[int, int]]:
    """Count the answers of a campaign without a verdict, and all its answers, by worker. Report them on stderr.

    Traffic is left out, because most of its answers are never judged.
    """
    from ripieno.learn.checkpoint import describe_missing
    from ripieno.learn.missing import count_missing

    if source.name == TRAFFIC:
        return {}
    found = count_missing(app.ledger, source, {worker.id: worker.version for worker in app.runtime.pool})
    if found:
        say(f"answers without a verdict, which are not learned from: {describe_missing(found)}")
    return found


def count_new(app: Installation, source: RoutingData) -> int:
    """Count the outcomes of a data set that are newer than its latest checkpoint."""
    from ripieno.domain import Learned

    seen = 0
    for stored in app.ledger.read(kinds=("learned",)):
        if isinstance(stored.entry, Learned) and source.name in _names(stored.entry.card.get("datasets")):
            seen = int(str(stored.entry.card.get("all_outcomes", 0)))
    return len(source.quality) - seen


def print_outcome(done: TrainingOutcome | None, *, as_json: bool) -> None:
    """Print the result of a training."""
    if done is None:
        say("too little is new: nothing was trained")
        if as_json:
            print_json({"checkpoint": None, "fate": "too little is new"})
        return
    if as_json:
        print_json({"checkpoint": done.version, "fate": done.fate, "card": done.trained.card.model_dump(mode="json")})
        return
    if done.trained.judged is not None:
        print_report(done.trained.judged.report.tabulate())
    click.echo(done.version)
    say(done.fate)


def train_criticality(config: Path | None, data: Path | None, *, seed: int, as_json: bool) -> None:
    """Fit the model of criticalities, print its accuracy on unseen prompts, and save it."""
    from ripieno.learn import analyze_prompts
    from ripieno.learn.criticality import fit_criticality, save_criticality
    from ripieno.tasks import read_folder

    if data is None:
        raise click.UsageError("--criticality needs --data with the columns mission_criticality and time_criticality")

    async def work(app: Installation) -> FittedCriticality:
        source = read_folder(data)
        fitted = fit_criticality(source, await analyze_prompts(app.analyzer, source), seed=seed)
        save_criticality(fitted.model, app.runtime.settings.home, encoder=app.analyzer.encoder.name)
        return fitted

    fitted = run_app(config, work, decides=False)
    if as_json:
        print_json({"tasks": fitted.tasks, "mission_r2": fitted.mission_r2, "time_r2": fitted.time_r2})
        return
    click.echo(
        f"{fitted.tasks} prompts; on unseen ones the model explains {fitted.mission_r2:.0%} of the variance of mission "
        f"criticality and {fitted.time_r2:.0%} of that of time criticality"
    )
    say("saved: from the next start on, it fills in what callers do not state")


async def hold_against_incumbent(app: Installation, trained: Trained, version: str, objective: Objective) -> None:
    """Replay both checkpoints on held-out tasks, and record the result.

    An incumbent that the current encoder or pool cannot use is replaced without a comparison.

    Raises:
        GateRefused: the new checkpoint loses.
    """
    from ripieno.learn.promotion import compare, record_stage
    from ripieno.route.choose import DecisionRule

    current = app.registry.current()
    if current is None or trained.bench is None:
        return
    try:
        incumbent, card = app.registry.load(current, schema=app.analyzer.schema)
        ours, theirs = (DecisionRule(scales=each.scales, margin=each.margin) for each in (trained.card, card))
        finding = compare(trained.bench, trained.checkpoint, incumbent, objective=objective, rules=(ours, theirs))
    except (CheckpointError, PredictorError) as error:
        if isinstance(error, PredictorError) and error.checkpoint != current:
            raise
        say(f"{current} is not compared with: {error.message}")
        return
    await record_stage(app.ledger, finding, checkpoint=version, incumbent=current)
    if not finding.passed:
        raise GateRefused(
            f"{version} {finding.reason} against {current}, which stays in traffic",
            hint=f"it is saved; `ripieno policy promote {version}` overrules",
        )
    say(f"against {current} it {finding.reason}")


def _names(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list | tuple) else []
