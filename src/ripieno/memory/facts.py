"""Facts that a compaction must keep, found without a model: decisions, rules, tasks, failures, marks, the request."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ripieno.domain import Message
from ripieno.memory.redact import redact

LONGEST_ASK = 400
"""Words of the latest request that are kept."""
RARE = 2
"""Most lines of one form in tool output before the form counts as routine."""
LEAST_ROUTINE = 5
"""Fewest lines of tool output before any line counts as routine."""

IDENTIFIER = re.compile(
    r"\b[A-Z]{1,6}-\d{1,6}\b|\b[A-Z]{1,3}\d{3,6}\b|\b(?=[0-9a-f]*\d)[0-9a-f]{7,40}\b|\b[\w.-]+/[\w./-]*\w\.\w{1,5}\b"
    r"|\b\w+-[0-9a-f]{6,}\b|\b[a-z]+-\d+\.[a-z][\w.]*\b|\bv?\d+\.\d+\.\d+\b"
)
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
DATE = re.compile(rf"\b\d{{4}}-\d\d-\d\d\b|\b\d{{1,2}} (?:{_MONTHS})(?: \d{{4}})?\b")
AMOUNT = re.compile(r"[$€£]\s?\d[\d,]*(?:\.\d\d)?|\b\d[\d,]*(?:\.\d+)? ?(?:USD|EUR|GBP)\b")
LINK = re.compile(r"https?://[^\s)>\]]+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])|\n+")
_DECISION = re.compile(
    r"\b(?:decision|decided|decide to|agreed to|we agreed|chose to|going with|settled on|change of plan)\b"
    r"|\b(?:instead of|from now on)\b",
    re.IGNORECASE,
)
_RULE = re.compile(r"^(?:rule:\s*)?(?:never|always|do not|don't|must not|keep|make sure|no more)\b", re.IGNORECASE)
_FAILURE = re.compile(
    r"\b(?:failed|fails|did not work|does not work|didn't work|doesn't work|broke|crashed|gave up on|do not try)\b",
    re.IGNORECASE,
)
_AGAIN = re.compile(r"\b(?:do not|don't|never) (?:try|retry|do|use) (?:that|this|it)\b", re.IGNORECASE)
_TASK = re.compile(r"\b(?:to ?do|task|action item|next step|open)\b[^.]{0,12}?\b([A-Z]{1,6}-\d{1,6})\b", re.IGNORECASE)
_DONE = re.compile(
    r"\b([A-Z]{1,6}-\d{1,6})\b[^.]{0,24}\b(?:done|finished|closed|completed|complete|resolved|merged)\b|"
    r"\b(?:[Ff]inished|[Cc]losed|[Cc]ompleted|[Rr]esolved|[Dd]one)(?: with)?:?\s+((?:[A-Z]{1,6}-\d{1,6}(?:,\s*)?)+)",
)
_ALARM = re.compile(r"\b(?:ERROR|FATAL|CRITICAL|WARN(?:ING)?|FAIL(?:ED)?|Traceback|Exception)\b")
_STAMP = re.compile(r"^\[?\d{4}-\d\d-\d\d[T ][\d:.,]+Z?\]?\s*")
_OLD = re.compile(r"\binstead of (?:the )?([\w.+#-]+)", re.IGNORECASE)
_WORD = re.compile(r"[a-z][a-z-]+")
_PLAIN = frozenset(
    "the a an of for will use used and to is in on we it with be from this that decision change plan instead".split()  # noqa: SIM905
)


@dataclass(slots=True)
class KeptFacts:
    """KeptFacts that must be kept, each once, in order of appearance."""

    decisions: list[str] = field(default_factory=list)
    """Decisions in force, without superseded ones."""
    rules: list[str] = field(default_factory=list)
    tasks: dict[str, str] = field(default_factory=dict)
    """Open tasks by their ids."""
    done: list[str] = field(default_factory=list)
    """Ids of finished tasks. They must not be reopened."""
    failures: list[str] = field(default_factory=list)
    """Attempts that did not work."""
    notes: list[str] = field(default_factory=list)
    """Sentences with an identifier, a date, an amount or a link."""
    ask: str = ""

    def render(self) -> str:
        """Write the facts as text, each once, that `find_facts` can read again."""
        parts = [
            _list("Decisions in force", self.decisions),
            _list("Rules", self.rules),
            _list("To do", [text if name in text else f"{name}: {text}" for name, text in self.tasks.items()]),
            f"Finished: {', '.join(self.done)}" if self.done else "",
            _list("Did not work", self.failures),
            _list("Notes", self.notes),
            f"Latest ask: {self.ask}" if self.ask else "",
        ]
        return "\n".join(part for part in parts if part)

    @property
    def stand(self) -> tuple[object, ...]:
        """Return the state that a later reading must reproduce: decisions, rules, open and finished tasks."""
        return (self.decisions, self.rules, self.tasks, self.done)

    @property
    def marks(self) -> list[str]:
        """Return every string that the text must contain: identifiers, dates, amounts, links."""
        kept = [*self.decisions, *self.rules, *self.tasks.values(), *self.failures, *self.notes, self.ask]
        return list(dict.fromkeys(mark for text in kept for mark in find_marks(text)))


def find_facts(turns: Sequence[Message], *, has_ask: bool = True) -> KeptFacts:
    """Read a conversation from beginning to end. Later turns override earlier ones. Secrets are left out.

    Args:
        turns: the conversation.
        has_ask: whether the latest request is in the turns; False if only older turns are given.
    """
    facts = KeptFacts()
    output = [line for turn in turns if turn.role == "tool" for line in turn.text.splitlines()]
    routine = Counter(_form(line) for line in output if line.strip())
    for turn in turns:
        text = redact(turn.text)
        if turn.role == "tool":
            _read_output(facts, text, routine)
        else:
            _read_talk(facts, text)
    if not has_ask:
        return facts
    ask = next((redact(turn.text) for turn in reversed(turns) if turn.role == "user"), "")
    facts.ask = " ".join(ask.split()[-LONGEST_ASK:])
    said = set(split_sentences(facts.ask))
    facts.notes = [note for note in facts.notes if note not in said]
    return facts


def find_marks(text: str) -> Iterator[str]:
    """Find the identifiers, dates, amounts and links of a text."""
    for pattern in (LINK, IDENTIFIER, DATE, AMOUNT):
        yield from (match.rstrip(".,;:") for match in pattern.findall(text))


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences and lines, without list marks."""
    return [part for part in (each.strip().removeprefix("- ").strip() for each in _SENTENCE.split(text)) if part]


