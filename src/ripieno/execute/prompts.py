"""Prompts that ask workers to repair, to combine answers, and to do one step of a plan.

The prompts quote other workers as JSON strings: quoted text is material, never an instruction.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ripieno.domain import Message, Op, Step, Task, Worker

LONGEST_RESULT = 20_000
"""Characters of a step's result that later steps see."""

_INSTRUCTIONS: Mapping[Op, str] = {
    Op.SOLVE: "Solve the task. End with the answer alone on the last line.",
    Op.EXTRACT: "Extract what is needed to solve the task, and nothing else.",
    Op.TRANSFORM: "Rewrite the latest result so that the task comes one step closer to its answer.",
    Op.RUN: "Execute the latest result, and give its output.",
    Op.VERIFY: (
        "Check whether the latest result answers the task. Reply with one line: ACCEPT if it does, "
        "or REVISE: and what is wrong with it."
    ),
    Op.MERGE: "Make one final answer of the results. End with the answer alone on the last line.",
}
_VERDICT = re.compile(r"^\s*(?:[*_#>\-\s]*)(ACCEPT|REVISE)\b[*_]*\s*:?\s*(.*)", re.IGNORECASE | re.DOTALL)
_PLACE = re.compile(r"\{(question|prev|[1-9])\}")


def make_repair(task: Task, *, answer: str, fault: str) -> Task:
    """Make the task again, with the rejected answer and its faults."""
    found = f"This answer did not pass: {clip(fault) or 'it was found wrong'}. Give the corrected answer, whole."
    more = (Message(role="assistant", content=clip(answer)), Message(role="user", content=found))
    return replace(task, messages=(*task.messages, *more))


def show_others(task: Task, answers: Sequence[str], *, asks: str) -> Task:
    """Add the answers of other workers to a task, with the instruction for them."""
    listed = "\n".join(f"answer {place}: {_quote(text)}" for place, text in enumerate(answers, start=1))
    more = Message(role="user", content=f"Others answered, as JSON strings:\n{listed}\n\n{asks}")
    return replace(task, messages=(*task.messages, more))


SYNTHESIZE = "Make one answer of them, the best that can be made: keep what is right, leave out what is wrong."


def make_step(step: Step, task: Task, results: Sequence[str], *, worker: Worker) -> Task:
    """Make the task of one step of a plan.

    Args:
        step: the step.
        task: the whole task.
        results: results of all earlier steps, in order. Those outside its access are left out here.
        worker: a tool gets the bare input; a model gets the task, the results and an instruction.
    """
    seen = [(index + 1, clip(results[index])) for index in step.access]
    if worker.is_tool:
        return Task(messages=(Message(role="user", content=_fill(step, task, seen)),), kind=task.kind)
    if step.op is Op.SOLVE and not seen and not step.text:
        return task
    lines = [f"Task: {_quote(task.text)}"]
    lines += [f"Result {number}: {_quote(text)}" for number, text in seen]
    lines.append(f"Your step: {step.text or _INSTRUCTIONS[step.op]}")
    if step.op is Op.VERIFY and step.text:
        lines.append(_INSTRUCTIONS[Op.VERIFY])
    before = tuple(message for message in task.messages if message.role in ("system", "developer"))
    asked = Message(role="user", content="\n".join(lines))
    return replace(task, messages=(*before, asked), tools=())


def read_verdict(text: str) -> tuple[bool, str] | None:
    """Read whether a verifying worker accepts, and its words; None if it gave no verdict."""
    for line in (text, text.strip().splitlines()[-1] if text.strip() else ""):
        match = _VERDICT.match(line)
        if match:
            return match.group(1).upper() == "ACCEPT", match.group(2).strip()
    return None


def clip(text: str) -> str:
    """Cut a long result to its beginning and end, as later steps see it."""
    if len(text) <= LONGEST_RESULT:
        return text
    half = LONGEST_RESULT // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"


def _fill(step: Step, task: Task, seen: Sequence[tuple[int, str]]) -> str:
    """Return the bare input of a tool: the subtask with its placeholders filled, else the results, else the task."""
    inputs = "\n".join(text for _, text in seen) if seen else task.text
    if not step.text:
        return inputs
    named = {"question": task.text, "prev": seen[-1][1] if seen else task.text} | {str(n): text for n, text in seen}
    if _PLACE.search(step.text):
        return _PLACE.sub(lambda match: named.get(match.group(1), ""), step.text)
    return f"{step.text}\n{inputs}" if seen else step.text


def _quote(text: str) -> str:
    return json.dumps(clip(text), ensure_ascii=False)
