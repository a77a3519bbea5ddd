"""Unpack: finds all text of a JSON value, and the encoded texts within it."""

import html
import re
import unicodedata
from binascii import a2b_base64
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote

import re2

DEPTH = 3
"""Levels of nested encodings that are decoded, such as base64 in JSON in base64."""

_PACKED = re2.compile(
    r"base64,([A-Za-z0-9+/_-]{4,}={0,2})|([A-Za-z0-9+/_-]{16,}(?:\r?\n[ \t]*[A-Za-z0-9+/_-]{4,})*={0,2})"
)
"""Runs of base64 characters, over several lines as in mail. Those of a data URL may be short."""
_SHORTEST = 16
_HEAD = 32
"""Characters of base64 that are decoded first, to decide on the rest."""
_PERCENT = re2.compile(r"%[0-9A-Fa-f]{2}")
_CODE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")
_ESCAPED = re2.compile(r"\\[nrtux\"'/@_.:=+-]")
_ESCAPES = (("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r"), ("\\", ""))
_ENTITY = re2.compile(r"&(?:#\d|#x|amp;|lt;|gt;|quot;|commat;|period;)")
_CONTROLS = bytes(each for each in range(32) if each not in (9, 10, 12, 13)) + b"\x7f"
_HYPHENS, _BLANKS = "\u2010\u2011\u2012\u2013\u2212", "\u00a0\u2007\u202f\u3000"
_WIDTHLESS = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_OTHERS = (
    f"[{_HYPHENS}{_BLANKS}{_WIDTHLESS}"
    "\u00b2\u00b3\u00b9\u2070-\u2089\uff0b\uff0d-\uff1a\uff1d\uff20-\uff3a\uff3f\uff41-\uff5a\U0001d400-\U0001d7ff]"
)
"""Characters with a plain form on a keyboard: hyphens, blanks, other widths, mathematical alphabets."""
_HAS_OTHERS, _OTHER = re2.compile(_OTHERS), re.compile(_OTHERS)


def read_text(value: object) -> str:
    """Return all text of a value, with its field names. Numbers count as text.

    Each text has its own line after the name of its field, as in `name: text`. The walk has no recursion, because a
    caller chooses how deep a value is nested.
    """
    if isinstance(value, str):
        return value
    parts: list[str] = []
    stack: list[tuple[str, object]] = [("", value)]
    while stack:
        name, found = stack.pop()
        if isinstance(found, str):
            parts.append(f"{name}: {found}" if name else found)
        elif isinstance(found, Mapping):
            if name:
                parts.append(name)
            stack.extend((str(key), each) for key, each in reversed(list(found.items())))
        elif isinstance(found, bytes):
            parts.append(found.decode("utf-8", "replace"))
        elif isinstance(found, Sequence):
            stack.extend((name, each) for each in reversed(found))
        elif found is not None and not isinstance(found, bool):
            parts.append(f"{name}: {found}" if name else str(found))
    return "\n".join(parts)


def clean(text: str) -> str:
    """Replace variants of a character by one form: digits of other widths, hyphens, blanks."""
    if text.isascii() or _HAS_OTHERS.search(text.encode("utf-8", "replace")) is None:
        return text
    return _OTHER.sub(lambda match: _plain(match.group()), text)


def _plain(character: str) -> str:
    if character in _HYPHENS:
        return "-"
    if character in _BLANKS:
        return " "
    return "" if character in _WIDTHLESS else unicodedata.normalize("NFKC", character)


def unpack(text: str) -> Iterator[str]:
    """Yield the encoded texts within a text: percent-encoding, escapes, entities, base64.

    Each is unpacked in turn, down to `DEPTH`. None is longer than the text that contains it.
    """
    for _ in range(DEPTH):
        plain = unescape(text)
        if plain != text:
            yield plain
            text = plain
        text = "\n".join(decoded for _, _, decoded in find_packed(text.encode("utf-8", "replace")))
        if not text:
            return
        yield text


def unescape(text: str) -> str:
    """Decode the percent-encoded characters, escapes and entities of a text."""
    if "%" in text and _PERCENT.search(text):
        text = unquote(text)
    if "\\" in text and _ESCAPED.search(text):
        if "\\u" in text or "\\x" in text:
            text = _CODE.sub(lambda code: chr(int(code.group(1) or code.group(2), 16)), text)
        for written, character in _ESCAPES:
            text = text.replace(written, character)
    if "&" in text and _ENTITY.search(text):
        text = html.unescape(text)
    return text


def find_packed(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Find base64 that decodes to text. Yield its place in bytes, and the decoded text."""
    for match in _PACKED.finditer(data):
        start, end = match.span(1)
        if start < 0:
            start, end = match.span(2)
        packed = data[start:end]
        if packed.islower() or packed.isdigit():  # words and numbers
            continue
        decoded = _decode(packed) or _decode_parts(packed)
        if decoded is not None:
            yield start, end, decoded


def _decode_parts(packed: bytes) -> str | None:
    """Decode the parts of a path that are base64."""
    if b"/" not in packed:
        return None
    parts = (part for part in packed.split(b"/") if len(part) >= _SHORTEST and not part.islower())
    return "\n".join(filter(None, map(_decode, parts))) or None


def _decode(packed: bytes) -> str | None:
    bare = (packed if packed.isalnum() else b"".join(packed.split()).rstrip(b"=")).translate(_TO_STANDARD)
    head = a2b_base64(bare[:_HEAD] if len(bare) >= _HEAD else _pad(bare))
    if head[0] < 32 and head[0] not in b"\t\n\r":
        return None
    if head[1::2].count(0) > 0.4 * len(head):  # UTF-16, as PowerShell encodes its commands
        return a2b_base64(_pad(bare)).decode("utf-16-le", "replace")
    return a2b_base64(_pad(bare)).decode("utf-8", "ignore") if _is_text(head) else None


def _pad(bare: bytes) -> bytes:
    whole = bare[: len(bare) - (len(bare) % 4 == 1)]
    return whole + b"=" * (-len(whole) % 4)


def _is_text(raw: bytes) -> bool:
    """Return whether bytes are UTF-8 without control characters. An incomplete last character is ignored."""
    if raw.translate(None, _CONTROLS) != raw:
        return False
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(raw) - 3
    return True


_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
