"""Spellers: nearest frequent word within one edit, or within two."""

import re
from functools import cache
from importlib.resources import as_file, files
from threading import Lock

_LOADING = Lock()
_QUOTED = re.compile(r"[\"“”'](\w+)[\"“”']")
_FRAME = {
    "the",
    "word",
    "spelling",
    "spelled",
    "correct",
    "spell",
    "of",
    "is",
    "how",
    "do",
    "you",
    "please",
    "fix",
    "answer",
}


def quick(text: str) -> str:
    """Correct the quoted word, or the longest one, within one edit."""
    return _correct(_find_word(text), most_edits=1)


def deep(text: str) -> str:
    """Correct the quoted word, or one outside the dictionary, within two edits."""
    quoted = _QUOTED.findall(text)
    if quoted:
        return _correct(quoted[0], most_edits=2)
    words = [word for word in re.findall(r"[A-Za-z]+", text) if word.lower() not in _FRAME]
    known = _dictionary(2).words
    unknown = [word for word in words if word.lower() not in known]
    return _correct(unknown[-1] if unknown else (words[-1] if words else "word"), most_edits=2)


def _find_word(text: str) -> str:
    quoted = _QUOTED.findall(text)
    if quoted:
        return str(quoted[0])
    words = re.findall(r"[A-Za-z]+", text)
    return max(words, key=len) if words else "word"


def _correct(word: str, *, most_edits: int) -> str:
    from symspellpy import Verbosity

    found = _dictionary(most_edits).lookup(word.lower(), Verbosity.TOP, max_edit_distance=most_edits)
    return str(found[0].term) if found else word


def _dictionary(most_edits: int):  # type: ignore[no-untyped-def]  # symspellpy's own class
    with _LOADING:  # callables run in many threads; only one loads
        return _load_dictionary(most_edits)


@cache
def _load_dictionary(most_edits: int):  # type: ignore[no-untyped-def]  # symspellpy's own class
    from symspellpy import SymSpell

    speller = SymSpell(max_dictionary_edit_distance=most_edits)
    with as_file(files("symspellpy") / "frequency_dictionary_en_82_765.txt") as path:
        speller.load_dictionary(path, term_index=0, count_index=1)
    return speller
