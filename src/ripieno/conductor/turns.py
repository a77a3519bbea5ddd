"""The turn-level head: chooses each next step after the result before it, on top of the frozen tiny policy.

Source:
    TRINITY (arXiv 2512.04695): a head of some thousand weights on a frozen model chooses worker and role of each turn,
    evolved by separable CMA-ES; a run ends when a verifier accepts. Here the frozen model is the tiny policy: it gives
    the next step, and the first step if the latest result were the question. The head weighs both by the results so
    far.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from ripieno.analyze.shape import measure_shape
from ripieno.conductor.base import Brief
from ripieno.conductor.papers import Papers, load_papers, save_papers
from ripieno.conductor.policy import ACTIONS, KEY, NUMBERS, STOP, Cursor, Floats, Rows, Scene, TinyPolicy
from ripieno.conductor.tiny import make_scene, task_features
from ripieno.domain import JsonValue, Op, Step, WorkerId
from ripieno.domain.workflow import MOST_STEPS
from ripieno.encoders import Encoder, encode_within
from ripieno.errors import NoEligibleWorker
from ripieno.execute import Turn

FORMAT = 1
SEEN = 9 + MOST_STEPS
"""Number of features of the results so far. See `make_seen`."""
STATES = 3
"""Facts of each worker in this run: it was called, had no answer, gave an answer that a verifier refused."""
BUNDLED_HEAD = Path(str(files("ripieno.conductor"))) / "weights" / "turns.safetensors"
_NOTHING = re.compile(
    r"\s*(?:$|I (?:cannot|can't|can not|could not|don't know)|cannot\b|unable\b|unknown\b)", re.IGNORECASE
)
_VERIFIES = np.array([op is Op.VERIFY for op, _ in ACTIONS] + [False])
_BEGINS = {
    ACTIONS.index((Op.SOLVE, 1)): ACTIONS.index((Op.SOLVE, 0)),
    ACTIONS.index((Op.TRANSFORM, 1)): ACTIONS.index((Op.EXTRACT, 0)),
    ACTIONS.index((Op.RUN, 1)): ACTIONS.index((Op.RUN, 0)),
}
"""Actions that continue from the latest result, with the actions that would start with it."""
_GOES_ON, _BEGUN = np.array(list(_BEGINS)), np.array(list(_BEGINS.values()))
_LEAST_LOG = -6.0
_NEVER_AGAIN = -4.0
"""Initial weight of a worker without an answer."""


@dataclass(frozen=True, slots=True)
class PastTurn:
    """One turn as the head sees it: the action, the worker's number and its text."""

    action: int
    worker: int
    text: str
    is_refused: bool = False

    @property
    def is_nothing(self) -> bool:
        """Return whether the worker had no answer: it failed, or said that it cannot answer."""
        return is_empty_answer(self.text)


def is_empty_answer(text: str) -> bool:
    """Return whether a result is empty, or says that its worker cannot answer."""
    return _NOTHING.match(text) is not None


