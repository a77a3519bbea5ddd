"""Accounts: what a virtual key's budget reserves for each run, across all processes that share the ledger."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from ripieno.domain import Account, Key
from ripieno.errors import BudgetExhausted, LedgerError
from ripieno.ledger import Change, Held, Holds, Reserve

log = logging.getLogger(__name__)

MOST_OPS = 500
"""Reservations and changes in one transaction."""
GROUP_S = 0.004
"""Least seconds from one transaction to the next: under load each then holds the reservations of several requests."""
CHANGES_WAIT_S = 0.05
"""Seconds that changes wait for a reservation, to be written with it. Until then they hold more than they need."""


@dataclass(slots=True, eq=False)
class _Waiting:
    op: Reserve | Change
    done: "asyncio.Future[Held | None] | None" = None


@dataclass(slots=True)
class _Open:
    """The reservation of one run."""

    key: str
    usd: float = 0.0


@dataclass(slots=True, eq=False)
class Accounts:
    """Opens accounts, and writes their reservations to the ledger, many in one transaction.

    Args:
        holds: stores reservations.
        is_lenient: whether requests continue while the ledger fails; then only this process counts them.
    """

    holds: Holds
    is_lenient: bool = False
    _runs: dict[str, _Open] = field(default_factory=dict)
    _keys: dict[str, float] = field(default_factory=dict)
    """US dollars that runs of this process reserve, by key."""
    _queue: list[_Waiting] = field(default_factory=list)
    _writer: "asyncio.Task[None] | None" = None
    _wrote_at: float = 0.0
    """The loop's time of the latest transaction's end."""
    _is_at_fault: bool = False
    """Whether the latest transaction failed."""
    _is_urgent: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a reservation comes, or the accounts close."""
    _is_closing: bool = False

    def open(self, key: Key, run: str) -> "KeyAccount":
        """Open the account of one run, without a reservation."""
        return KeyAccount(self, key, run)

    def held(self, key: str) -> float:
        """Return the US dollars that this process's runs reserve of a key."""
        return max(self._keys.get(key, 0.0), 0.0)

    @property
    def runs(self) -> Mapping[str, object]:
        """Runs of this process with a reservation."""
        return self._runs

    async def reserve(self, op: Reserve) -> Held | None:
        """Reserve US dollars; returns None if the ledger fails and requests continue without it.

        Raises:
            LedgerError: the ledger fails, and requests may not continue without it.
        """
        waiting = _Waiting(op, asyncio.get_running_loop().create_future())
        self._enqueue(waiting)
        assert waiting.done is not None
        try:
            held = await asyncio.shield(waiting.done)
        except LedgerError:
            if not self.is_lenient:
                raise
            self._add(op, op.most_usd)
            return None
        except asyncio.CancelledError:
            waiting.done.add_done_callback(lambda done: self._undo(op, done))
            raise
        if held is not None and held.granted_usd is not None:
            self._add(op, held.granted_usd)
        return held

    def change(self, run: str, usd: float) -> None:
        """Set the reservation of a run; it is written soon."""
        known = self._runs.get(run)
        if known is None:
            return
        self._keys[known.key] = self._keys.get(known.key, 0.0) + usd - known.usd
        known.usd = usd
        self._enqueue(_Waiting(Change(run=run, usd=usd)))

    def end(self, run: str, *, cost_usd: float, is_recorded: bool) -> None:
        """Forget a run. Its ledger entry replaces the reservation; without an entry, the reservation is removed."""
        known = self._runs.pop(run, None)
        if known is None:
            return
        self._keys[known.key] = self._keys.get(known.key, 0.0) - known.usd
        self._enqueue(_Waiting(Change(run=run, usd=cost_usd if is_recorded else None)))

    async def close(self) -> None:
        """Wait until all changes are written."""
        self._is_closing = True
        self._is_urgent.set()
        while self._writer is not None:
            await asyncio.wait({self._writer})

    def _add(self, op: Reserve, usd: float) -> None:
        known = self._runs.setdefault(op.run, _Open(op.key))
        known.usd += usd
        self._keys[op.key] = self._keys.get(op.key, 0.0) + usd

    def _undo(self, op: Reserve, done: "asyncio.Future[Held | None]") -> None:
        """Undo a reservation that was granted after its caller left."""
        if done.cancelled() or done.exception() is not None:
            return
        held = done.result()
        if held is not None and held.granted_usd is not None:
            kept = self._runs.get(op.run)
            self._enqueue(_Waiting(Change(run=op.run, usd=kept.usd if kept is not None else None)))

    def _enqueue(self, waiting: _Waiting) -> None:
        self._queue.append(waiting)
        if waiting.done is not None:
            self._is_urgent.set()
        if self._writer is None:
            self._writer = asyncio.ensure_future(self._write_queue())

    async def _write_queue(self) -> None:
        """Write all that waits; later operations go into the next transaction.

        Changes that the ledger refused are kept for the transaction of the next reservation.
        """
        batch: list[_Waiting] = []
        try:
            while self._has_reservation() or (self._queue and not self._is_at_fault):
                if not self._has_reservation():
                    await self._wait_for_reservation()
                wait_s = self._wrote_at + GROUP_S - asyncio.get_running_loop().time()
                if wait_s > 0.0 and not self._is_closing:
                    await asyncio.sleep(wait_s)
                batch, self._queue = self._queue[:MOST_OPS], self._queue[MOST_OPS:]
                await self._write_batch(batch)
                self._wrote_at = asyncio.get_running_loop().time()
        finally:
            self._writer = None
            for waiting in batch:  # no caller waits for ever, whatever fails
                if waiting.done is not None and not waiting.done.done():
                    waiting.done.cancel()

    def _has_reservation(self) -> bool:
        return any(waiting.done is not None for waiting in self._queue)

    async def _wait_for_reservation(self) -> None:
        """Let changes wait for a reservation, but not for long, and not once the accounts close."""
        if not self._is_closing:
            self._is_urgent.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_urgent.wait(), CHANGES_WAIT_S)

    async def _write_batch(self, batch: list[_Waiting]) -> None:
        try:
            found = await asyncio.to_thread(self.holds.apply, [waiting.op for waiting in batch])
        except LedgerError as error:
            log.warning("reservations could not be written: %s", error.message)
            self._is_at_fault = True
            self._queue = [waiting for waiting in batch if waiting.done is None] + self._queue
            for waiting in batch:
                if waiting.done is not None and not waiting.done.done():
                    waiting.done.set_exception(error)
            return
        self._is_at_fault = False
        for waiting, held in zip(batch, found, strict=True):
            if waiting.done is not None and not waiting.done.done():
                waiting.done.set_result(held)


