"""Question: what the user of a conversation asks, without what coding agents add to it."""

from collections.abc import Sequence

from ripieno.domain.conversation import Message, Text

MACHINERY = (
    "system-reminder", "environment_context", "environment_details", "user_instructions", "permissions instructions",
    "local-command-caveat", "local-command-stdout", "command-name", "command-message", "ide_selection",
    "ide_opened_file", "user-prompt-submit-hook", "turn_aborted", "skill", "available_skills", "collaboration_mode",
)  # fmt: skip
"""Elements with which coding agents put their own words into messages of the user."""
_ROLES = ("user",)


def find_question(messages: Sequence[Message]) -> str:
    """Return the words of the last user message that has any; without one, the text of the last user message."""
    last: Message | None = None
    for message in reversed(messages):
        if message.role not in _ROLES:
            continue
        last = last or message
        words = _read_words(message)
        if words:
            return words
    return (last or messages[-1]).text


def strip_machinery(text: str) -> str:
    """Return a text without the elements of coding agents. Time is linear in the text."""
    stripped = text
    for name in MACHINERY:
        if f"<{name}>" in stripped:
            stripped = _cut_elements(stripped, f"<{name}>", f"</{name}>")
    return text if stripped is text else stripped.strip()


def _cut_elements(text: str, opening: str, closing: str) -> str:
    kept, place = [], 0
    while (start := text.find(opening, place)) >= 0:
        end = text.find(closing, start)
        if end < 0:  # an element without end is text
            break
        kept.append(text[place:start])
        place = end + len(closing)
    kept.append(text[place:])
    return "".join(kept) if place else text


def _read_words(message: Message) -> str:
    """Return the words of a message, its parts joined by newlines; empty if there are only an agent's."""
    if isinstance(message.content, str):
        return message.content if "<" not in message.content else strip_machinery(message.content)
    words = (strip_machinery(part.text) for part in message.content if isinstance(part, Text))
    return "\n".join(word for word in words if word)
