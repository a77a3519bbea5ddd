"""Scanner: finds secrets and personal data in a text, in time linear in its length."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import re2

from ripieno.domain import Sensitivity
from ripieno.errors import ConfigError
from ripieno.privacy import personal, secrets
from ripieno.privacy.rules import Retry, SensitivityRule
from ripieno.privacy.unpack import clean, find_packed, unpack

MEMORY, GATE_MEMORY = 4 * 1024 * 1024, 16 * 1024 * 1024
"""Most bytes of the automaton of one pattern, and of one gate. Beyond them, a search is slower but still correct."""
MOST_SCANNERS = 8
"""Scanners in the cache, by their rules."""
MARKS = {Sensitivity.SECRET: "[secret removed]", Sensitivity.PERSONAL: "[personal data removed]"}
_NOTHING: frozenset[Sensitivity] = frozenset()
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitiveSpan:
    """Place and form of sensitive data in a text, without the data."""

    form: str
    kind: Sensitivity
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Redacted:
    """A text with marks in place of the sensitive data."""

    text: str
    counts: Mapping[str, int]


class Scanner:
    """Finds secrets and personal data."""

    def __init__(self, rules: Sequence[SensitivityRule]) -> None:
        self._rules = [_Compiled(rule) for rule in rules]
        self._gates = list(_make_gates(rules))

    def find(self, text: str) -> frozenset[Sensitivity]:
        """Return the kinds of sensitive data in a text, including encoded data."""
        kinds = {rule.rule.kind for rule in self._rules}
        found: set[Sensitivity] = set()
        text = clean(text)
        self._look(text, kinds, found)
        for inner in () if found == kinds else unpack(text):
            self._look(clean(inner), kinds, found)
            if found == kinds:
                break
        return frozenset(found)

    def locate(self, text: str) -> list[SensitiveSpan]:
        """Locate sensitive data in the literal text, in order. Overlapping places merge, and secrets win."""
        data = text.encode("utf-8", "surrogatepass" if text.isprintable() else "replace")
        places = [
            (start, end, rule.rule) for rule in self._relevant(data) for start, end in rule.places(data, is_whole=True)
        ]
        found: list[SensitiveSpan] = []
        for start, end, rule in sorted(places, key=lambda place: (place[0], -place[1])):
            each = SensitiveSpan(form=rule.form, kind=rule.kind, start=start, end=end)
            if found and start < found[-1].end:
                found[-1] = _join(found[-1], each)
            else:
                found.append(each)
        return found if text.isascii() else _count_characters(found, data)

    def redact(self, text: str) -> Redacted:
        """Replace all that `find` finds: the value alone, or the whole encoded text that contains it."""
        counts: Counter[str] = Counter()
        text = self._remove(text, counts)
        if not self.find(text):
            return Redacted(text=text, counts=counts)
        for take in (self._remove_packed, self._remove_words, self._remove_lines):
            text = take(text, counts)
            if not self.find(text):
                return Redacted(text=text, counts=counts)
        return Redacted(text=self._replace_whole(text, counts), counts=counts)

    def _remove(self, text: str, counts: Counter[str]) -> str:
        parts, last = [], 0
        for found in self.locate(text):
            parts += [text[last : found.start], MARKS[found.kind]]
            counts[found.form] += 1
            last = found.end
        return "".join((*parts, text[last:]))

    def _remove_packed(self, text: str, counts: Counter[str]) -> str:
        data, parts, last = text.encode("utf-8", "replace"), [], 0
        for start, end, decoded in find_packed(data):
            if self.find(decoded):
                parts += [data[last:start].decode(), self._replace_whole(decoded, counts)]
                last = end
        return "".join((*parts, data[last:].decode()))

    def _remove_words(self, text: str, counts: Counter[str]) -> str:
        return _WORD.sub(lambda match: self._replace_whole(match.group(), counts), text)

    def _remove_lines(self, text: str, counts: Counter[str]) -> str:
        return "".join(self._replace_whole(line, counts) for line in text.splitlines(keepends=True))

    def _replace_whole(self, text: str, counts: Counter[str]) -> str:
        kinds = self.find(text)
        if not kinds:
            return text
        counts["encoded"] += 1
        end = text[len(text.rstrip("\r\n")) :]
        return MARKS[min(kinds, key=lambda kind: kind is not Sensitivity.SECRET)] + end

    def _look(self, text: str, kinds: set[Sensitivity], found: set[Sensitivity]) -> None:
        """Add the kinds of a literal text. Each is searched once."""
        data = text.encode("utf-8", "replace")
        for rule in self._relevant(data):
            if rule.rule.kind not in found and any(rule.places(data, is_whole=False)):
                found.add(rule.rule.kind)
                if found == kinds:
                    return

    def _relevant(self, data: bytes) -> Iterator["_Compiled"]:
        """Yield the rules that can find something."""
        names = {name for gate in self._gates for name in gate.open_for(data)}
        is_wide = not data.isascii()
        rules = (self._rules[name] for name in sorted(names))
        yield from (rule for rule in rules if is_wide or not rule.rule.is_wide)


class _Gate:
    """Texts or patterns that are searched in one pass, each with the rules that it enables.

    Args:
        opens: rules by text or pattern.
        is_literal: whether these are plain texts, in any case.
    """

    def __init__(self, opens: Mapping[str, Sequence[int]], *, is_literal: bool) -> None:
        options = re2.Options()
        options.case_sensitive = not is_literal
        options.literal = is_literal
        options.max_mem = GATE_MEMORY
        self._set = re2.Set.SearchSet(options)
        self._set.Add("")  # occurs in every text: if it is missing, the automaton ran out of memory
        for searched in opens:
            self._set.Add(searched)
        self._set.Compile()
        self._opens = [[], *opens.values()]

    def open_for(self, data: bytes) -> set[int]:
        """Return the rules that can find something in a text."""
        hits = self._set.Match(data)
        return {name for hit in (hits if 0 in hits else range(len(self._opens))) for name in self._opens[hit]}


def _make_gates(rules: Sequence[SensitivityRule]) -> Iterator[_Gate]:
    triggers: dict[str, list[int]] = {}
    alphabets: dict[str, dict[str, list[int]]] = {}
    for place, rule in enumerate(rules):
        for trigger in rule.triggers:
            triggers.setdefault(trigger, []).append(place)
        if not rule.triggers:
            alphabets.setdefault(rule.alphabet, {}).setdefault(rule.pattern, []).append(place)
    yield _Gate(triggers, is_literal=True)
    for opens in alphabets.values():
        yield _Gate(opens, is_literal=False)


class _Compiled:
    """A compiled rule."""

    def __init__(self, rule: SensitivityRule) -> None:
        self.rule = rule
        self._pattern = _compile(rule.pattern)
        self._groups = tuple(range(1, self._pattern.groups + 1)) or (0,)
        self._goes_on = _compile(rule.goes_on) if rule.goes_on else None

    def places(self, data: bytes, *, is_whole: bool) -> Iterator[tuple[int, int]]:
        """Yield the places of values, in bytes. `is_whole` adds the text that is removed with them."""
        rule, pattern, at = self.rule, self._pattern, 0
        refused: set[bytes] = set()
        while (match := pattern.search(data, at)) is not None:
            start, end = next((match.span(group) for group in self._groups if match.start(group) >= 0), match.span())
            value = data[start:end]
            if value not in refused and (length := self._measure(value)):
                end = start + length
                if is_whole and self._goes_on is not None:
                    more = self._goes_on.match(data, end)
                    end = more.end() if more is not None else end
                yield start, end
                at = max(end, at + 1)
                continue
            refused.add(value)
            at = max({Retry.START: start, Retry.NEXT: start + 1, Retry.END: end}[rule.retry], at + 1)

    def _measure(self, value: bytes) -> int:
        """Return how many bytes of a value count; 0 if none do."""
        rule, text = self.rule, value.decode("utf-8", "replace")
        if rule.trim is not None:
            text = rule.trim(text)
        return len(text.encode()) if text and (rule.check is None or rule.check(text)) else 0


def make_scanner(
    *, has_personal: bool = True, region: str | None = None, patterns: Mapping[str, str] | None = None
) -> Scanner:
    """Make a scanner of all known forms.

    Args:
        has_personal: whether to find personal data, too, which needs the extra `privacy`.
        region: two-letter region of phone numbers without a country code.
        patterns: the user's own forms by name, in the syntax of RE2. Their matches count as secrets.

    Raises:
        ConfigError: the extra is missing, the region does not exist, or a pattern is invalid.
    """
    own = tuple(sorted((patterns or {}).items()))
    return _make(own, region=region, has_personal=has_personal)


@lru_cache(maxsize=MOST_SCANNERS)
def _make(own: tuple[tuple[str, str], ...], *, region: str | None, has_personal: bool) -> Scanner:
    rules = [_make_own(name, pattern) for name, pattern in own]
    rules += secrets.list_rules()
    if has_personal:
        rules += personal.list_rules(region)
    return Scanner(rules)


def _make_own(name: str, pattern: str) -> SensitivityRule:
    """Make a rule of the user's own form.

    Raises:
        ConfigError: RE2 refuses the pattern, or it matches the empty text.
    """
    key = f"route.sensitive_patterns.{name}"
    try:
        compiled = _compile(pattern)
    except re2.error as error:
        said = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise ConfigError(
            f"the pattern {name!r} is invalid: {said}", key=key, hint="use the syntax of RE2, without look-around"
        ) from error
    if compiled.search(b"") is not None:
        raise ConfigError(f"the pattern {name!r} matches the empty text, so all text", key=key, hint="narrow it")
    return SensitivityRule(form=name, pattern=f"({pattern})")


def _compile(pattern: str) -> "re2._Regexp[str]":
    options = re2.Options()
    options.max_mem = MEMORY
    options.log_errors = False
    return re2.compile(pattern, options)


def _join(first: SensitiveSpan, second: SensitiveSpan) -> SensitiveSpan:
    named = second if second.kind is Sensitivity.SECRET and first.kind is not Sensitivity.SECRET else first
    return SensitiveSpan(form=named.form, kind=named.kind, start=first.start, end=max(first.end, second.end))


def _count_characters(found: Sequence[SensitiveSpan], data: bytes) -> list[SensitiveSpan]:
    """Convert places from bytes to characters."""
    counted, last, characters = [], 0, 0
    for each in found:
        characters += len(data[last : each.start].decode("utf-8", "replace"))
        width = len(data[each.start : each.end].decode("utf-8", "replace"))
        counted.append(SensitiveSpan(form=each.form, kind=each.kind, start=characters, end=characters + width))
        characters, last = characters + width, each.end
    return counted