class KeyAccount(Account):
    """The account of one run, which a key's budget pays."""

    def __init__(self, accounts: Accounts, key: Key, run: str) -> None:
        self._accounts = accounts
        self._key = key
        self._run = run
        self._held_usd = 0.0

    @property
    def has_budget(self) -> bool:
        """Whether the key has a ceiling in US dollars."""
        return self._key.limits.usd_per_day is not None or self._key.limits.usd_per_month is not None

    async def reserve(self, most_usd: float, *, least_usd: float) -> float:
        """See `Account`."""
        if not self.has_budget:
            return most_usd
        op = Reserve(run=self._run, key=self._key.id, limits=self._key.limits, most_usd=most_usd, least_usd=least_usd)
        held = await self._accounts.reserve(op)
        granted = most_usd if held is None else held.granted_usd
        if granted is None:
            assert held is not None
            raise BudgetExhausted(
                f"the {held.period}'s (USD)",
                spent=held.spent_usd,
                limit=held.limit_usd,
                is_temporary=self._accounts.held(self._key.id) > self._held_usd,
            )
        self._held_usd += granted
        return granted

    def settle(self, reserved_usd: float, *, cost_usd: float) -> None:
        """See `Account`."""
        if self.has_budget:
            self._held_usd += cost_usd - reserved_usd
            self._accounts.change(self._run, self._held_usd)

    def open(self, run: str) -> "KeyAccount":
        """See `Account`."""
        return self._accounts.open(self._key, run)

    def close(self, *, cost_usd: float | None, is_recorded: bool) -> None:
        """See `Account`."""
        cost = self._held_usd if cost_usd is None else cost_usd
        self._accounts.end(self._run, cost_usd=cost, is_recorded=is_recorded)
