"""Checkpoints: a predictor as safetensors with its model card. The folder is named by the version."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ripieno.domain import FeatureSchema, Workflow
from ripieno.domain.report import Interval, Report, money, number, text
from ripieno.domain.worker import WorkerId
from ripieno.errors import CheckpointError, GateRefused, NotFound
from ripieno.ledger.tagged import load_tagged
from ripieno.plugins import find_plugins
from ripieno.privacy.files import make_folder, replace_private, write_private
from ripieno.route.predictors import KINDS, Checkpoint, Estimator, OnlineState
from ripieno.route.predictors.checkpoint import PLUGINS, infer_schema
from ripieno.route.utility import Scales
from ripieno.verify.trust import Trust

FORMAT, OLDEST_FORMAT = 4, 3
CARD, WEIGHTS, README = "card.json", "predictor.safetensors", "README.md"
POINTER, CANARY, QUARANTINE = "current", "canary.json", "quarantine.txt"


class BaselineRow(BaseModel):
    """One row of the card's held-out table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    quality: float
    quality_low: float
    quality_high: float
    utility: float
    cost_usd: float | None = None
    gap_closed: float | None = None
    """Share of the utility gap between best single worker and oracle."""

    @property
    def interval(self) -> Interval:
        """Return the quality with its 95 % interval."""
        return Interval(mean=self.quality, low=self.quality_low, high=self.quality_high)


class Drawn(BaseModel):
    """Data of the pictures of the held-out tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: dict[str, tuple[float, float]]
    """Mean cost in US dollars and mean quality of each worker; empty if costs are unknown."""
    curves: dict[str, tuple[tuple[float, float], ...]]
    """Cost and quality of the points of each curve."""
    calibration: tuple[tuple[float, float], ...]
    """Predicted and measured quality in bins of equal count."""


class ModelCard(BaseModel):
    """The model card of a checkpoint, without which none is saved."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    kind: str
    encoder: str
    features: FeatureSchema | None = None
    """Schema of the features that it reads; None in format 3, where it follows from the arrays."""
    workers: tuple[str, ...]
    datasets: tuple[str, ...]
    tasks: int
    outcomes: int
    all_outcomes: int = 0
    """Outcomes of the data set at the training, including held-out ones."""
    seed: int
    ripieno: str
    trained_at: str
    reference_cost_usd: float
    reference_latency_s: float
    metrics: dict[str, float]
    """Out-of-fold calibration error and Brier score, on the training tasks."""
    workflows: dict[str, dict[str, object]] = {}
    """Workflows with a column of their own, by its name."""
    checks: dict[str, Trust] = {}
    """Learned value of the verdicts of each verifier."""
    watermark: int = 0
    """Place in the ledger up to which it learned from traffic."""
    unjudged: dict[str, tuple[int, int]] = {}
    """Answers without a verdict, which taught nothing, and all answers, of each worker that has any."""
    margin: float
    """Quality by which a worker must beat the best single one."""
    held_out_tasks: int
    held_out: tuple[BaselineRow, ...]
    """The table of proof on held-out tasks; empty without such tasks."""
    drawn: Drawn | None = None
    verdict: str
    limits: tuple[str, ...]

    @property
    def scales(self) -> Scales:
        """Return an ordinary cost and latency."""
        return Scales(cost_usd=self.reference_cost_usd, latency_s=self.reference_latency_s)


