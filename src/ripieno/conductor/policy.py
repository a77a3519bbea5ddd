"""The tiny policy: reads a task and its workers' cards, and writes a plan word by word.

At each step it draws an action (an operation with its source, or the end), and then points at a worker. Gradients are
explicit: the network has four layers and needs only numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ripieno.domain import Op
from ripieno.domain.workflow import MOST_STEPS

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

ACTIONS: tuple[tuple[Op, int], ...] = (
    (Op.SOLVE, 0),
    (Op.EXTRACT, 0),
    (Op.RUN, 0),
    (Op.SOLVE, 1),
    (Op.TRANSFORM, 1),
    (Op.RUN, 1),
    (Op.VERIFY, 1),
    (Op.MERGE, 2),
)
"""Operation and source (0 question, 1 prev, 2 all) of each action. One more, the last, ends the plan."""
STOP = len(ACTIONS)
NUMBERS = 7
"""Scalars of a card beside its words. See `Scene`."""
KEY = 32
"""Dimensions of the space in which the policy points at workers."""
_HIDDEN, _ACTION = 96, 16


@dataclass(frozen=True, slots=True)
class Scene:
    """The policy's input: some tasks and their pools, as arrays.

    Args:
        tasks: features of each task, shape (n, t).
        words: embeddings of the workers' descriptions, shape (n, k, e); rows beyond a pool's size are zero.
        numbers: scalars of the cards, shape (n, k, `NUMBERS`): share right in such tasks, share right of own steps, log
            price and log time against the pool's mean, whether it is a tool, whether it executes, and one.
        present: whether there is such a worker, shape (n, k).
    """

    tasks: Floats
    words: Floats
    numbers: Floats
    present: npt.NDArray[np.bool_]

    def select(self, rows: Rows) -> "Scene":
        """Select some rows."""
        return Scene(self.tasks[rows], self.words[rows], self.numbers[rows], self.present[rows])

    @property
    def runners(self) -> npt.NDArray[np.bool_]:
        """Return the workers that execute, shape (n, k)."""
        return np.asarray(self.present & (self.numbers[:, :, 5] > 0.5))


@dataclass(slots=True)
class Cursor:
    """The positions in the plans of a scene."""

    step: Rows
    """Steps of each plan so far, shape (n,)."""
    action: Rows
    """The latest action, or `STOP` if there is none."""
    worker: Rows
    """The latest worker, or -1."""

    @classmethod
    def start(cls, count: int) -> "Cursor":
        """Start `count` plans."""
        return cls(np.zeros(count, np.int64), np.full(count, STOP, np.int64), np.full(count, -1, np.int64))

    def select(self, rows: Rows) -> "Cursor":
        """Select some rows."""
        return Cursor(self.step[rows], self.action[rows], self.worker[rows])


@dataclass(frozen=True, slots=True)
class _Pass:
    """Values of the forward pass that the backward pass needs."""

    scene: Scene
    cursor: Cursor
    keys: Floats
    inputs: Floats
    hidden: Floats
    action_p: Floats
    """Probabilities of actions, shape (n, actions + 1)."""


class TinyPolicy:
    """Four layers over tasks and cards.

    Args:
        parameters: arrays by name; see `init`.
        most_steps: most steps of a plan; 1 makes it a one-step router.
    """

    def __init__(self, parameters: Mapping[str, Floats], *, most_steps: int = MOST_STEPS) -> None:
        self.parameters = {name: np.asarray(value, dtype=np.float64) for name, value in parameters.items()}
        self.most_steps = most_steps

    @classmethod
    def init(cls, *, tasks: int, words: int, rng: np.random.Generator, most_steps: int = MOST_STEPS) -> "TinyPolicy":
        """Make an untrained policy.

        Args:
            tasks: number of features of a task.
            words: dimensions of a description's embedding.
            rng: draws the weights.
            most_steps: most steps of a plan.
        """
        width = tasks + 2 * KEY + MOST_STEPS + STOP + 1

        def draw(*shape: int) -> Floats:
            return np.asarray(rng.normal(size=shape) / np.sqrt(shape[0]))

        parameters = {
            "key": draw(words + NUMBERS, KEY),
            "hidden": draw(width, _HIDDEN),
            "hidden_bias": np.zeros(_HIDDEN),
            "action": 0.1 * draw(_HIDDEN, STOP + 1),
            "action_bias": np.zeros(STOP + 1),
            "said": draw(STOP + 1, _ACTION),
            "query": draw(_HIDDEN + _ACTION, KEY),
            "taste": 0.1 * draw(_HIDDEN + _ACTION, NUMBERS),
        }
        return cls(parameters, most_steps=most_steps)

    @property
    def size(self) -> int:
        """Return the number of parameters."""
        return sum(value.size for value in self.parameters.values())

    def look(self, scene: Scene, cursor: Cursor) -> _Pass:
        """Run the forward pass at the cursor."""
        p = self.parameters
        cards = np.concatenate([scene.words, scene.numbers], axis=2)
        keys = np.tanh(cards @ p["key"]) * scene.present[:, :, None]
        inputs = np.concatenate(
            [
                scene.tasks,
                keys.sum(axis=1) / np.maximum(scene.present.sum(axis=1), 1)[:, None],
                _take_worker(keys, cursor.worker),
                np.eye(MOST_STEPS)[np.minimum(cursor.step, MOST_STEPS - 1)],
                np.eye(STOP + 1)[cursor.action],
            ],
            axis=1,
        )
        hidden = np.tanh(inputs @ p["hidden"] + p["hidden_bias"])
        logits = hidden @ p["action"] + p["action_bias"]
        allowed = self.allow(scene, cursor)
        return _Pass(scene, cursor, keys, inputs, hidden, _softmax(np.where(allowed, logits, -np.inf)))

    def point(self, seen: _Pass, action: Rows) -> Floats:
        """Return the probabilities of workers given the action, shape (n, k); meaningless for the end."""
        p = self.parameters
        joint = np.concatenate([seen.hidden, p["said"][action]], axis=1)
        query, taste = joint @ p["query"], joint @ p["taste"]
        logits = np.einsum("nkd,nd->nk", seen.keys, query) / np.sqrt(KEY)
        logits += np.einsum("nkd,nd->nk", seen.scene.numbers, taste)
        return _softmax(np.where(_allow_workers(seen, action), logits, -np.inf))

    def allow(self, scene: Scene, cursor: Cursor) -> npt.NDArray[np.bool_]:
        """Return the actions that keep a plan valid, shape (n, actions + 1)."""
        allowed = np.ones((len(cursor.step), STOP + 1), dtype=bool)
        is_first, has_two = cursor.step == 0, cursor.step >= 2
        has_runner, has_peer = scene.runners.any(axis=1), scene.present.sum(axis=1) > 1
        for place, (op, source) in enumerate(ACTIONS):
            if source == 1:
                allowed[:, place] &= ~is_first
            elif source == 2:
                allowed[:, place] &= has_two
            if op is Op.RUN:
                allowed[:, place] &= has_runner
            elif op is Op.VERIFY:
                allowed[:, place] &= has_peer
        allowed[:, STOP] = ~is_first
        is_full = cursor.step >= self.most_steps
        allowed[is_full, :STOP] = False
        if self.most_steps == 1:
            allowed[:, 1:STOP] = False
            allowed[:, 2] = is_first & has_runner
        return allowed

    def gradient(
        self, seen: _Pass, action: Rows, worker: Rows, weight: Floats, *, entropy: float = 0.0
    ) -> tuple[dict[str, Floats], Floats]:
        """Return the gradient of the weighted log probability of some choices, and those log probabilities.

        Args:
            seen: the forward pass of the choices.
            action: chosen actions, shape (n,).
            worker: chosen workers, shape (n,); ignored for an end.
            weight: weight of each choice, shape (n,).
            entropy: weight of the actions' and workers' entropy.
        """
        p = self.parameters
        count = len(action)
        rows = np.arange(count)
        points_p = self.point(seen, action)
        is_step = (action != STOP).astype(np.float64)
        logs = np.log(np.maximum(seen.action_p[rows, action], 1e-12))
        logs += is_step * np.log(np.maximum(points_p[rows, worker], 1e-12))
        d_action = -seen.action_p * weight[:, None]
        d_action[rows, action] += weight
        d_point = -points_p * (weight * is_step)[:, None]
        d_point[rows, worker] += weight * is_step
        if entropy:
            d_action += entropy * _entropy_slope(seen.action_p)
            d_point += entropy * _entropy_slope(points_p) * is_step[:, None]
        joint = np.concatenate([seen.hidden, p["said"][action]], axis=1)
        query = joint @ p["query"]
        d_query = np.einsum("nk,nkd->nd", d_point, seen.keys) / np.sqrt(KEY)
        d_taste = np.einsum("nk,nkd->nd", d_point, seen.scene.numbers)
        d_keys = d_point[:, :, None] * query[:, None, :] / np.sqrt(KEY)
        d_joint = d_query @ p["query"].T + d_taste @ p["taste"].T
        d_hidden = d_joint[:, :_HIDDEN] + d_action @ p["action"].T
        d_said = np.zeros_like(p["said"])
        np.add.at(d_said, action, d_joint[:, _HIDDEN:])
        d_hidden *= 1.0 - seen.hidden**2
        d_inputs = d_hidden @ p["hidden"].T
        width = seen.scene.tasks.shape[1]
        d_mean, d_last = d_inputs[:, width : width + KEY], d_inputs[:, width + KEY : width + 2 * KEY]
        d_keys += (d_mean / np.maximum(seen.scene.present.sum(axis=1), 1)[:, None])[:, None, :]
        has_last = seen.cursor.worker >= 0
        d_keys[rows[has_last], seen.cursor.worker[has_last]] += d_last[has_last]
        d_keys *= (1.0 - seen.keys**2) * seen.scene.present[:, :, None]
        cards = np.concatenate([seen.scene.words, seen.scene.numbers], axis=2)
        gradient = {
            "key": np.einsum("nkc,nkd->cd", cards, d_keys, optimize=True),
            "hidden": seen.inputs.T @ d_hidden,
            "hidden_bias": d_hidden.sum(axis=0),
            "action": seen.hidden.T @ d_action,
            "action_bias": d_action.sum(axis=0),
            "said": d_said,
            "query": joint.T @ d_query,
            "taste": joint.T @ d_taste,
        }
        return gradient, logs

    def write(self, scene: Scene, *, rng: np.random.Generator | None = None) -> list[list[tuple[int, int]]]:
        """Write plans as (action, worker) pairs: drawn if there is an `rng`, else the most probable word by word."""
        count = len(scene.tasks)
        plans: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        open_rows, cursor = np.arange(count), Cursor.start(count)
        for _ in range(self.most_steps):
            seen = self.look(scene.select(open_rows), cursor)
            action = _choose(seen.action_p, rng)
            going = action != STOP
            if not going.any():
                break
            worker = _choose(self.point(seen, np.where(going, action, 0)), rng)
            for row, act, chosen in zip(open_rows[going], action[going], worker[going], strict=True):
                plans[row].append((int(act), int(chosen)))
            open_rows = open_rows[going]
            cursor = Cursor(cursor.step[going] + 1, action[going], worker[going])
        return plans


def list_choices(plan: Sequence[tuple[int, int]], most_steps: int) -> tuple[Cursor, Rows, Rows]:
    """List a plan's positions as the policy reaches them, with the choice at each, including its end."""
    step, last_action, last_worker, actions, workers = [], [], [], [], []
    before = (STOP, -1)
    for place in range(len(plan) + (len(plan) < most_steps)):
        action, worker = plan[place] if place < len(plan) else (STOP, 0)
        step.append(place)
        last_action.append(before[0])
        last_worker.append(before[1])
        actions.append(action)
        workers.append(worker)
        before = (action, worker)
    return Cursor(np.array(step), np.array(last_action), np.array(last_worker)), np.array(actions), np.array(workers)