class TurnPolicy:
    """A frozen tiny policy, and the head that corrects it by the results so far."""

    def __init__(self, base: TinyPolicy, head: Mapping[str, Floats]) -> None:
        self.base = base
        self.head = {name: np.asarray(value, dtype=np.float64) for name, value in head.items()}

    @classmethod
    def init(cls, base: TinyPolicy) -> "TurnPolicy":
        """Make a head that does what the base does, and avoids workers without an answer."""
        shapes = {
            "look": (SEEN, STOP + 1),
            "reach": (SEEN, KEY),
            "like": (SEEN, NUMBERS),
            "again": (STOP + 1, STATES),
            "fresh": (SEEN, 2),
        }
        head = {name: np.zeros(shape) for name, shape in shapes.items()}
        head["again"][:, 1] = _NEVER_AGAIN
        return cls(base, head)

    @property
    def size(self) -> int:
        """Return the number of the head's weights."""
        return sum(value.size for value in self.head.values())

    def choose(self, view: "View") -> tuple[Rows, Rows]:
        """Return the most probable next action of each run, and its worker. `STOP` accepts the latest answer."""
        scene, cursor, seen = view.scene, view.cursor, view.seen
        looked = self.base.look(scene, cursor)
        afresh = self.base.look(replace(scene, tasks=view.latest), Cursor.start(len(seen)))
        weight = seen @ self.head["fresh"]
        p = looked.action_p.copy()
        p[_VERIFIES[cursor.action] | (seen[:, 0] > 0.5), :] *= ~_VERIFIES
        with np.errstate(divide="ignore"):
            logits = np.log(p) + seen @ self.head["look"]
            logits[:, _GOES_ON] += weight[:, :1] * np.maximum(np.log(afresh.action_p[:, _BEGUN]), _LEAST_LOG)
            action = logits.argmax(axis=1)
            pointed = np.log(self.base.point(looked, np.where(action == STOP, 0, action)))
            begun = np.array([_BEGINS.get(each, 0) for each in action.tolist()])
            begins = np.maximum(np.log(self.base.point(afresh, begun)), _LEAST_LOG)
        pointed += weight[:, 1:] * np.isin(action, _GOES_ON)[:, None] * begins
        pointed += np.einsum("nkd,nd->nk", looked.keys, seen @ self.head["reach"]) / np.sqrt(KEY)
        pointed += np.einsum("nkd,nd->nk", scene.numbers, seen @ self.head["like"])
        pointed += np.einsum("nks,ns->nk", view.states, self.head["again"][action])
        return action, pointed.argmax(axis=1)


@dataclass(frozen=True, slots=True)
class View:
    """The input of a policy of turns: some runs.

    Args:
        scene: tasks and pools.
        cursor: positions of the runs, without turns that had no answer.
        latest: features of the latest non-empty result, as if it were a task, shape (n, t).
        seen: features of the results so far, shape (n, `SEEN`).
        states: facts of the workers, shape (n, k, `STATES`).
    """

    scene: Scene
    cursor: Cursor
    latest: Floats
    seen: Floats
    states: Floats


def find_latest(question: str, happened: Sequence[PastTurn]) -> str:
    """Return the latest non-empty result, or the question."""
    return next((each.text for each in reversed(happened) if not each.is_nothing), question)


def make_seen(question: str, happened: Sequence[PastTurn]) -> Floats:
    """Compute the features of the results so far, shape (`SEEN`,): form of the latest, agreement, number of turns."""
    turn = np.eye(MOST_STEPS)[min(len(happened), MOST_STEPS - 1)]
    if not happened:
        return np.concatenate([np.zeros(9), turn])
    last = happened[-1]
    text = last.text.strip()
    before = [each.text.strip() for each in happened[:-1]]
    answers = [each for each in happened if not each.is_nothing and not each.is_refused]
    facts = (
        last.is_nothing,
        " " not in text and "\n" not in text and bool(text),
        "\n" in text,
        last.is_refused,
        bool(text) and any(each.text.strip() == text and each.worker != last.worker for each in happened[:-1]),
        text == question.strip() or (bool(before) and text == before[-1]),
        sum(each.is_nothing for each in happened) / MOST_STEPS,
        float(np.log1p(len(text))) / 8.0,
        bool(answers),
    )
    return np.concatenate([np.array(facts, dtype=np.float64), turn])


def make_states(workers: int, happened: Sequence[PastTurn]) -> Floats:
    """Compute the facts of each worker so far, shape (workers, `STATES`)."""
    states = np.zeros((workers, STATES))
    for place, each in enumerate(happened):
        states[each.worker, 0] = 1.0
        if each.is_nothing:
            states[each.worker, 1] = 1.0
        if each.is_refused and place:
            states[happened[place - 1].worker, 2] = 1.0
    return states


def make_cursor(happened: Sequence[Sequence[PastTurn]]) -> Cursor:
    """Return the positions of some runs, without turns that had no answer."""
    happened = [[turn for turn in each if not turn.is_nothing] for each in happened]
    return Cursor(
        np.array([len(each) for each in happened], dtype=np.int64),
        np.array([each[-1].action if each else STOP for each in happened], dtype=np.int64),
        np.array([each[-1].worker if each else -1 for each in happened], dtype=np.int64),
    )


