"""Keyring: the key of a request, its permissions, its rates and its budget."""

import asyncio
import hmac
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TypeAlias

from ripieno.domain import Account, Budget, Clock, Key, KeyLimits, Objective, Pool, Reason, WorkerId, find_periods
from ripieno.errors import BudgetExhausted, Forbidden, NoEligibleWorker, RateLimited, Unauthorized
from ripieno.gateway.accounts import Accounts
from ripieno.gateway.lookup import Lookup
from ripieno.gateway.shared import Counts
from ripieno.ledger import KEY_PREFIX, KeyStore, begin_period, digest_secret

_Sums: TypeAlias = dict[tuple[str, str], float]
"""US dollars by key and period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Who sends a request: a virtual key, the master or admin key, or anyone if no key is required."""

    key: Key | None = None
    is_admin: bool = False

    @property
    def id(self) -> str | None:
        """Id of the virtual key."""
        return self.key.id if self.key is not None else None


ANYONE = Grant()
"""For a request without a key, if no key is required: it may send tasks, and not administer."""
_NO_LIMITS = KeyLimits()


class Keyring:
    """Checks keys, and counts what they use.

    Args:
        store: stores keys and their spend.
        admin: the key that may do everything: the master key, or this installation's admin key.
        is_open: whether requests need no key.
        clock: the time.
        shared: counts that replicas share; None counts in this process.
        is_lenient: whether requests continue while the ledger fails, counted by this process alone.
    """

    def __init__(
        self,
        store: KeyStore,
        *,
        admin: str | None,
        is_open: bool,
        clock: Clock,
        shared: Counts | None = None,
        is_lenient: bool = False,
    ) -> None:
        self._store = store
        self._admin = admin.encode() if admin is not None else None
        self._lookup = Lookup(store.find)
        self._is_open = is_open
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._spent: dict[tuple[str, str], float] = {}
        """Known US dollars by key and period."""
        self._since: dict[tuple[str, str], float] = {}
        """US dollars that were added since `refresh` began."""
        self._elsewhere: dict[tuple[str, str], float] = {}
        """US dollars that runs of other processes reserve, by key and period; killed processes included."""
        self._shared = shared or Counts()
        self._accounts = Accounts(store.holds, is_lenient=is_lenient)

    async def refresh(self) -> None:
        """Read keys and spend again, because other processes change them too."""
        self._since = {}
        keys, spent, self._elsewhere = await asyncio.to_thread(self._read, set(self._accounts.runs))
        self._keys = keys
        self._spent = spent
        for place, cost_usd in self._since.items():
            self._spent[place] = self._spent.get(place, 0.0) + cost_usd

    async def authorize(self, headers: Mapping[str, str]) -> Grant:
        """Return who sends a request with these headers.

        A virtual key that this process does not know is looked up in the store, as another process may have made it.

        Raises:
            Unauthorized: a required key is missing, or a virtual key is unknown or revoked.
            LedgerError: this process does not know the key, and cannot read the store.
        """
        given = _read_keys(headers)
        for secret in given:
            if self._admin is not None and hmac.compare_digest(secret.encode("utf-8", "replace"), self._admin):
                return Grant(is_admin=True)
            if secret.startswith(KEY_PREFIX):
                return Grant(key=await self._find_key(secret))
        if self._is_open:
            return ANYONE
        raise Unauthorized("the API key is missing or wrong")

    async def _find_key(self, secret: str) -> Key:
        # The look-up uses the digest of the secret, so that its timing reveals nothing about any secret.
        digest = digest_secret(secret)
        key = self._keys.get(digest)
        if key is None:
            key = await self._lookup.find(digest)
            if key is None:
                raise Unauthorized("the API key is missing or wrong")
            self._keys[digest] = key
        if key.revoked_at is not None:
            raise Unauthorized("the API key was revoked")
        return key

    async def admit(self, grant: Grant) -> None:
        """Admit a request; `leave` must follow.

        Raises:
            RateLimited: too many requests or tokens in a minute.
            BudgetExhausted: the day's or month's money is spent, or reserved by running requests.
        """
        key = grant.key
        if key is None:
            return
        await _check_rates(self._shared, key)
        if key.limits.usd_per_day is not None or key.limits.usd_per_month is not None:
            for period, cost_usd in (await self._shared.spent(key.id, self._periods())).items():
                place = (key.id, period)
                self._spent[place] = max(self._spent.get(place, 0.0), cost_usd)
        self.check_budget(key)

    def open(self, grant: Grant, run: str) -> Account | None:
        """Open the account that pays for one run; None if no key pays."""
        return self._accounts.open(grant.key, run) if grant.key is not None else None

    async def leave(self, grant: Grant, *, cost_usd: float, tokens: int) -> None:
        """Count what an admitted request used: the known part of its cost, and its tokens."""
        key = grant.key
        if key is None:
            return
        for period in self._periods():
            place = (key.id, period)
            self._spent[place] = self._spent.get(place, 0.0) + cost_usd
            self._since[place] = self._since.get(place, 0.0) + cost_usd
        await self._shared.add_spend(key.id, self._periods(), cost_usd)
        most = key.limits.tokens_per_minute
        if most is not None and tokens:
            await self._shared.take("tokens", key.id, most=most, cost=tokens)

    def check_budget(self, key: Key) -> float | None:
        """Return the US dollars that a key has left; None if it has no budget.

        Raises:
            BudgetExhausted: nothing is left.
        """
        left = None
        limits = (("day's", key.limits.usd_per_day), ("month's", key.limits.usd_per_month))
        for (name, limit), period in zip(limits, self._periods(), strict=True):
            if limit is None:
                continue
            spent = self._spent.get((key.id, period), 0.0)
            reserved = self._accounts.held(key.id) + self._elsewhere.get((key.id, period), 0.0)
            if spent + reserved >= limit:
                raise BudgetExhausted(
                    f"the {name} (USD)", spent=spent + reserved, limit=limit, is_temporary=spent < limit
                )
            left = min(limit - spent - reserved, left if left is not None else limit)
        return left

    def check_affordable(self, grant: Grant, error: NoEligibleWorker) -> None:
        """Replace the error of a key whose budget is too small for any worker.

        Raises:
            BudgetExhausted: the budget is too small.
        """
        if grant.key is None or not any(why.startswith(Reason.OVER_BUDGET) for why in error.whys.values()):
            return
        left = self.check_budget(grant.key)
        if left is not None:
            raise BudgetExhausted("rest of the key's (USD)", spent=left, limit=left) from error

    def restrict(self, grant: Grant, objective: Objective, budget: Budget) -> tuple[Objective, Budget]:
        """Restrict an objective and a budget to what the key allows.

        Raises:
            Forbidden: the request names only workers that the key may not use.
        """
        key = grant.key
        if key is None or key.limits == _NO_LIMITS:
            return objective, budget
        limits = key.limits
        if limits.workers:
            wanted = objective.workers or objective.allowed or limits.workers
            allowed = tuple(worker for worker in wanted if worker in limits.workers)
            if not allowed:
                raise Forbidden(
                    f"key {key.name!r} may not use {', '.join(wanted)}", hint=f"it may use {', '.join(limits.workers)}"
                )
            # A key allows workers, and names none: only a request names its workers.
            objective = replace(objective, workers=allowed if objective.workers else (), allowed=allowed)
        if limits.privacy.reach < objective.privacy.reach:
            objective = replace(objective, privacy=limits.privacy)
        left = self.check_budget(key)
        if left is not None and (budget.cost_usd is None or left < budget.cost_usd):
            budget = replace(budget, cost_usd=left)
        return objective, budget

    def _periods(self) -> tuple[str, str]:
        return find_periods(self._clock.now())

    async def close(self) -> None:
        """Cancel the running look-ups, and wait until all reservations are written."""
        await self._lookup.close()
        await self._accounts.close()

    def _read(self, own: AbstractSet[str]) -> tuple[dict[str, Key], _Sums, _Sums]:
        """Read keys, the spend of each, and the reservations of other processes, by key and period."""
        keys = self._store.all()
        if not keys:
            return keys, {}, {}
        periods = self._periods()
        spent = self._store.spent(periods)
        held: _Sums = {}
        for run, (key, at, usd) in self._store.holds.read().items():
            for period in periods if run not in own else ():
                if at >= begin_period(period):
                    held[key, period] = held.get((key, period), 0.0) + usd
        return keys, {(k, period): s.cost_usd for k, found in spent.items() for period, s in found.items()}, held


