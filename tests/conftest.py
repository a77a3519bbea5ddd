"""What all tests share: an empty folder, no settings from outside, real objects."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ripieno.domain import Binding, Estimate, Pool, Price, Worker, WorkerId
from ripieno.ledger import Ledger


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test works in an empty folder, without RIPIENO_* variables."""
    import os

    for name in list(os.environ):
        if name.startswith("RIPIENO_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger on disk."""
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as opened:
        yield opened


@pytest.fixture
def shared_data() -> Path:
    """The folder of routing sets that stands beside the project, where there is one."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared routing data beside the project: this test reads it where it is")
    return folder


MakeWorker = Callable[..., Worker]


@pytest.fixture
def make_worker() -> MakeWorker:
    """Make worker cards; keyword arguments are fields of the card."""

    def make(name: str = "w", **fields: object) -> Worker:
        card = {"id": WorkerId(name), "binding": Binding(provider="p", model=name), "price": Price(), **fields}
        return Worker(**card)  # type: ignore[arg-type]  # fields of the card

    return make


@pytest.fixture
def make_pool(make_worker: MakeWorker) -> Callable[..., Pool]:
    """Make a pool of workers named so."""
    return lambda *names: Pool(tuple(make_worker(name) for name in names))


@pytest.fixture
def make_estimate() -> Callable[..., Estimate]:
    """Make estimates; keyword arguments are fields."""

    def make(worker: str = "w", **fields: object) -> Estimate:
        given = {"worker": WorkerId(worker), "quality": 0.5, "quality_sd": 0.1, "cost_usd": 0.001, "latency_s": 1.0}
        return Estimate(**(given | fields))  # type: ignore[arg-type]  # fields of the estimate

    return make
