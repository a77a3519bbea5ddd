"""Replay: repeats a recorded decision from its recorded inputs, and compares the result."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, cast

from ripieno.analyze import Analyzer
from ripieno.domain import (
    Decided,
    Decision,
    DecisionInputs,
    Features,
    Mode,
    Plan,
    Pool,
    RecordedInputs,
    RoutingSetup,
    Sensitivity,
    Solo,
    Task,
    Turns,
    WorkerId,
    Workflow,
    names_worker,
)
from ripieno.domain.workflow import find_removed_mode
from ripieno.errors import NotReplayable
from ripieno.learn.checkpoint import Registry, read_workflows
from ripieno.ledger import Ledger
from ripieno.plugins import build_plugin
from ripieno.route import NAMED, Policy, Predictor, Router, UtilityPolicy
from ripieno.route.predictors import Estimator, PriorPredictor

UNRECORDED = ("allowed workflows", "check", "judge", "rules", "worker cards")
"""Inputs that earlier versions did not record. The decision and the current pool replace them."""
COMPARED = (
    *("workflow", "learned_workflow", "propensity", "estimates", "utilities", "abstains"),
    *("kind", "advice", "policy", "policy_facts", "predictor", "inputs"),
)
"""Fields of a decision that a replay compares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A repeated decision."""

    decision: Decision
    differs: tuple[str, ...]
    """Fields that differ from the record."""
    unrecorded: tuple[str, ...]
    """Inputs that are not recorded."""


class Fold(Protocol):
    """Folds outcomes into an estimator, up to a place in the ledger."""

    def __call__(self, estimator: Estimator, pool: Pool, *, until: int) -> Awaitable[tuple[Estimator, list[str]]]:
        """Return the estimator with the outcomes, and the detected changes of workers."""
        ...


class Replays:
    """Repeats recorded decisions."""

    def __init__(self, ledger: Ledger, analyzer: Analyzer, registry: Registry, fold: Fold) -> None:
        self._ledger = ledger
        self._analyzer = analyzer
        self._registry = registry
        self._fold = fold
        self._setups: dict[str, RoutingSetup] = {}
        """Setups by their digest. A ledger has few, with many decisions under each."""
        self._policies: dict[str, Policy] = {}
        """Policies by the digest of their setup, because it is slow to find a plugin."""

    async def replay(self, decided: Decided, pool: Pool) -> Replayed:
        """Repeat a recorded decision.

        The pool is for decisions whose worker cards were not recorded.

        Raises:
            NotReplayable: something that the decision depended on is gone, or was never recorded.
            CheckpointError: its checkpoint is gone.
            ConfigError: its policy is a plugin that is no longer installed.
        """
        recorded = decided.decision
        inputs = await self.restore(decided, pool)
        router = await self._make_router(recorded, inputs.setup)
        decision = _keep_written(recorded, router.decide(inputs))
        if recorded.inputs is None:
            decision = replace(decision, inputs=None)
        differs = tuple(name for name in COMPARED if getattr(decision, name) != getattr(recorded, name))
        unrecorded = UNRECORDED if recorded.inputs is None and not inputs.is_named else ()
        return Replayed(decision=decision, differs=differs, unrecorded=unrecorded)

    async def restore(self, decided: Decided, pool: Pool) -> DecisionInputs:
        """Restore the inputs of a recorded decision.

        The pool is for decisions whose worker cards were not recorded.

        Raises:
            NotReplayable: something that the decision depended on is gone, or was never recorded.
        """
        decision = decided.decision
        removed = find_removed_mode(decision.workflow)
        if removed is not None:
            raise NotReplayable(decision.id, missing=f"the workflow {removed!r} was removed")
        known = decision.inputs
        if known is None:
            setup, known = _infer_setup(decision, pool, self._analyzer.schema.name), _infer_inputs(decided)
        else:
            setup = await self._find_setup(decision.id, known.setup)
        task = replace(decided.task, objective=decision.objective, kind=known.kind)
        workflow = decision.workflow if known.is_given else None
        if names_worker(task, workflow):
            features = await self._analyzer.survey(task)
        elif self._analyzer.schema.name != setup.features:
            schemas = f"its features were {setup.features!r}, and are {self._analyzer.schema.name!r} now"
            raise NotReplayable(decision.id, missing=schemas)
        else:
            features = await self._find_features(decision.id, task, known)
        return DecisionInputs(
            id=decision.id,
            seed=decision.seed,
            task=task,
            features=features,
            mask=decision.mask,
            setup=setup,
            load=decision.load,
            incumbent=decision.incumbent,
            check=known.check,
            workflow=workflow,
        )

    async def _find_setup(self, decision: str, digest: str) -> RoutingSetup:
        if digest not in self._setups:
            found = await asyncio.to_thread(self._ledger.decisions.find_setup, digest)
            if found is None:
                raise NotReplayable(decision, missing=f"the ledger does not hold its setup {digest!r}")
            self._setups[digest] = found
        return self._setups[digest]

    async def _find_features(self, decision: str, task: Task, known: RecordedInputs) -> Features:
        """Compute the features as they were, whatever the current settings find in the text."""
        features, objective = await self._analyzer.analyze(task), task.objective
        vector = features.embedding
        if not known.is_encoded:
            vector = vector * 0
        elif not vector.any():
            raise NotReplayable(decision, missing="the vector of its text, which may not travel to the encoder now")
        return replace(
            features,
            embedding=vector,
            sensitivity=frozenset(map(Sensitivity, known.sensitivity)),
            mission_criticality=objective.mission_criticality,
            time_criticality=objective.time_criticality,
        )

    async def _make_router(self, decision: Decision, setup: RoutingSetup) -> Router:
        """Build the router of the decision, with the outcomes that it knew."""
        if decision.policy == NAMED:
            return Router(setup=setup, predictor=PriorPredictor(), policy=UtilityPolicy())
        if decision.inputs is None and decision.policy == "rules":
            raise NotReplayable(decision.id, missing="the text of its rules was not recorded")
        predictor: Predictor = PriorPredictor()
        learned: dict[WorkerId, Workflow] = {}
        if decision.predictor != predictor.version:
            version, _, watermark = decision.predictor.partition("+")
            estimator, card = self._registry.load_estimator(version, schema=self._analyzer.schema)
            if watermark:
                estimator, _ = await self._fold(estimator, setup.pool, until=int(watermark))
            predictor, learned = estimator, read_workflows(card)
        if decision.inputs is None:
            estimated = {estimate.worker for estimate in decision.estimates}
            learned = {name: workflow for name, workflow in learned.items() if name in estimated}
        if setup.digest not in self._policies:
            self._policies[setup.digest] = _build_policy(setup)
        return Router(setup=setup, predictor=predictor, policy=self._policies[setup.digest], learned=learned)


def _build_policy(setup: RoutingSetup) -> Policy:
    """Build the policy of a setup. The text of its rules is a temporary file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rules.toml"
        path.write_text(setup.rules, encoding="utf-8")
        options = dict(setup.options) | {"rules": path if setup.rules else None}
        return cast(Policy, build_plugin("ripieno.policies", setup.policy, options, key="route"))


