"""The tiny conductor: a trained pointer policy over workers' descriptions. It takes a millisecond on any CPU."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from ripieno.conductor.base import Brief, WrittenPlan
from ripieno.conductor.grammar import Phrase, Source, make_plan
from ripieno.conductor.papers import Papers, load_papers, save_papers
from ripieno.conductor.policy import ACTIONS, Floats, Scene, TinyPolicy
from ripieno.conductor.prompted import rank
from ripieno.domain import JsonValue
from ripieno.encoders import Encoder
from ripieno.errors import InvalidPlan

FORMAT = 1
_SOURCES = (Source.QUESTION, Source.PREV, Source.ALL)
_SHAPE_SCALE = 0.3


BUNDLED = Path(str(files("ripieno.conductor"))) / "weights" / "tiny.safetensors"
"""The bundled policy: trained on the workbench, with its card inside."""


class TinyConductor:
    """Writes plans with a trained policy."""

    def __init__(self, policy: TinyPolicy, encoder: Encoder, *, version: str) -> None:
        self._policy = policy
        self._encoder = encoder
        self.version = version

    async def write(self, brief: Brief) -> WrittenPlan:
        """Write the most probable plan, word by word."""
        scene = await make_scene(brief, self._encoder)
        if scene is None:
            return WrittenPlan(plan=None, fault="the roster is empty, or the task has no features")
        chosen = self._policy.write(scene)[0]
        phrases = [
            Phrase(worker=worker, op=ACTIONS[action][0].value, source=_SOURCES[ACTIONS[action][1]].value)
            for action, worker in chosen
        ]
        try:
            plan = make_plan(phrases, brief.roster, author=self.version, fallbacks=rank(brief))
        except InvalidPlan as error:
            return WrittenPlan(plan=None, fault=error.message)
        return WrittenPlan(plan=plan)


async def make_scene(brief: Brief, encoder: Encoder) -> Scene | None:
    """Make the scene of one task; None without workers or features."""
    if not len(brief.roster) or brief.features is None:
        return None
    cards = [brief.describe(worker) for worker in brief.roster.workers]
    words = (await encoder.encode([card.skills for card in cards])).astype(np.float64)
    numbers = card_numbers(
        quality=np.array([card.quality for card in cards]),
        usual=np.array([card.mean_quality for card in cards]),
        cost=np.array([card.cost_usd for card in cards]),
        latency=np.array([card.latency_s for card in cards]),
        is_tool=np.array([card.is_tool for card in cards]),
        can_run=np.array([card.can_run for card in cards]),
    )
    task = task_features(brief.features.embedding[None, :], brief.features.shape[None, :])
    return Scene(task, words[None, :, :], numbers[None, :, :], np.ones((1, len(cards)), dtype=bool))


def task_features(embedding: "np.ndarray", shape: "np.ndarray") -> Floats:
    """Return the policy's features of tasks: embedding and form, shape (n, e + s)."""
    return np.concatenate([embedding, _SHAPE_SCALE * shape], axis=1).astype(np.float64)


def card_numbers(
    *, quality: Floats, usual: Floats, cost: Floats, latency: Floats, is_tool: "np.ndarray", can_run: "np.ndarray"
) -> Floats:
    """Return the scalars of a pool's cards, shape (k, 7). Price and time are relative to the pool's mean."""
    return np.stack(
        [quality, usual, _against_mean(cost), _against_mean(latency), is_tool, can_run, np.ones(len(quality))], axis=1
    ).astype(np.float64)


def _against_mean(values: Floats) -> Floats:
    floor = max(float(values.max(initial=0.0)) * 1e-3, 1e-12)
    logs = np.log(np.maximum(values, floor))
    return np.asarray((logs - logs.mean()) / 2.0)


def load_tiny(path: Path, encoder: Encoder) -> TinyConductor:
    """Load a conductor from a file.

    Raises:
        CheckpointError: see `load_papers`.
    """
    policy, papers = _read(path, encoder.name)
    return TinyConductor(policy, encoder, version=f"tiny:{papers.digest}")


def save_policy(path: Path, policy: TinyPolicy, *, encoder: str, card: Mapping[str, JsonValue]) -> None:
    """Write a policy and its metadata, whole or not at all."""
    more = {"most_steps": str(policy.most_steps)}
    save_papers(path, Papers(tensors=policy.parameters, form=str(FORMAT), encoder=encoder, card=card, more=more))


def load_policy(path: Path, *, encoder: str) -> tuple[TinyPolicy, Mapping[str, JsonValue]]:
    """Read a policy and its metadata.

    Raises:
        CheckpointError: see `load_papers`.
    """
    policy, papers = _read(path, encoder)
    return policy, papers.card


def _read(path: Path, encoder: str) -> tuple[TinyPolicy, Papers]:
    papers = load_papers(path, what="conductor", form=str(FORMAT), encoder=encoder)
    return TinyPolicy(papers.tensors, most_steps=int(papers.more["most_steps"])), papers


def describe_plan(plan: Sequence[tuple[int, int]]) -> str:
    """Describe a plan in the grammar's words, for logs and tables."""
    return "; ".join(f"{worker} {ACTIONS[action][0]} {_SOURCES[ACTIONS[action][1]]}" for action, worker in plan)
