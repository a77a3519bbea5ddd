"""String operations: one worker knows three of them, the other ten."""

import re

_QUOTED = re.compile(r"[\"“”']([^\"“”']+)[\"“”']")


def quick(text: str) -> str:
    """Reverse, upper-case or measure the first quoted text; else return it."""
    subject = _subject(text)
    low = text.lower()
    if "reverse" in low:
        return subject[::-1]
    if "upper" in low:
        return subject.upper()
    if "length" in low or "how long" in low:
        return str(len(subject))
    return subject


def exact(text: str) -> str:
    """Apply one of ten operations to the first quoted text, or to the last word if nothing is quoted."""
    quoted = _QUOTED.findall(text)
    low, subject = text.lower(), _subject(text)
    rest = low.replace(subject.lower(), " ") if len(quoted) < 2 else low
    if "vowel" in rest:
        return str(sum(letter in "aeiou" for letter in subject.lower()))
    if re.search(r"how (many times|often)|\bcount\b|number of", rest) and len(quoted) > 1:
        letter, word = sorted(quoted[:2], key=len)
        return str(word.lower().count(letter.lower()))
    for pattern, act in _OPERATIONS:
        if re.search(pattern, rest):
            return str(act(subject))
    return subject


_OPERATIONS = (
    (r"backward|revers|from right to left|mirror", lambda s: s[::-1]),
    (r"upper|capital letters|all caps", str.upper),
    (r"lower", str.lower),
    (r"alphabetical|sort", lambda s: " ".join(sorted(s.split(), key=str.lower))),
    (r"how many words|count the words|number of words", lambda s: str(len(s.split()))),
    (r"length|how long|how many (letters|characters)|number of (letters|characters)", lambda s: str(len(s))),
    (r"first (word|letter)", lambda s: s.split()[0] if " " in s else s[0]),
    (r"last word", lambda s: s.split()[-1]),
)


def _subject(text: str) -> str:
    quoted = _QUOTED.findall(text)
    if quoted:
        return str(max(quoted, key=len))
    words = re.findall(r"\w+", text)
    return words[-1] if words else "?"
