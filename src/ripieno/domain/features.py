"""Features: what analysis found in one task."""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

TERM_BUCKETS = 8192
"""Buckets that words and word pairs are hashed into."""


class Need(StrEnum):
    """What a worker must be able to do to take the task at all."""

    TOOLS = "tools"
    JSON = "json"
    IMAGE = "image"
    AUDIO = "audio"


class Sensitivity(StrEnum):
    """What a text holds that should not travel far."""

    SECRET = "secret"  # noqa: S105  # a kind of data, not one
    PERSONAL = "personal"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """All that routing knows of a task."""

    embedding: Vector
    """The encoder's vector of the text, shape (d,), unit length, or zero for empty text."""
    terms: npt.NDArray[np.int64]
    """Hashed words and word pairs, shape (t,), each in [0, TERM_BUCKETS), ascending and distinct."""
    term_counts: Vector
    """log(1 + count) of each term, shape (t,)."""
    shape: Vector
    """Cheap scalars of the text's form, shape (s,); their names are in `ripieno.analyze.shape`."""
    tool_shape: Vector
    """Cheap scalars of the offered tools, shape (u,), zeros without; their names are in `ripieno.analyze.tools`."""
    prompt_tokens: int
    turns: int
    code_blocks: int
    images: int
    tools: int
    needs: frozenset[Need] = field(default_factory=frozenset)
    kind: str | None = None
    """The kind of task: stated, or inferred by the predictor before the policy sees it."""
    language: str | None = None
    """ISO code of the text's language; None where unsure."""
    sensitivity: frozenset[Sensitivity] = field(default_factory=frozenset)
    """Empty where nobody has looked."""
    mission_criticality: float = 3.0
    time_criticality: float = 3.0
