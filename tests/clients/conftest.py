"""One `ripieno serve` for all clients: the embedded pool, and a worker that calls tools and fills schemas."""

import gc
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from tests.clients.as_asked import answer_as_asked
from tests.conftest import HANG_S

from ripieno.testing import ScriptedServer

OBLIGING = """
[ledger]
url = "sqlite:///{folder}/ledger.db"

[gateway.aliases]
"gpt-4o" = "obliging"
"claude-next" = "obliging"

[providers.obliging]
kind = "openai"
base_url = "{base_url}"

[workers.obliging]
provider = "obliging"
input_usd_per_mtok = 1.0
output_usd_per_mtok = 2.0
modalities = ["text", "image", "audio"]
"""


FOREIGN = (
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
)
"""What the clients themselves leave open, or use of others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bear with the clients' own warnings, here and nowhere else."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            for mark in FOREIGN:
                item.add_marker(pytest.mark.filterwarnings(mark))


@pytest.fixture(autouse=True)
def leavings() -> Iterator[None]:
    """Collect what a client has left before the next test begins."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def upstream() -> Iterator[ScriptedServer]:
    """The obliging worker's own server."""
    with ScriptedServer(answer_as_asked, models=["obliging"]) as server:
        yield server


@pytest.fixture(scope="session")
def gateway(upstream: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a served gateway."""
    folder = tmp_path_factory.mktemp("gateway")
    with serving(folder, OBLIGING.format(folder=folder, base_url=upstream.base_url)) as address:
        yield address


def last_messages(upstream: ScriptedServer) -> list[Any]:
    """The messages that the obliging worker was asked with last."""
    return cast(list[Any], upstream.seen[-1].body["messages"])


@contextmanager
def serving(folder: Path, extra: str, *options: str) -> Iterator[str]:
    """Run `ripieno serve` on the embedded pool with some more settings; gives its address without `/v1`."""
    embedded = (Path(__file__).parents[2] / "src" / "ripieno" / "embedded" / "pool.toml").read_text()
    (folder / "ripieno.toml").write_text(f'home = "{folder}/home"\n{extra}\n{embedded}')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RIPIENO_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "ripieno.cli", "serve", "--port", "0", *options],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.match(r"(http://\S+)/v1", process.stdout.readline())
        assert found is not None, process.communicate()[1]
        yield found.group(1)
    finally:
        process.terminate()
        said = process.communicate(timeout=HANG_S)[1]
        assert process.returncode == 0, said
