"""Search: find the visible items that fit a question, by words and by meaning.

Source:
    A weighted sum of scaled scores keeps the strength of each key. Fusion by rank does not: on evidence recall, it
    was worse than words alone. The weights were set on LoCoMo's development part (Maharana et al., ACL 2024).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, RowMapping, exists, func, or_, select

from ripieno.domain import Privacy
from ripieno.domain.memory import Scope
from ripieno.memory.schema import authors, items, links, retired, vectors
from ripieno.memory.words import AFTER, BEFORE, Sought, words_of

Floats = npt.NDArray[np.float64]

WEIGHTS = {"before": 1.0, "after": 0.5, "meaning": 0.5, "thread": 0.5, "author": 0.5, "derived": 0.5}
"""Weight of each key. Each key is scaled to its best item first."""
MOST_CANDIDATES = 200
THREAD_ITEMS = 5
"""Best items of a thread that make its score."""
SEMANTIC_TOP_K = 50
"""Items whose similarity in meaning counts."""
MOST_TERMS = 24
"""Most words of a question that are searched."""
COMMON_SHARE, LEAST_COMMON, MOST_COMMON = 0.02, 1000, 10_000
"""A word is too common if more items than this share contain it, within these bounds."""
_STOP = frozenset(
    "a an and are as at be been by did do does for from had has have her his how i in is it its of on or she he s t "  # noqa: SIM905
    "that the their them they this to was were what when where which who whom whose will with would you your".split()
)
"""Question words are included: they do not say what the question is about."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchScope:
    """Limits of a search: what may be returned, and as of which time."""

    scope: Scope
    reach: Privacy = Privacy.LOCAL
    """How far the result will travel. Items that may not travel so far are left out."""
    now: float
    as_of: float | None = None
    """A past time, to search what was known and true then; None searches the present."""
    kinds: tuple[str, ...] = ()
    """Kinds of items; none means all."""

    def where(self) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions of the items that may be returned."""
        then = self.as_of if self.as_of is not None else self.now
        later = items.alias("later")
        allowed = [boundary.value for boundary in Privacy if boundary.reach >= self.reach.reach]
        replaced = exists().where(later.c.supersedes == items.c.id, later.c.recorded_at <= then)
        return (
            items.c.erased_at.is_(None),
            items.c.project.in_(self.scope.projects),
            items.c.user.in_(("", self.scope.user)),
            items.c.privacy.in_(allowed),
            items.c.recorded_at <= then,
            items.c.valid_from <= then,
            or_(items.c.valid_to.is_(None), items.c.valid_to > then),
            or_(items.c.expires_at.is_(None), items.c.expires_at > then),
            ~replaced,
            ~exists().where(retired.c.id == items.c.id, retired.c.at <= then),
            *((items.c.kind.in_(self.kinds),) if self.kinds else ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Matching items, best first."""

    places: tuple[int, ...]
    scores: tuple[float, ...]
    because: tuple[tuple[str, ...], ...]
    """Derived items through which each was found."""
    support: float
    """Similarity in meaning of the best derived item about the named author, else of the best item."""


@dataclass(slots=True)
class _Candidate:
    place: int
    id: str
    author: str
    thread: str
    is_derived: bool
    before: float = 0.0
    after: float = 0.0
    meaning: float = 0.0


def search(
    connection: Connection, question: str, meaning: npt.NDArray[np.float32] | None, limits: SearchScope, *, most: int
) -> SearchResult:
    """Find the items that fit a question. `meaning` is its vector; None leaves out similarity."""
    sought, words = _find_sought(connection, question, limits), words_of(connection)
    candidates: dict[int, _Candidate] = {}
    if sought.terms:
        for row in words.match(connection, BEFORE, sought):
            _find_or_add(candidates, row).before = float(row["score"])
        for row in words.match(connection, AFTER, sought):
            _find_or_add(candidates, row).after = float(row["score"])
    if not candidates:
        return SearchResult(places=(), scores=(), because=(), support=0.0)
    if meaning is not None:
        _measure_meaning(connection, candidates, meaning)
    named = _find_named(connection, question, limits.scope)
    raw = [each for each in candidates.values() if not each.is_derived]
    derived = [each for each in candidates.values() if each.is_derived]
    scores = dict(zip((each.place for each in raw), _mix(raw, named), strict=True))
    reasons = _spread(connection, derived, scores, limits)
    order = sorted(scores, key=lambda place: (-scores[place], place))[:most]
    return SearchResult(
        places=tuple(order),
        scores=tuple(scores[place] for place in order),
        because=tuple(tuple(reasons.get(place, ())) for place in order),
        support=_find_support(raw, derived, named),
    )


