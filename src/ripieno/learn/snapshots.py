"""Snapshots of the online state at a place in the ledger, so that a start does not read all outcomes again.

A snapshot is a view. It is valid only for the ledger whose entry at that place has the same digest, and for workers of
the same version. Without it, the outcomes give the same state again.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ripieno.domain import Pool, WorkerId
from ripieno.ledger import Ledger
from ripieno.privacy.files import replace_private
from ripieno.route.predictors import Estimator, OnlineState
from ripieno.route.predictors.belief import Belief
from ripieno.route.predictors.drift import DriftWatch

NAME = "learnt-{place:012d}.safetensors"
FORMAT = "1"

log = logging.getLogger(__name__)


class Snapshots:
    """The snapshots of all checkpoints, each in the folder of its checkpoint."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger

    def save(self, checkpoint: str, state: OnlineState, pool: Pool) -> None:
        """Save the state of a checkpoint. A failed write only costs time at the next start."""
        from safetensors.numpy import save

        folder = self._folder / checkpoint
        digest = self._ledger.digest_at(state.watermark)
        if digest is None or not folder.is_dir():
            return
        content = save(_pack(state), metadata=_describe(state, pool) | {"digest": digest})
        try:
            replace_private(folder / NAME.format(place=state.watermark), content)
        except OSError as error:
            log.warning("a snapshot of %s could not be saved: %s", checkpoint, error.strerror)

    def restore(self, estimator: Estimator, pool: Pool, *, until: int | None) -> Estimator:
        """Return an estimator with its latest valid snapshot up to a place; the same estimator if there is none."""
        versions, groups = _list_versions(pool), len(estimator.checkpoint.newcomer.mean)
        for place, path in self._list(estimator, until):
            try:
                facts, arrays = _read(path)
                if facts.get("format") != FORMAT or facts.get("digest") != self._ledger.digest_at(place):
                    continue
                state = _unpack(facts, arrays, versions, place, groups=groups)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("snapshot %s is damaged and is not used: %s", path.name, error)
                continue
            return Estimator(estimator.checkpoint, state)
        return estimator

    def _list(self, estimator: Estimator, until: int | None) -> Iterator[tuple[int, Path]]:
        """Yield the snapshots of a checkpoint, the latest first."""
        folder, after = self._folder / estimator.checkpoint.version, estimator.state.watermark
        for path in sorted(folder.glob("learnt-*.safetensors"), reverse=True):
            place = path.stem.removeprefix("learnt-")
            if place.isdigit() and int(place) > after and (until is None or int(place) <= until):
                yield int(place), path


def _pack(state: OnlineState) -> dict[str, np.ndarray]:
    names = list(state.beliefs)
    return {
        "mean": np.array([state.beliefs[name].mean for name in names]),
        "covariance": np.array([state.beliefs[name].covariance for name in names]),
        "outcomes": np.array([state.outcomes[name] for name in names], dtype=np.int64),
        "factors": np.array([state.factors.get(name, (0.0, 0.0)) for name in names]),
        "first_shares": np.array([state.first_shares.get(name, np.nan) for name in names]),
    }


def _describe(state: OnlineState, pool: Pool) -> dict[str, str]:
    versions = _list_versions(pool)
    return {
        "format": FORMAT,
        "folded": str(state.folded),
        "workers": json.dumps([[name, versions.get(name, "")] for name in state.beliefs]),
        "drifts": json.dumps(state.drifts),
        "changed": json.dumps(sorted(state.watch.changed)),
    }


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _unpack(
    facts: Mapping[str, str], arrays: Mapping[str, np.ndarray], versions: Mapping[str, str], place: int, *, groups: int
) -> OnlineState:
    if arrays["covariance"].shape[1:] != (groups, groups):
        raise ValueError(f"beliefs are not of {groups} groups")
    listed = [(WorkerId(str(name)), str(version)) for name, version in json.loads(facts["workers"])]
    rows = {name: row for row, (name, version) in enumerate(listed) if versions.get(name, "") == version}
    factors, first = arrays["factors"], arrays["first_shares"]
    return OnlineState(
        watermark=place,
        folded=int(facts["folded"]),
        beliefs={
            name: Belief(mean=arrays["mean"][row], covariance=arrays["covariance"][row]) for name, row in rows.items()
        },
        outcomes={name: int(arrays["outcomes"][row]) for name, row in rows.items()},
        factors={name: (float(factors[row][0]), float(factors[row][1])) for name, row in rows.items()},
        first_shares={name: float(first[row]) for name, row in rows.items() if not np.isnan(first[row])},
        drifts=tuple(str(told) for told in json.loads(facts["drifts"])),
        watch=DriftWatch(WorkerId(str(name)) for name in json.loads(facts["changed"]) if name in rows),
    )


def _list_versions(pool: Pool) -> dict[str, str]:
    """Return the version of each worker. Workflows have none."""
    return {worker.id: worker.version for worker in pool}
