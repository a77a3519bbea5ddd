"""Checkpoints: a predictor as safetensors with its model card, in a folder named by its version."""

import hashlib
import json
import os
import shutil
import tempfile
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
from ripieno.privacy.files import make_folder, write_private
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
        """The quality with its 95 % interval."""
        return Interval(mean=self.quality, low=self.quality_low, high=self.quality_high)


class Drawn(BaseModel):
    """What pictures of the held-out tasks are made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: dict[str, tuple[float, float]]
    """Mean cost in US dollars and mean quality of each worker; empty where costs are unknown."""
    curves: dict[str, tuple[tuple[float, float], ...]]
    """Cost and quality of the corners of each curve."""
    calibration: tuple[tuple[float, float], ...]
    """Predicted and measured quality of bins of equal count."""


class ModelCard(BaseModel):
    """The papers of a checkpoint; none is saved without."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    kind: str
    encoder: str
    features: FeatureSchema | None = None
    """What the features hold that it reads; None in format 3, where it follows from the arrays."""
    workers: tuple[str, ...]
    datasets: tuple[str, ...]
    tasks: int
    outcomes: int
    all_outcomes: int = 0
    """Outcomes of the data when this was trained, held-out ones included."""
    seed: int
    ripieno: str
    trained_at: str
    reference_cost_usd: float
    reference_latency_s: float
    metrics: dict[str, float]
    """Out-of-fold calibration error and Brier score, on the training tasks."""
    workflows: dict[str, dict[str, object]] = {}
    """Workflows that are estimated beside the workers, by the name of their column."""
    checks: dict[str, Trust] = {}
    """What the findings of verifiers were worth, by their names."""
    watermark: int = 0
    """Place in the ledger up to which outcomes of traffic were learned from."""
    unjudged: dict[str, tuple[int, int]] = {}
    """Answers without a verdict, and all answers, of each worker that has any without: they were not learned from."""
    margin: float
    """Quality by which a worker must be ahead of the best single one before it is taken."""
    held_out_tasks: int
    held_out: tuple[BaselineRow, ...]
    """The table of proof on held-out tasks; empty where the data hold none."""
    drawn: Drawn | None = None
    verdict: str
    limits: tuple[str, ...]

    @property
    def scales(self) -> Scales:
        """What counts as an ordinary price and wait."""
        return Scales(cost_usd=self.reference_cost_usd, latency_s=self.reference_latency_s)


class Canary(BaseModel):
    """A checkpoint that decides a share of the tasks before it is promoted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str
    share: float
    """Of the tasks, in (0, 1)."""
    since: int
    """Place in the ledger at which it began."""


class Registry:
    """The folder of checkpoints, and the pointers to those in traffic."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pointer = folder / POINTER
        """The file that names the version in traffic."""
        self.canary_pointer = folder / CANARY
        """The file that names the checkpoint on trial."""

    def canary(self) -> Canary | None:
        """Read which checkpoint decides a share of the tasks, if any.

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
                f"the canary's file {path!r} is damaged", hint="remove it: nothing else holds it"
            ) from error

    def set_canary(self, canary: Canary | None) -> None:
        """Give a checkpoint a share of the tasks, or take it back."""
        if canary is None:
            self.canary_pointer.unlink(missing_ok=True)
            return
        _replace(self.canary_pointer, canary.model_dump_json() + "\n")

    def save(self, checkpoint: Checkpoint, card: ModelCard) -> str:
        """Save a checkpoint whole, or not at all; its version is the digest of what it holds."""
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
        """Mark a version as one that must not come back unasked."""
        _replace(self.folder / version / QUARANTINE, f"{reason}\n")

    def quarantined(self, version: str) -> str | None:
        """Why a version is in quarantine, if it is."""
        try:
            return (self.folder / version / QUARANTINE).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def release(self, version: str) -> None:
        """Take a version out of quarantine."""
        (self.folder / version / QUARANTINE).unlink(missing_ok=True)

    def promote(self, version: str) -> str | None:
        """Put a version into traffic; gives the one that it replaces.

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
        _replace(self.pointer, f"{version}\n")
        return previous

    def current(self) -> str | None:
        """Read the version in traffic, if any."""
        try:
            return self.pointer.read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None

    def versions(self) -> list[str]:
        """All saved versions, oldest first."""
        cards = sorted(self.folder.glob(f"*/{CARD}"), key=lambda path: path.stat().st_mtime)
        return [card.parent.name for card in cards]

    def states(self) -> dict[str, str]:
        """Every version, oldest first: `in traffic`, `canary`, `quarantined` or `saved`."""
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
        """Load a version as what decides: it has yet to learn from outcomes later than those it was trained on."""
        checkpoint, card = self.load(version, schema=schema)
        return Estimator(checkpoint, OnlineState(watermark=card.watermark)), card


