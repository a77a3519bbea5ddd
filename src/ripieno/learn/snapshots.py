"""Snapshots: what outcomes have taught up to a place in the ledger, so that a start need not fold them in again.

A snapshot is a view: it holds for the ledger whose entry at that place has the same digest, and for the workers whose
version is the same; without it everything is folded in anew, to the same.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ripieno.domain import Pool, WorkerId
from ripieno.ledger import Ledger
from ripieno.privacy.files import write_private
from ripieno.route.predictors import TrainedPredictor
from ripieno.route.predictors.belief import Belief
from ripieno.route.predictors.trained import Learnt

NAME = "learnt-{place:012d}.safetensors"
FORMAT = "1"

log = logging.getLogger(__name__)


class Snapshots:
    """The snapshots of all checkpoints, each beside its own.

    Args:
        folder: of the checkpoints.
        ledger: the record that they are views of.
    """

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger

    def save(self, predictor: TrainedPredictor, pool: Pool) -> None:
        """Keep what was learnt so far; a disk that does not take it costs time later, and nothing else."""
        from safetensors.numpy import save

        learnt, folder = predictor.learnt(), self._folder / predictor.checkpoint
        digest = self._ledger.digest_at(learnt.watermark)
        if digest is None or not folder.is_dir():
            return
        path = folder / NAME.format(place=learnt.watermark)
        scratch = path.with_name(f".{path.name}-{os.getpid()}")
        try:
            write_private(scratch, save(_pack(learnt), metadata=_describe(learnt, pool) | {"digest": digest}))
            scratch.replace(path)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            log.warning("a snapshot of %s could not be kept: %s", predictor.checkpoint, error.strerror)

    def restore(self, predictor: TrainedPredictor, pool: Pool, *, until: int | None) -> None:
        """Give a predictor the latest snapshot up to a place, where there is one that holds."""
        versions = _list_versions(pool)
        for place, path in self._list(predictor, until):
            try:
                facts, arrays = _read(path)
                if facts.get("format") != FORMAT or facts.get("digest") != self._ledger.digest_at(place):
                    continue
                predictor.take(_unpack(facts, arrays, versions, place))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("snapshot %s is damaged, and left aside: %s", path.name, error)
                continue
            return

    def _list(self, predictor: TrainedPredictor, until: int | None) -> Iterator[tuple[int, Path]]:
        """Snapshots of a checkpoint, the latest first."""
        for path in sorted((self._folder / predictor.checkpoint).glob("learnt-*.safetensors"), reverse=True):
            place = path.stem.removeprefix("learnt-")
            if place.isdigit() and int(place) > predictor.watermark and (until is None or int(place) <= until):
                yield int(place), path


def _pack(learnt: Learnt) -> dict[str, np.ndarray]:
    names = list(learnt.beliefs)
    return {
        "mean": np.array([learnt.beliefs[name].mean for name in names]),
        "covariance": np.array([learnt.beliefs[name].covariance for name in names]),
        "outcomes": np.array([learnt.outcomes[name] for name in names], dtype=np.int64),
        "factors": np.array([learnt.factors.get(name, (0.0, 0.0)) for name in names]),
        "first_shares": np.array([learnt.first_shares.get(name, np.nan) for name in names]),
    }


def _describe(learnt: Learnt, pool: Pool) -> dict[str, str]:
    versions = _list_versions(pool)
    return {
        "format": FORMAT,
        "folded": str(learnt.folded),
        "workers": json.dumps([[name, versions.get(name, "")] for name in learnt.beliefs]),
        "drifts": json.dumps(learnt.drifts),
        "changed": json.dumps(learnt.changed),
    }


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _unpack(
    facts: Mapping[str, str], arrays: Mapping[str, np.ndarray], versions: Mapping[str, str], place: int
) -> Learnt:
    listed = [(WorkerId(str(name)), str(version)) for name, version in json.loads(facts["workers"])]
    rows = {name: row for row, (name, version) in enumerate(listed) if versions.get(name, "") == version}
    factors, first = arrays["factors"], arrays["first_shares"]
    return Learnt(
        watermark=place,
        folded=int(facts["folded"]),
        beliefs={
            name: Belief(mean=arrays["mean"][row], covariance=arrays["covariance"][row]) for name, row in rows.items()
        },
        outcomes={name: int(arrays["outcomes"][row]) for name, row in rows.items()},
        factors={name: (float(factors[row][0]), float(factors[row][1])) for name, row in rows.items()},
        first_shares={name: float(first[row]) for name, row in rows.items() if not np.isnan(first[row])},
        drifts=tuple(str(told) for told in json.loads(facts["drifts"])),
        changed=tuple(WorkerId(str(name)) for name in json.loads(facts["changed"]) if name in rows),
    )


def _list_versions(pool: Pool) -> dict[str, str]:
    """Versions by worker; workflows that are estimated like workers have none."""
    return {worker.id: worker.version for worker in pool}