def _allow_workers(seen: _Pass, action: Rows) -> npt.NDArray[np.bool_]:
    """Return the workers that may take an action, shape (n, k): `run` needs a runner, `verify` another worker."""
    runs = np.array([op is Op.RUN for op, _ in ACTIONS] + [False])[action]
    verifies = np.array([op is Op.VERIFY for op, _ in ACTIONS] + [False])[action]
    allowed = np.where(runs[:, None], seen.scene.runners, seen.scene.present)
    last = seen.cursor.worker
    rows = np.flatnonzero(verifies & (last >= 0))
    allowed[rows, last[rows]] = False
    return allowed


def _take_worker(keys: Floats, worker: Rows) -> Floats:
    taken = keys[np.arange(len(worker)), np.maximum(worker, 0)]
    return np.asarray(taken * (worker >= 0)[:, None])


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _entropy_slope(p: Floats) -> Floats:
    """Return the gradient of the entropy by the logits."""
    logs = np.log(np.maximum(p, 1e-12))
    return np.asarray(-p * (logs - (p * logs).sum(axis=1, keepdims=True)))


def _choose(p: Floats, rng: np.random.Generator | None) -> Rows:
    if rng is None:
        return np.asarray(p.argmax(axis=1))
    return np.asarray((p.cumsum(axis=1) > rng.random((len(p), 1)) * p.sum(axis=1, keepdims=True)).argmax(axis=1))
