"""Training of the model that predicts criticalities that callers do not state."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ripieno.analyze.criticality import CriticalityModel
from ripieno.domain import Features
from ripieno.errors import CheckpointError, DataError
from ripieno.privacy.files import make_folder, replace_private
from ripieno.route.predictors.pair import draw_folds
from ripieno.tasks import RoutingData

FILE = "criticality.safetensors"
LEAST_TASKS = 20
REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedCriticality:
    """A model, and its accuracy on unseen tasks."""

    model: CriticalityModel
    tasks: int
    mission_r2: float
    """Share of variance explained out of fold, grouped by prompt; below 0 is worse than the mean."""
    time_r2: float


def fit_criticality(data: RoutingData, features: Sequence[Features], *, seed: int = 0) -> FittedCriticality:
    """Fit on all prompts with both criticalities. R2 is the mean over repeated folds, grouped by prompt.

    Raises:
        DataError: too few prompts have both.
    """
    listed = [(prompt.mission_criticality, prompt.time_criticality) for prompt in data.prompts]
    rows = [row for row, both in enumerate(listed) if None not in both]
    if len(rows) < LEAST_TASKS:
        raise DataError(
            f"{len(rows)} prompts have both criticalities, at least {LEAST_TASKS} are needed",
            path=data.name,
            place="prompts, columns mission_criticality and time_criticality",
        )
    known = [features[row] for row in rows]
    stated = np.array([listed[row] for row in rows], dtype=np.float64)
    groups = [data.prompts[row].group or data.prompts[row].text for row in rows]
    rng, shares = np.random.default_rng(seed), []
    for _ in range(REPEATS):
        guessed = np.tile(stated.mean(axis=0), (len(rows), 1))
        for train, test in draw_folds(groups, rng=rng):
            model = CriticalityModel.fit([known[row] for row in train], stated[train])
            guessed[test] = model.predict([known[row] for row in test])
        spread = ((stated - stated.mean(axis=0)) ** 2).sum(axis=0)
        shares.append(1.0 - ((guessed - stated) ** 2).sum(axis=0) / np.maximum(spread, 1e-9))
    mission, time = np.mean(shares, axis=0).tolist()
    return FittedCriticality(
        model=CriticalityModel.fit(known, stated), tasks=len(rows), mission_r2=mission, time_r2=time
    )


def save_criticality(model: CriticalityModel, home: Path, *, encoder: str) -> Path:
    """Save a model where the analyzer finds it, whole or not at all."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in model.arrays.items()}
    path = make_folder(home) / FILE
    replace_private(path, save(arrays, metadata={"encoder": encoder}))
    return path


def load_criticality(home: Path, *, encoder: str) -> CriticalityModel | None:
    """Load the saved model; None if there is none for this encoder.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = home / FILE
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            if (opened.metadata() or {}).get("encoder") != encoder:
                return None
            return CriticalityModel({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged", hint="train it again, or remove it") from error