class Canary(BaseModel):
    """A checkpoint on trial, which decides a share of the tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str
    share: float
    """Share of the tasks, in (0, 1)."""
    since: int
    """Place in the ledger at which the trial began."""


class Registry:
    """The folder of checkpoints, with the files that name those in traffic."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pointer = folder / POINTER
        """File that names the version in traffic."""
        self.canary_pointer = folder / CANARY
        """File that names the checkpoint on trial."""

    def canary(self) -> Canary | None:
        """Read the checkpoint on trial, if any.

        Raises:
            CheckpointError: the file is damaged.
        """
        try:
            return Canary.model_validate_json(self.canary_pointer.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            path = str(self.canary_pointer)
            raise CheckpointError(
                f"the canary's file {path!r} is damaged", hint="remove it to end the trial"
            ) from error

    def set_canary(self, canary: Canary | None) -> None:
        """Start the trial of a checkpoint, or end it."""
        if canary is None:
            self.canary_pointer.unlink(missing_ok=True)
            return
        replace_private(self.canary_pointer, f"{canary.model_dump_json()}\n".encode())

    def save(self, checkpoint: Checkpoint, card: ModelCard) -> str:
        """Save a checkpoint, whole or not at all. Its version is the digest of its content."""
        from safetensors.numpy import save

        arrays = {name: np.ascontiguousarray(value) for name, value in checkpoint.arrays().items()}
        weights = save(arrays)
        packed = card.model_dump_json(indent=1)
        version = f"{checkpoint.kind}-{hashlib.sha256(weights + packed.encode()).hexdigest()[:12]}"
        target = self.folder / version
        make_folder(self.folder)
        scratch = Path(tempfile.mkdtemp(prefix=".saving-", dir=self.folder))
        try:
            write_private(scratch / WEIGHTS, weights)
            write_private(scratch / CARD, f"{packed}\n".encode())
            write_private(scratch / README, render_card(version, card).encode())
            if not target.exists():
                scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return version

    def quarantine(self, version: str, reason: str) -> None:
        """Forbid the promotion of a version until it is released."""
        replace_private(self.folder / version / QUARANTINE, f"{reason}\n".encode())

    def quarantined(self, version: str) -> str | None:
        """Return why a version is in quarantine; None if it is not."""
        try:
            return (self.folder / version / QUARANTINE).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def release(self, version: str) -> None:
        """Release a version from quarantine."""
        (self.folder / version / QUARANTINE).unlink(missing_ok=True)

    def promote(self, version: str) -> str | None:
        """Put a version into traffic. Return the one that it replaces.

        Raises:
            NotFound: there is no such version.
            GateRefused: it is in quarantine.
        """
        if not (self.folder / version / CARD).is_file():
            known = ", ".join(self.versions()) or "none"
            raise NotFound(f"there is no checkpoint {version!r}", hint=f"checkpoints here: {known}")
        reason = self.quarantined(version)
        if reason is not None:
            raise GateRefused(
                f"checkpoint {version!r} is in quarantine: {reason}",
                hint="`ripieno policy promote --release` overrules",
            )
        previous = self.current()
        replace_private(self.pointer, f"{version}\n".encode())
        return previous

    def current(self) -> str | None:
        """Read the version in traffic, if any."""
        try:
            return self.pointer.read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None

    def versions(self) -> list[str]:
        """List the saved versions, oldest first."""
        cards = sorted(self.folder.glob(f"*/{CARD}"), key=lambda path: path.stat().st_mtime)
        return [card.parent.name for card in cards]

    def states(self) -> dict[str, str]:
        """Return the state of each version, oldest first: `in traffic`, `canary`, `quarantined` or `saved`."""
        current, canary = self.current(), self.canary()
        on_trial = canary.checkpoint if canary is not None else None
        marked = {on_trial: "canary", current: "in traffic"}
        return {
            version: marked.get(version) or ("quarantined" if self.quarantined(version) else "saved")
            for version in self.versions()
        }

    def load(self, version: str, *, schema: FeatureSchema) -> tuple[Checkpoint, ModelCard]:
        """Load a version; see `load_checkpoint`."""
        return load_checkpoint(self.folder / version, schema=schema)

    def load_estimator(self, version: str, *, schema: FeatureSchema) -> tuple[Estimator, ModelCard]:
        """Load a version as an estimator. It has not learned from later outcomes yet."""
        checkpoint, card = self.load(version, schema=schema)
        return Estimator(checkpoint, OnlineState(watermark=card.watermark)), card


OTHER_OR_NONE = (
    "if it is in traffic, `ripieno policy promote` another one (`ripieno policy list`), or remove the file "
    "`checkpoints/current` to route without one"
)


def load_checkpoint(folder: Path, *, schema: FeatureSchema) -> tuple[Checkpoint, ModelCard]:
    """Load a checkpoint folder.

    Raises:
        CheckpointError: it is missing, damaged, newer, or made for another encoder or other features.
        PredictorError: its plugin refuses the arrays.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    card = read_card(folder)
    if card.encoder != schema.encoder:
        raise CheckpointError(
            f"checkpoint {folder.name!r} was trained with the encoder {card.encoder!r}, here it is {schema.encoder!r}",
            key="encoder.name",
            hint="set that encoder, or run `ripieno train`",
        )
    try:
        arrays = load((folder / WEIGHTS).read_bytes())
        for read in (card.features, infer_schema(card.kind, arrays, encoder=card.encoder)):
            if read is not None and not read.fits(schema):
                raise CheckpointError(
                    f"checkpoint {folder.name!r} reads the features {read.name!r}, here they are {schema.name!r}",
                    hint="run `ripieno train`: the outcomes it was made of are in the ledger",
                )
        workers = [WorkerId(worker) for worker in card.workers]
        return Checkpoint.restore(card.kind, workers, arrays, version=folder.name), card
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {str(folder)!r} is damaged: {type(error).__name__}: {error}", hint=OTHER_OR_NONE
        ) from error


def read_card(folder: Path) -> ModelCard:
    """Read the card of a checkpoint.

    Raises:
        CheckpointError: it is missing, damaged or newer than this Ripieno.
    """
    try:
        raw = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if isinstance(raw, dict) and raw.get("format", 0) > FORMAT:
            raise CheckpointError(
                f"checkpoint {str(folder)!r} has format {raw['format']}, this Ripieno reads {FORMAT}",
                hint="upgrade ripieno, or train again",
            )
        if isinstance(raw, dict) and raw.get("format", FORMAT) < OLDEST_FORMAT:
            raise CheckpointError(
                f"checkpoint {str(folder)!r} has format {raw['format']}, which only older Ripienos read",
                hint="run `ripieno train`: the outcomes it was made of are in the ledger",
            )
        card = ModelCard.model_validate(raw)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint at {str(folder)!r}", hint=OTHER_OR_NONE) from error
    except (OSError, ValueError, ValidationError) as error:
        raise CheckpointError(f"the card of checkpoint {str(folder)!r} is damaged", hint=OTHER_OR_NONE) from error
    if card.kind not in KINDS and card.kind not in find_plugins(PLUGINS):
        raise CheckpointError(
            f"checkpoint {str(folder)!r} is of the unknown kind {card.kind!r}",
            hint=f"install the plugin of {PLUGINS} that is called so, or run `ripieno train`",
        )
    return card


def read_workflows(card: ModelCard) -> dict[WorkerId, Workflow]:
    """Read the workflows of a card.

    Raises:
        CheckpointError: one of them is invalid.
    """
    try:
        return {WorkerId(name): cast(Workflow, load_tagged(found)) for name, found in card.workflows.items()}
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"the card has an invalid workflow: {error}", hint="run `ripieno train`") from error


def require_shared_workers(card: ModelCard, workers: tuple[str, ...], *, version: str) -> None:
    """Refuse a checkpoint that knows none of the pool's workers.

    Raises:
        CheckpointError: no worker is shared.
    """
    if not set(card.workers) & set(workers):
        raise CheckpointError(
            f"checkpoint {version!r} belongs to another pool: it knows {', '.join(card.workers[:4])}, "
            f"this pool has {', '.join(workers[:4]) or 'no worker'}",
            hint="run `ripieno profile` and `ripieno train` for this pool, or `ripieno policy promote` another one",
        )


def tabulate_card(card: ModelCard) -> Report:
    """Lay out the results on held-out tasks."""
    columns = (
        text("name", "policy"), number("interval", "quality [95 %]", spec=".3f"), money("cost_usd", "cost"),
        number("utility", spec="+.3f"), number("gap_closed", "gap closed", spec=".0%"),
    )  # fmt: skip
    return Report(
        title="held-out tasks", columns=columns, rows=card.held_out, chosen="router", empty="nothing was held out"
    )


def render_card(version: str, card: ModelCard) -> str:
    """Write the card as a Markdown page."""
    rows = [
        f"| {row.name} | {row.quality:.4f} | {row.quality_low:.4f} to {row.quality_high:.4f} | {row.utility:.4f} |"
        for row in card.held_out
    ]
    table = ["| policy | quality | 95 % interval | utility |", "| --- | ---: | --- | ---: |", *rows] if rows else []
    metrics = [f"- {name}: {value:.4f}" for name, value in card.metrics.items()]
    missing = describe_missing(card.unjudged)
    lines = [
        f"# {version}",
        "",
        f"A `{card.kind}` predictor of quality, cost and latency for {len(card.workers)} workers.",
        "",
        f"- Trained {card.trained_at} by Ripieno {card.ripieno}, seed {card.seed}, encoder `{card.encoder}`",
        f"- Data: {', '.join(card.datasets)}; {card.tasks} tasks, {card.outcomes} outcomes",
        f"- Workers: {', '.join(card.workers)}",
        *([f"- Answers without a verdict, and not learned from: {missing}"] if missing else []),
        f"- Guard: {describe_margin(card.margin)}",
        "",
        "## Out of fold, on the training tasks",
        "",
        *metrics,
        "",
        f"## Held out: {card.held_out_tasks} tasks",
        "",
        *table,
        "",
        card.verdict,
        "",
        "## Known limits",
        "",
        *(f"- {limit}" for limit in card.limits),
        "",
    ]
    return "\n".join(lines)


def describe_missing(unjudged: Mapping[str, tuple[int, int]]) -> str:
    """Describe how many answers of each worker have no verdict; empty if all have one."""
    return ", ".join(f"{worker} {missing} of {answers}" for worker, (missing, answers) in unjudged.items())


def describe_margin(margin: float) -> str:
    """Describe the guard in words."""
    if margin == 0.0:
        return "none needed, the unguarded choice gained on held-out tasks"
    if margin >= 1.0:
        return "the best single worker is never left for quality: no margin gained on held-out tasks"
    return f"a worker must be {margin:.3f} ahead in quality before the best single worker is left for it"