def _infer_setup(decision: Decision, pool: Pool, schema: str) -> RoutingSetup:
    """Infer the setup of a decision of an earlier version, with the current worker cards.

    Raises:
        NotReplayable: an eligible worker has left the pool.
    """
    eligible = decision.mask.eligible
    for worker in eligible:
        if worker not in pool:
            raise NotReplayable(decision.id, missing=f"{worker!r} has left the pool, and its card was not recorded")
    others = (worker for worker in pool if worker.id not in eligible)
    return RoutingSetup(
        pool=Pool((*(pool[worker] for worker in eligible), *others)),
        policy=decision.policy,
        options=decision.policy_facts,
        features=schema,
    )


def _infer_inputs(decided: Decided) -> RecordedInputs:
    """Infer the inputs of a decision of an earlier version. The check in force stands for the stated one."""
    decision = decided.decision
    workflow, asked = decision.workflow, decision.objective.mode
    is_given = asked is None and decision.learned_workflow is None and not isinstance(workflow, Solo)
    return RecordedInputs(setup="", kind=decided.task.kind, check=getattr(workflow, "check", None), is_given=is_given)


def _keep_written(recorded: Decision, decision: Decision) -> Decision:
    """Copy the plan or the author of turns that a model wrote after the recorded decision."""
    written, made = recorded.workflow, decision.workflow
    if isinstance(written, Plan) and recorded.objective.mode in (Mode.PLAN, Mode.DECOMPOSE) and isinstance(made, Solo):
        return replace(decision, workflow=written)
    if isinstance(written, Turns) and isinstance(made, Turns):
        return replace(decision, workflow=replace(made, author=written.author))
    return decision
