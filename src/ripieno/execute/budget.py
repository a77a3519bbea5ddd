"""Purse: what a run of several calls may still spend."""

from collections.abc import Iterator
from contextlib import contextmanager

from ripieno.domain import Task, Worker
from ripieno.domain.run import CHARACTERS_PER_TOKEN
from ripieno.errors import BudgetExhausted
from ripieno.execute.execution import Execution

USUAL_OUTPUT_TOKENS = 256
"""Of an answer whose length nobody knows before, for what a call may cost."""


class Purse:
    """Holds the ceilings of one run; calls that run side by side reserve what they may cost before they begin.

    Args:
        execution: its calls are what is spent.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._begun = len(execution.calls)
        self._reserved_usd = 0.0

    @contextmanager
    def reserve(self, worker: Worker, task: Task) -> Iterator[None]:
        """Hold back the price of one call while it is under way.

        Raises:
            BudgetExhausted: a ceiling leaves no room for it; it must not be made.
        """
        budget, expected_usd = self._execution.task.budget, self.expect(worker, task)
        if budget.calls is not None and self._begun >= budget.calls:
            raise BudgetExhausted("calls", spent=self._begun, limit=budget.calls)
        if budget.tokens is not None and self._execution.tokens >= budget.tokens:
            raise BudgetExhausted("tokens", spent=self._execution.tokens, limit=budget.tokens)
        committed = self._execution.cost_usd + self._reserved_usd
        if budget.cost_usd is not None and committed + expected_usd > budget.cost_usd:
            raise BudgetExhausted("money (USD)", spent=committed, limit=budget.cost_usd)
        self._begun += 1
        self._reserved_usd += expected_usd
        try:
            yield
        finally:
            self._reserved_usd -= expected_usd

    def expect(self, worker: Worker, task: Task) -> float:
        """What a call may cost, in US dollars: what was measured, else what the card says of an ordinary answer."""
        for estimate in self._execution.decision.estimates:
            if estimate.worker == worker.id and estimate.is_measured:
                return estimate.cost_usd
        asked = sum(len(message.text) for message in task.messages)
        return worker.price.charge(
            input_tokens=asked / CHARACTERS_PER_TOKEN, output_tokens=USUAL_OUTPUT_TOKENS, cpu_s=0.0
        )