def _replace(path: Path, text: str) -> None:
    """Write a small file whole."""
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def load_checkpoint(folder: Path, *, schema: FeatureSchema) -> tuple[Checkpoint, ModelCard]:
    """Load a checkpoint folder.

    Args:
        folder: holds the card and the arrays.
        schema: of the features that it will be asked about.

    Raises:
        CheckpointError: it is missing, damaged, newer, or made for another encoder or other features.
        PredictorError: its plugin cannot take the arrays.
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
            f"checkpoint {str(folder)!r} is damaged: {type(error).__name__}: {error}", hint="run `ripieno train`"
        ) from error


def read_card(folder: Path) -> ModelCard:
    """Read and check the card of a checkpoint.

    Raises:
        CheckpointError: it is missing, damaged or newer than this Ripieno.
    """
    try:
        raw = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if isinstance(raw, dict) and raw.get("format", 0) > FORMAT:
            raise CheckpointError(
                f"checkpoint {str(folder)!r} has format {raw['format']}, this Ripieno reads {FORMAT}",
                hint="upgrade ripieno, or train anew",
            )
        if isinstance(raw, dict) and raw.get("format", FORMAT) < OLDEST_FORMAT:
            raise CheckpointError(
                f"checkpoint {str(folder)!r} has format {raw['format']}, which only older Ripienos read",
                hint="run `ripieno train`: the outcomes it was made of are in the ledger",
            )
        card = ModelCard.model_validate(raw)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint at {str(folder)!r}", hint="run `ripieno train`") from error
    except (OSError, ValueError, ValidationError) as error:
        raise CheckpointError(
            f"the card of checkpoint {str(folder)!r} is damaged", hint="run `ripieno train`"
        ) from error
    if card.kind not in KINDS and card.kind not in find_plugins(PLUGINS):
        raise CheckpointError(
            f"checkpoint {str(folder)!r} is of the unknown kind {card.kind!r}",
            hint=f"install the plugin of {PLUGINS} that is called so, or run `ripieno train`",
        )
    return card


def read_workflows(card: ModelCard) -> dict[WorkerId, Workflow]:
    """Read the workflows of a card.

    Raises:
        CheckpointError: one of them is none.
    """
    try:
        return {WorkerId(name): cast(Workflow, load_tagged(found)) for name, found in card.workflows.items()}
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"the card names a workflow that is none: {error}", hint="run `ripieno train`") from error


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
    """Lay out what the checkpoint proved on held-out tasks."""
    columns = (
        text("name", "policy"), number("interval", "quality [95 %]", spec=".3f"), money("cost_usd", "cost"),
        number("utility", spec="+.3f"), number("gap_closed", "gap closed", spec=".0%"),
    )  # fmt: skip
    return Report(
        title="held-out tasks", columns=columns, rows=card.held_out, chosen="router", empty="nothing was held out"
    )


def render_card(version: str, card: ModelCard) -> str:
    """Write the card as a page for people."""
    rows = [
        f"| {row.name} | {row.quality:.4f} | {row.quality_low:.4f} to {row.quality_high:.4f} | {row.utility:.4f} |"
        for row in card.held_out
    ]
    table = ["| policy | quality | 95 % interval | utility |", "| --- | ---: | --- | ---: |", *rows] if rows else []
    metrics = [f"- {name}: {value:.4f}" for name, value in card.metrics.items()]
    missing = ", ".join(f"{worker} {count} of {answers} answers" for worker, (count, answers) in card.unjudged.items())
    lines = [
        f"# {version}",
        "",
        f"A `{card.kind}` predictor of quality, cost and latency for {len(card.workers)} workers.",
        "",
        f"- Trained {card.trained_at} by Ripieno {card.ripieno}, seed {card.seed}, encoder `{card.encoder}`",
        f"- Data: {', '.join(card.datasets)}; {card.tasks} tasks, {card.outcomes} outcomes",
        f"- Workers: {', '.join(card.workers)}",
        *([f"- Without a verdict, and not learned from: {missing}"] if missing else []),
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


def describe_margin(margin: float) -> str:
    """Tell the guard in words."""
    if margin == 0.0:
        return "none needed, the unguarded choice gained on held-out tasks"
    if margin >= 1.0:
        return "the best single worker is never left for quality: no margin gained on held-out tasks"
    return f"a worker must be {margin:.3f} ahead in quality before the best single worker is left for it"
