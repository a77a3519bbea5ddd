"""Extracts the Python code of a reply: its fenced blocks, or the part that parses as code."""

import ast
import re

_FENCE = re.compile(r"[ \t]{0,3}(`{3,}+|~{3,}+)[ \t]*+([^\s`]*+)[^`]*+")
_PYTHON = frozenset({"python", "py", "python3", "py3", "pycon"})
_STARTS = re.compile(r"(?:def|class|import|from|async def|@)[ \t(\w]|[A-Za-z_]\w*[ \t]*=[^=]")


def extract_code(text: str, *, prefix: str = "") -> str:
    """Extract the code of a reply. If it only continues a prefix, return both.

    Of several blocks, those marked as Python count, or all if none is marked. A block that is not Python, or that
    redefines a name of an earlier block, counts as an example and is left out.
    """
    blocks = list_blocks(text)
    tagged = [block for tag, block in blocks if tag.lower() in _PYTHON]
    chosen = tagged or [block for tag, block in blocks if not tag]
    if not chosen:
        chosen = [text] if _parses(text) or prefix else [_drop_words(text)]
    code = _join(chosen) if len(chosen) > 1 else chosen[0]
    if not prefix or not _define(prefix) & _define(code):
        return prefix + code
    return f"{prefix}\n{code}" if _parses(prefix) else code  # the prefix's imports and other functions are needed, too


def list_blocks(text: str) -> list[tuple[str, str]]:
    """List tag and content of each fenced block. An unclosed block extends to the end."""
    blocks: list[tuple[str, str]] = []
    fence, tag = "", ""
    lines: list[str] = []
    for line in text.splitlines():
        match = _FENCE.fullmatch(line)
        if fence:
            if match and match[1].startswith(fence) and not match[2]:
                blocks.append((tag, "\n".join(lines) + "\n"))
                fence = ""
            else:
                lines.append(line)
        elif match:
            fence, tag, lines = match[1], match[2], []
    if fence:
        blocks.append((tag, "\n".join(lines) + "\n"))
    return blocks


def _join(blocks: list[str]) -> str:
    kept: list[str] = []
    defined: set[str] = set()
    for block in blocks:
        names = _define(block)
        if not _parses(block) or names & defined:
            continue
        kept.append(block)
        defined |= names
    return "\n".join(kept) if kept else "\n".join(blocks)


def _drop_words(text: str) -> str:
    """Return the longest end of a text without fences that begins like code and parses."""
    lines = text.splitlines()
    for place, line in enumerate(lines):
        if _STARTS.match(line):
            for end in (len(lines), *_find_ends(lines, place)):
                code = "\n".join(lines[place:end]) + "\n"
                if _parses(code):
                    return code
            break
    return text


def _find_ends(lines: list[str], place: int) -> list[int]:
    """List the places where words may follow the code: after an empty line, the last first."""
    return [end for end in range(len(lines) - 1, place, -1) if not lines[end].strip()][:20]


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _define(code: str) -> set[str]:
    """Return the functions and classes that code defines at its top level."""
    return set(re.findall(r"^(?:async def|def|class)[ \t]+(\w+)", code, re.MULTILINE))
