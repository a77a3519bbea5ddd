"""Features: the results of the analysis of one task."""

from dataclasses import dataclass, field
from enum import StrEnum
from zlib import crc32

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

TERM_BUCKETS = 8192
"""Buckets that words and word pairs are hashed into."""


class Need(StrEnum):
    """An ability that a task requires of its worker."""

    TOOLS = "tools"
    JSON = "json"
    IMAGE = "image"
    AUDIO = "audio"


class Sensitivity(StrEnum):
    """A kind of data in a text that should not travel far."""

    SECRET = "secret"  # noqa: S105  # a kind of data, not one
    PERSONAL = "personal"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """The features of one task, on which routing depends."""

    embedding: Vector
    """The encoder's vector of the text, shape (d,), unit length, or zero for empty text."""
    terms: npt.NDArray[np.int64]
    """Hashed words and word pairs, shape (t,), each in [0, TERM_BUCKETS), ascending and distinct."""
    term_counts: Vector
    """log(1 + count) of each term, shape (t,)."""
    shape: Vector
    """Scalars of the text's form, shape (s,); `ripieno.analyze.shape` has their names."""
    tool_shape: Vector
    """Scalars of the offered tools, shape (u,), zeros without tools; `ripieno.analyze.tools` has their names."""
    prompt_tokens: int
    turns: int
    code_blocks: int
    images: int
    tools: int
    needs: frozenset[Need] = field(default_factory=frozenset)
    kind: str | None = None
    """Kind of the task: stated by the caller, or inferred by the predictor before the policy decides."""
    language: str | None = None
    """ISO code of the text's language; None if uncertain."""
    sensitivity: frozenset[Sensitivity] = field(default_factory=frozenset)
    """Empty if the scan is off."""
    mission_criticality: float = 3.0
    time_criticality: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSchema:
    """The parts of the features. A predictor reads only features of the schema that it was trained on.

    A part is None if the predictor does not read it. The name of a scalar is empty if it was not recorded.
    """

    encoder: str
    width: int
    """Length of the encoder's vectors."""
    terms: int | None = None
    shape: tuple[str, ...] | None = None
    """Names of the scalars of the text's form."""
    tool_shape: tuple[str, ...] | None = None
    """Names of the scalars of the offered tools."""

    @property
    def name(self) -> str:
        """Return every part with its size, and with a checksum if the names of its scalars are recorded."""
        parts = [f"{self.encoder}/{self.width}"]
        if self.terms is not None:
            parts.append(f"terms/{self.terms}")
        for part, names in (("shape", self.shape), ("tools", self.tool_shape)):
            if names is not None:
                mark = f"-{crc32(' '.join(names).encode()):08x}" if all(names) else ""
                parts.append(f"{part}/{len(names)}{mark}")
        return "+".join(parts)

    def fits(self, given: "FeatureSchema") -> bool:
        """Return whether a predictor of this schema can read the features of `given`."""
        return (
            (self.encoder, self.width) == (given.encoder, given.width)
            and self.terms in (None, given.terms)
            and _same_scalars(self.shape, given.shape)
            and _same_scalars(self.tool_shape, given.tool_shape)
        )


def _same_scalars(read: tuple[str, ...] | None, given: tuple[str, ...] | None) -> bool:
    if read is None or read == given:
        return True
    return given is not None and len(read) == len(given) and not all(read)
