"""Task to Features."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ripieno.analyze.criticality import CriticalityModel
from ripieno.analyze.language import detect_language
from ripieno.analyze.shape import NAMES as SHAPE_NAMES
from ripieno.analyze.shape import measure_shape
from ripieno.analyze.terms import hash_terms
from ripieno.analyze.tools import NAMES as TOOL_NAMES
from ripieno.analyze.tools import measure_tools
from ripieno.domain import Features, FeatureSchema, Need, Objective, Sensitivity, Task, Vector
from ripieno.domain.conversation import MediaKind
from ripieno.domain.features import TERM_BUCKETS
from ripieno.domain.run import CHARACTERS_PER_TOKEN
from ripieno.encoders import Encoder, clip_text, find_privacy
from ripieno.privacy import Boundary

CHARACTERS = 6000
"""Characters of a text that features are computed from. The limit bounds the cost of routing a long prompt."""
TOOL_CHARACTERS = 1500
MOST_KNOWN = 512
"""Tasks whose features are cached. Each entry takes some kilobytes."""
_NOTHING = np.zeros(0, dtype=np.float32)
_NO_TERMS = np.zeros(0, dtype=np.int64)


class Analyzer:
    """Computes the features of tasks. It holds the encoder.

    Args:
        encoder: text to vectors.
        criticality: predicts the criticalities that the caller does not state; without it, the defaults apply.
        boundary: returns the current limit on where sensitive text may travel, and finds sensitive text; None
            disables it.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        criticality: CriticalityModel | None = None,
        boundary: Callable[[], Boundary | None] = lambda: None,
    ) -> None:
        self.encoder = encoder
        self.criticality = criticality
        self._boundary = boundary
        self._known: dict[tuple[object, ...], Features] = {}
        self.hits = 0
        """Tasks whose features were in the cache."""
        self.misses = 0

    @property
    def schema(self) -> FeatureSchema:
        """Return the schema of the features that this analyzer computes."""
        return FeatureSchema(
            encoder=self.encoder.name,
            width=self.encoder.dimensions,
            terms=TERM_BUCKETS,
            shape=SHAPE_NAMES,
            tool_shape=TOOL_NAMES,
        )

    async def analyze(self, task: Task) -> Features:
        """Compute the features of one task, or return the cached features of an equal one."""
        asked = task.objective
        is_near = not self._may_encode(asked)
        name = (
            *(task.digest, task.kind, asked.mission_criticality, asked.time_criticality, asked.stated),
            *(is_near, self._boundary()),
        )
        known = self._known.get(name)
        if known is not None:
            self.hits += 1
            return known
        self.misses += 1
        features = (await self.analyze_many([task]))[0]
        self._known[name] = features
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return features

    async def survey(self, task: Task) -> Features:
        """Compute only what the mask needs: size, needs and, if a boundary is set, sensitivity."""
        return _measure(task, _tool_text(task.tools), await self._find_sensitivity(task))

    async def analyze_many(self, tasks: Sequence[Task]) -> list[Features]:
        """Compute the features of many tasks, with one call of the encoder.

        A text that may not travel to the encoder gets a vector of zeros.
        """
        found = [await self._find_sensitivity(task) for task in tasks]
        texts = [routing_text(task) for task in tasks]
        may = [self._may_encode(task.objective, held) for task, held in zip(tasks, found, strict=True)]
        if all(may):
            vectors = await self.encoder.encode(texts)
        else:
            vectors = np.zeros((len(texts), self.encoder.dimensions), dtype=np.float32)
            if any(may):
                vectors[may] = await self.encoder.encode([text for text, goes in zip(texts, may, strict=True) if goes])
        rows = zip(tasks, texts, vectors, found, strict=True)
        return [self._build(task, text, vector, held) for task, text, vector, held in rows]

    async def _find_sensitivity(self, task: Task) -> frozenset[Sensitivity]:
        boundary = self._boundary()
        return await boundary.find_in(task) if boundary is not None else frozenset()

    def _may_encode(self, objective: Objective, held: frozenset[Sensitivity] = frozenset()) -> bool:
        """Return whether a task's text may travel to the encoder."""
        far, boundary = find_privacy(self.encoder).reach, self._boundary()
        is_within = not held or boundary is None or far <= boundary.reach.reach
        return is_within and far <= objective.privacy.reach

    def _build(self, task: Task, text: str, vector: Vector, held: frozenset[Sensitivity]) -> Features:
        terms, counts = hash_terms(text)
        asked = clip_text(task.text, limit=CHARACTERS)
        tool_text, turns = _tool_text(task.tools), len(task.messages)
        features = replace(
            _measure(task, tool_text, held),
            embedding=vector,
            terms=terms,
            term_counts=counts,
            shape=measure_shape(asked, tools=len(task.tools), tool_characters=len(tool_text), turns=turns),
            tool_shape=measure_tools(asked, task.tools),
            code_blocks=sum(message.text.count("```") for message in task.messages) // 2,
            language=detect_language(asked),
        )
        return features if self.criticality is None else self._guess_criticality(features, task, self.criticality)

    def _guess_criticality(self, features: Features, task: Task, model: CriticalityModel) -> Features:
        """Predict the criticalities that the caller did not state. Stated values stay."""
        names = ("mission_criticality", "time_criticality")
        guessed = zip(names, model.predict([features])[0].tolist(), strict=True)
        open_ = {name: value for name, value in guessed if name not in task.objective.stated}
        return replace(features, **open_)


def _measure(task: Task, tool_text: str, held: frozenset[Sensitivity]) -> Features:
    """Compute the features that need no vector: size, needs, sensitivity and criticalities."""
    characters = sum(len(message.text) + 1 for message in task.messages) - 1 + len(tool_text)
    return Features(
        embedding=_NOTHING,
        terms=_NO_TERMS,
        term_counts=_NOTHING,
        shape=_NOTHING,
        tool_shape=_NOTHING,
        prompt_tokens=1 + int(characters / CHARACTERS_PER_TOKEN),
        turns=len(task.messages),
        code_blocks=0,
        images=sum(message.count_media(MediaKind.IMAGE) for message in task.messages),
        tools=len(task.tools),
        needs=find_needs(task),
        kind=task.kind,
        sensitivity=held,
        mission_criticality=task.objective.mission_criticality,
        time_criticality=task.objective.time_criticality,
    )


def routing_text(task: Task) -> str:
    """Return the text that the router looks at: the last user message, and the names and descriptions of the tools."""
    text = clip_text(task.text, limit=CHARACTERS)
    return f"{text}\n{_tool_text(task.tools)[:TOOL_CHARACTERS]}" if task.tools else text


def find_needs(task: Task) -> frozenset[Need]:
    """Find the capabilities that a worker must have for the task."""
    needs = set()
    if task.tools and task.params.get("tool_choice") != "none":
        needs.add(Need.TOOLS)
    response_format = task.params.get("response_format")
    if isinstance(response_format, Mapping) and str(response_format.get("type", "")).startswith("json"):
        needs.add(Need.JSON)
    for kind, need in _NEEDS:
        if any(message.count_media(kind) for message in task.messages):
            needs.add(need)
    return frozenset(needs)


_NEEDS = ((MediaKind.IMAGE, Need.IMAGE), (MediaKind.AUDIO, Need.AUDIO))


def _tool_text(tools: Sequence[Mapping[str, object]]) -> str:
    return json.dumps(list(tools), ensure_ascii=False, default=str) if tools else ""
