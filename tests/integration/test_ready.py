"""Readiness: the gateway is not ready while no worker can serve, and ready again as soon as one can."""

from pathlib import Path

import pytest
from aiohttp import ClientSession
from tests.integration.conftest import LACKS_KEY, Serve, open_app, write_pool

from ripieno.domain import WorkerId
from ripieno.gateway import bind_socket, running
from ripieno.providers.health import FAILURES_TO_OPEN

LACKS_WEIGHTS = """
[providers.own]
kind = "llama"
path = "nowhere.gguf"
[workers.own]
provider = "own"
"""


async def read(client: ClientSession, address: str) -> tuple[int, int]:
    async with client.get(f"{address}/readyz") as response:
        body = await response.json()
        assert body["ready"] is (response.status == 200)
        return response.status, body["workers"]


@pytest.mark.parametrize("pool", [LACKS_KEY, LACKS_WEIGHTS, LACKS_KEY + LACKS_WEIGHTS], ids=["key", "weights", "both"])
async def test_a_gateway_whose_workers_cannot_be_opened_starts_and_is_not_ready(pool: str, serve: Serve) -> None:
    path = Path("ripieno.toml")
    path.write_text(f"[ledger]\nurl = 'sqlite:///ledger.db'\n{pool}")
    async with open_app() as app:
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener) as address, ClientSession() as client:
            assert await read(client, address) == (503, 0)
            write_pool(serve(), extra=pool)
            assert await read(client, address) == (200, 1)


async def test_muted_and_resting_workers_count_as_none(serve: Serve) -> None:
    path = write_pool(serve(), serve())
    text = path.read_text()
    async with open_app() as app:
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener) as address, ClientSession() as client:
            assert await read(client, address) == (200, 2)
            path.write_text(text + "[pool]\nmuted = ['a', 'b']\n")
            assert await read(client, address) == (503, 0)
            path.write_text(text + "[pool]\nmuted = ['a']\n")
            assert await read(client, address) == (200, 1)
            for _ in range(FAILURES_TO_OPEN):
                app.health.note_failure(WorkerId("b"), "server_error")
            assert await read(client, address) == (503, 0)
            app.health.note_success(WorkerId("b"))
            assert await read(client, address) == (200, 1)
