"""What all tests share: an empty folder, no settings from outside, real objects, and children that end with them."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from ripieno.domain import Binding, Estimate, Pool, Price, Worker, WorkerId
from ripieno.ledger import Ledger

HANG_S = 1200.0
"""Seconds after which a test that waits for an event counts as hung: ten times what the slowest has ever taken."""
UNTRACED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
"""Environment of a process that coverage leaves alone: its tracer makes pure Python two to four times slower."""
_SHARED = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")
"""Processes that the standard library starts once for all tests."""


def pytest_configure() -> None:
    """Time no example of Hypothesis, let tests interrupt their children, and leave no event loop open.

    A shell starts background jobs with SIGINT ignored, which children would inherit. Where no loop was ever set,
    pytest-asyncio makes one to restore after the first test, and never closes it: some later test is blamed.
    """
    asyncio.set_event_loop(None)
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let coverage leave the commands of a test alone, where trainings take most of its time."""
    for name, value in UNTRACED.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test works in an empty folder, without RIPIENO_* variables."""
    for name in list(os.environ):
        if name.startswith("RIPIENO_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def children_end_with_their_test() -> Iterator[None]:
    """Kill, with their groups, the processes that a test started and left behind, a failed one too."""
    before = set(list_children())
    yield
    for child in set(list_children()) - before:
        with suppress(psutil.Error, ProcessLookupError):
            end_child(psutil.Process(child))


def list_children() -> list[int]:
    """Process ids of this process's children; empty where the system does not list them."""
    found: list[int] = []
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def end_child(child: psutil.Process) -> None:
    """Kill one process with its descendants, unless it has ended or serves all tests."""
    if child.status() == psutil.STATUS_ZOMBIE or any(name in " ".join(child.cmdline()) for name in _SHARED):
        return
    for each in (*child.children(recursive=True), child):
        with suppress(psutil.Error):
            each.kill()
    if os.getpgid(child.pid) == child.pid:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(HANG_S)


async def pause(seconds: float) -> None:
    """Let some time pass, in which the kernel or a server may do what no event tells. It never makes a test right."""
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    loop.call_later(seconds, passed.set_result, None)
    await passed


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
