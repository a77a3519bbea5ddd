"""Resuming: another worker continues a stream whose worker died after its first content."""

import asyncio
from dataclasses import replace

from ripieno.domain import Answer, Message, Task, WorkerId
from ripieno.domain.conversation import Part, Text
from ripieno.wires.pieces import Assembly, Piece

GO_ON = "Your answer was cut off. Continue exactly where it stops. Repeat nothing, and do not mention this."


class Resumption:
    """The answer of a stream so far, of all workers that have written it.

    Args:
        is_allowed: whether another worker may continue.
    """

    def __init__(self, *, is_allowed: bool) -> None:
        self._is_allowed = is_allowed
        self._said = Assembly()
        self.authors: list[WorkerId] = []
        """Workers that wrote a part of the answer and failed, in order."""

    def take(self, piece: Piece) -> Piece:
        """Collect a piece. Of a second worker it loses its received form, which belongs to another reply."""
        if self._is_allowed:
            self._said.add(piece, at=asyncio.get_running_loop().time())
        return replace(piece, native=None) if self.authors and piece.native is not None else piece

    def can_continue(self) -> bool:
        """Return whether another worker may continue: the answer so far is text alone, and has not ended."""
        parts = self._said.answer().parts if self._is_allowed else ()
        return bool(parts) and self._said.finish_reason is None and all(isinstance(part, Text) for part in parts)

    def continue_task(self, task: Task, failed: WorkerId) -> Task:
        """Return the task with the answer so far and the request to go on."""
        self.authors.append(failed)
        so_far = Message(role="assistant", content=self._said.answer().text)
        return replace(task, messages=(*task.messages, so_far, Message(role="user", content=GO_ON)))

    def merge(self, answer: Answer, last: WorkerId) -> Answer:
        """Return the whole answer, with the counts of its last worker."""
        if not self.authors:
            return answer
        parts: tuple[Part, ...] = self._said.answer().parts
        whole = Answer.of(parts, usage=answer.usage, finish_reason=answer.finish_reason)
        return replace(whole, lost=answer.lost, authors=(*self.authors, last))
