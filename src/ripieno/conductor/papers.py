"""Weights files: weights in one safetensors file with their metadata, written atomically."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ripieno.conductor.policy import ACTIONS, Floats
from ripieno.domain import JsonValue
from ripieno.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Papers:
    """Weights with their metadata."""

    tensors: Mapping[str, Floats]
    form: str
    encoder: str
    """Encoder whose vectors the weights were trained on."""
    card: Mapping[str, JsonValue]
    more: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""


def save_papers(path: Path, papers: Papers) -> None:
    """Write the weights file, whole or not at all."""
    facts = {"format": papers.form, "encoder": papers.encoder, "actions": _name_actions()}
    facts |= {"card": json.dumps(papers.card), **papers.more}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(save({name: value.astype(np.float32) for name, value in papers.tensors.items()}, metadata=facts))
    part.replace(path)


def load_papers(path: Path, *, what: str, form: str, encoder: str) -> Papers:
    """Read a weights file. Errors call it `what`.

    Raises:
        CheckpointError: the file is missing, damaged, of another format, or was trained with another encoder.
    """
    try:
        data = path.read_bytes()
        tensors = {name: value.astype(np.float64) for name, value in load(data).items()}
        size = int.from_bytes(data[:8], "little")
        facts: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
        known = {name: facts.pop(name) for name in ("format", "encoder", "actions", "card")}
        card: dict[str, JsonValue] = json.loads(known["card"])
        actions = json.loads(known["actions"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{what} {path} cannot be read: {error}", path=str(path)) from error
    if known["format"] != form or actions != json.loads(_name_actions()):
        raise CheckpointError(f"{what} {path} has another format", path=str(path), hint="train it again")
    if known["encoder"] != encoder:
        raise CheckpointError(
            f"{what} {path} was trained with the encoder {known['encoder']!r}, and {encoder!r} is in use",
            path=str(path),
            hint="train it again, or set encoder.name",
        )
    digest = hashlib.sha256(data).hexdigest()[:8]
    return Papers(tensors=tensors, form=form, encoder=encoder, card=card, more=facts, digest=digest)


def _name_actions() -> str:
    return json.dumps([[op.value, source] for op, source in ACTIONS])