def _find_or_add(candidates: dict[int, _Candidate], row: RowMapping) -> _Candidate:
    place = row["place"]
    if place not in candidates:
        candidates[place] = _Candidate(place, row["id"], row["author"], row["thread"], bool(row["derived_from"]))
    return candidates[place]


def _find_sought(connection: Connection, question: str, limits: SearchScope) -> Sought:
    """Choose the words of a question that distinguish items. A very common word costs time and adds little."""
    words = [word for word in dict.fromkeys(_WORD.findall(question.lower())) if word not in _STOP][:MOST_TERMS]
    size = int(connection.execute(select(func.max(items.c.place))).scalar() or 0)
    most = int(min(max(COMMON_SHARE * size, LEAST_COMMON), MOST_COMMON))
    counts = {word: words_of(connection).count(connection, word, most + 1) for word in words}
    rare = {word: count for word, count in counts.items() if count <= most}
    terms = rare or {word: counts[word] for word in words[:1]}
    return Sought(terms=terms, size=size, where=limits.where(), most=MOST_CANDIDATES)


def _measure_meaning(
    connection: Connection, candidates: dict[int, _Candidate], meaning: npt.NDArray[np.float32]
) -> None:
    rows = connection.execute(select(vectors).where(vectors.c.place.in_(candidates))).all()
    if not rows:
        return
    matrix = np.stack([np.frombuffer(row.vector, dtype=np.float16) for row in rows]).astype(np.float32)
    for row, likeness in zip(rows, matrix @ meaning, strict=True):
        candidates[row.place].meaning = float(likeness)


def _find_named(connection: Connection, question: str, scope: Scope) -> str | None:
    """Return the one author that the question names; None if it names none or several."""
    mine = (authors.c.project.in_(scope.projects), authors.c.user.in_(("", scope.user)))
    rows = connection.execute(select(authors.c.author).distinct().where(*mine)).all()
    words = f" {' '.join(_WORD.findall(question.lower()))} "
    named = [row.author for row in rows if f" {' '.join(_WORD.findall(row.author.lower()))} " in words]
    return named[0] if len(named) == 1 else None


def _mix(raw: Sequence[_Candidate], named: str | None) -> list[float]:
    """Return the weighted sum of all keys, each scaled to its best."""
    if not raw:
        return []
    before = np.array([each.before for each in raw])
    sums: dict[str, float] = {}
    for thread in {each.thread for each in raw if each.thread}:
        mine = sorted((each.before for each in raw if each.thread == thread), reverse=True)
        sums[thread] = sum(mine[:THREAD_ITEMS])
    keys = {
        "before": before,
        "after": np.array([each.after for each in raw]),
        "meaning": _above(np.array([each.meaning for each in raw])),
        "thread": np.array([sums.get(each.thread, 0.0) for each in raw]),
        "author": np.array([float(named is not None and each.author == named) for each in raw]),
    }
    total = sum(WEIGHTS[name] * _scale(values) for name, values in keys.items())
    return [float(value) for value in np.asarray(total)]


def _spread(
    connection: Connection, derived: Sequence[_Candidate], scores: dict[int, float], limits: SearchScope
) -> dict[int, list[str]]:
    """Add the score of derived items to their origins, which may be found through them alone."""
    if not derived:
        return {}
    words = _scale(np.array([each.before for each in derived]))
    meaning = _scale(np.array([each.meaning for each in derived]))
    worth = {
        each.id: WEIGHTS["derived"] * float(one + other)
        for each, one, other in zip(derived, words, meaning, strict=True)
    }
    query = (
        select(links.c.derived, items.c.place)
        .select_from(links.join(items, items.c.id == links.c.origin))
        .where(links.c.derived.in_(list(worth)), *limits.where())
    )
    rows = connection.execute(query).all()
    best: dict[int, float] = {}
    reasons: dict[int, list[str]] = {}
    for row in rows:
        best[row.place] = max(best.get(row.place, 0.0), worth[row.derived])
        reasons.setdefault(row.place, []).append(row.derived)
    for place, value in best.items():
        scores[place] = scores.get(place, 0.0) + value
    return reasons


def _find_support(raw: Sequence[_Candidate], derived: Sequence[_Candidate], named: str | None) -> float:
    about = [each.meaning for each in derived if named is None or each.author == named]
    if about:
        return max(about)
    said = [each.meaning for each in raw if named is None or each.author == named]
    return max(said, default=0.0)


def _above(values: Floats) -> Floats:
    """Return the similarities above that of the last one that counts."""
    if len(values) <= SEMANTIC_TOP_K:
        return np.asarray(np.maximum(values - values.min(), 0.0))
    return np.asarray(np.maximum(values - np.partition(values, -SEMANTIC_TOP_K)[-SEMANTIC_TOP_K], 0.0))


def _scale(values: Floats) -> Floats:
    most = float(values.max(initial=0.0))
    return np.asarray(values / most) if most > 0.0 else values