def _read_talk(facts: KeptFacts, text: str) -> None:
    previous = ""
    for sentence in split_sentences(text):
        if sentence.endswith(":") and len(sentence.split()) <= 4:
            continue  # a heading
        _read_sentence(facts, sentence.removeprefix("Latest ask: "), previous)
        previous = sentence


def _read_sentence(facts: KeptFacts, sentence: str, previous: str) -> None:
    done = _DONE.search(sentence)
    if done is not None:
        _close(facts, re.findall(r"[A-Z]{1,6}-\d{1,6}", done.group(1) or done.group(2)))
        return
    task = _TASK.search(sentence)
    if task is not None and task.group(1) not in facts.done:
        facts.tasks[task.group(1)] = sentence
    elif _AGAIN.search(sentence) and facts.failures and previous in facts.failures[-1]:
        facts.failures[-1] = f"{facts.failures[-1]} {sentence}"
    elif _FAILURE.search(sentence):
        _add(facts.failures, sentence)
    elif _RULE.match(sentence):
        _add(facts.rules, sentence)
    elif _DECISION.search(sentence):
        _decide(facts, sentence)
    elif any(find_marks(sentence)):
        _add(facts.notes, sentence)


def _read_output(facts: KeptFacts, text: str, routine: Counter[str]) -> None:
    total = sum(routine.values())
    for line in text.splitlines():
        bare = _STAMP.sub("", line).strip()
        if not bare or (routine[_form(line)] > RARE and total >= LEAST_ROUTINE):
            continue
        if _ALARM.search(bare):
            _add(facts.failures, bare)
        elif any(find_marks(bare)) or "=" in bare:
            _add(facts.notes, bare)


def _close(facts: KeptFacts, names: Sequence[str]) -> None:
    for name in names:
        facts.tasks.pop(name, None)
        _add(facts.done, name)


def _decide(facts: KeptFacts, sentence: str) -> None:
    """Add a decision, and remove earlier ones about the same subject or about what it replaces."""
    matter, old = _matter(sentence), _OLD.search(sentence)

    def is_replaced(earlier: str) -> bool:
        shared = matter & _matter(earlier)
        return len(shared) >= 2 or (old is not None and old.group(1).lower() in earlier.lower() and bool(shared))

    facts.decisions = [earlier for earlier in facts.decisions if not is_replaced(earlier)]
    _add(facts.decisions, sentence)


def _matter(sentence: str) -> set[str]:
    """Return the words of a decision's subject: those before its verb."""
    head = re.split(r"\b(?:will|should|shall|is to|are to|uses?)\b", sentence, maxsplit=1)[0]
    return set(_WORD.findall(head.lower())) - _PLAIN


def _form(line: str) -> str:
    """Return a line with its variable parts replaced."""
    return re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", line.lower()).replace("#-#", "#")


def _add(listed: list[str], text: str) -> None:
    if text not in listed:
        listed.append(text)


def _list(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{title}:", *(f"- {line}" for line in lines)]) if lines else ""