class TurnDirectors:
    """Gives each run its director."""

    def __init__(self, policy: TurnPolicy, encoder: Encoder, *, version: str) -> None:
        self._policy = policy
        self._encoder = encoder
        self.version = version

    async def direct(self, brief: Brief) -> "TurnDirector":
        """Make a director for one task.

        Raises:
            NoEligibleWorker: the roster is empty.
        """
        scene = await make_scene(brief, self._encoder)
        if scene is None:
            raise NoEligibleWorker({})
        return TurnDirector(self._policy, self._encoder, scene, brief)


class TurnDirector:
    """Chooses the steps of one run."""

    def __init__(self, policy: TurnPolicy, encoder: Encoder, scene: Scene, brief: Brief) -> None:
        self._policy = policy
        self._encoder = encoder
        self._scene = scene
        self._roster = brief.roster
        self._question = brief.task.text
        self._reach = brief.task.objective.privacy
        self._chosen: list[int] = []

    async def choose(self, seen: Sequence[Turn]) -> Step | None:
        """Choose the most probable next step."""
        happened = [self._read(turn, self._chosen[place]) for place, turn in enumerate(seen)]
        latest = find_latest(self._question, happened)
        vectors = await encode_within(self._encoder, [latest], self._reach)
        view = View(
            scene=self._scene,
            cursor=make_cursor([happened]),
            latest=task_features(vectors, measure_shape(latest)[None, :]),
            seen=make_seen(self._question, happened)[None, :],
            states=make_states(len(self._roster), happened)[None, :, :],
        )
        action, worker = self._policy.choose(view)
        self._chosen.append(int(action[0]))
        if self._chosen[-1] == STOP:
            return None
        return to_step(self._chosen[-1], self._roster.workers[int(worker[0])].id, happened)

    def _read(self, turn: Turn, action: int) -> PastTurn:
        number = self._roster.find(turn.worker)
        assert number is not None, f"a turn names {turn.worker!r}, which is not on the roster"
        return PastTurn(action, number, turn.text, is_refused=turn.accepts is False)


def to_step(action: int, worker: WorkerId, happened: Sequence[PastTurn]) -> Step:
    """Convert an action into a step of the engine. Empty results are not shown again."""
    op, source = ACTIONS[action]
    answered = tuple(place for place, each in enumerate(happened) if not each.is_nothing)
    access = () if source == 0 else answered[-1:] if source == 1 else answered
    if not access and op in (Op.VERIFY, Op.MERGE, Op.TRANSFORM):
        op = Op.SOLVE
    return Step(worker=worker, op=op, access=access)


def load_turns(path: Path, encoder: Encoder) -> TurnDirectors:
    """Load directors from a file.

    Raises:
        CheckpointError: see `load_papers`.
    """
    policy, papers = _read(path, encoder.name)
    return TurnDirectors(policy, encoder, version=f"turns:{papers.digest}")


def save_turn_policy(path: Path, policy: TurnPolicy, *, encoder: str, card: Mapping[str, JsonValue]) -> None:
    """Write base, head and their metadata, whole or not at all."""
    tensors = {f"base.{name}": value for name, value in policy.base.parameters.items()}
    tensors |= {f"head.{name}": value for name, value in policy.head.items()}
    save_papers(path, Papers(tensors=tensors, form=f"turns-{FORMAT}", encoder=encoder, card=card))


def load_turn_policy(path: Path, *, encoder: str) -> tuple[TurnPolicy, Mapping[str, JsonValue]]:
    """Read base, head and their metadata.

    Raises:
        CheckpointError: see `load_papers`.
    """
    policy, papers = _read(path, encoder)
    return policy, papers.card


def _read(path: Path, encoder: str) -> tuple[TurnPolicy, Papers]:
    papers = load_papers(path, what="turn-level head", form=f"turns-{FORMAT}", encoder=encoder)
    base, head = (
        {name.removeprefix(part): value for name, value in papers.tensors.items() if name.startswith(part)}
        for part in ("base.", "head.")
    )
    return TurnPolicy(TinyPolicy(base), head), papers