async def _check_rates(shared: Counts, key: Key) -> None:
    limits = key.limits
    for name, most, cost in (("requests", limits.requests_per_minute, 1), ("tokens", limits.tokens_per_minute, 0)):
        if most is None:
            continue
        wait = await shared.take(name, key.id, most=most, cost=cost)
        if wait:
            raise RateLimited(f"key {key.name!r} may use {most} {name} a minute", retry_after_s=wait)


def list_allowed_workers(grant: Grant, pool: Pool) -> tuple[WorkerId, ...]:
    """List the workers that may take tasks of a key."""
    limits = grant.key.limits if grant.key is not None else _NO_LIMITS
    near = (worker.id for worker in pool if worker.privacy.reach <= limits.privacy.reach)
    return tuple(worker for worker in near if not limits.workers or worker in limits.workers)


def hide_other_workers(grant: Grant, error: NoEligibleWorker) -> NoEligibleWorker:
    """Remove from an error the workers that a key may not use."""
    if grant.key is None or not grant.key.limits.workers:
        return error
    own = {worker: why for worker, why in error.whys.items() if worker in grant.key.limits.workers}
    return NoEligibleWorker(own, is_temporary=error.is_temporary)


def _read_keys(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Read the keys of a request, the bearer token first."""
    bearer = headers.get("authorization", "")
    scheme, _, rest = bearer.partition(" ")
    if scheme.lower() == "bearer":
        bearer = rest.strip()
    api_key = headers.get("x-api-key", "")
    return tuple(key for key in (bearer, api_key) if key)
