"""What a step of a workflow costs beside its call: in process, recorded durably, and under DBOS where it is installed.

python benchmarks/steps.py            # the engine against bare calls of the same worker
python benchmarks/steps.py --dbos     # DBOS alone, in an environment that has it: pip install dbos
"""

import argparse
import asyncio
import os
import sqlite3
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

STEPS = 12
RUNS = 12


def answer(text: str) -> str:
    """The whole worker."""
    return "still not"


async def measure_engine(folder: Path, *, is_durable: bool) -> tuple[float, float]:
    """Seconds of a bare call, and of a step, medians over runs."""
    from ripieno.app import Installation
    from ripieno.config import load_settings
    from ripieno.domain import Cascade, Task, WorkerId
    from ripieno.domain.grader import Exact
    from ripieno.orchestrator import make_arrival

    lines = ["[ledger]", f'url = "sqlite:///{folder}/ledger.db"', f"durable_runs = {str(is_durable).lower()}"]
    lines += ["[providers.here]", 'kind = "callable"']
    for number in range(STEPS):
        lines += [f"[workers.w{number}]", 'provider = "here"', 'model = "benchmarks.steps:answer"']
    path = folder / "ripieno.toml"
    path.write_text("\n".join(lines))
    stages = tuple(WorkerId(f"w{number}") for number in range(STEPS))
    workflow = Cascade(stages=stages, check=Exact(answers=("done",)))
    async with Installation(load_settings(path)) as app:
        bare, whole = [], []
        for run in range(RUNS):
            task = Task.from_text(f"run {run}")
            began = time.perf_counter()
            for worker in app.runtime.pool:
                await app.runtime.caller.call(worker, task)
            bare.append((time.perf_counter() - began) / STEPS)
            arrival = replace(make_arrival(app.clock), workflow=workflow)
            began = time.perf_counter()
            await app.runtime.orchestrator.run_detailed(task, arrival=arrival)
            whole.append((time.perf_counter() - began) / STEPS)
    return median(bare), median(whole)


def measure_commit(folder: Path) -> float:
    """Seconds of one durable commit of one row by SQLite itself."""
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE rows (body TEXT)")
    found = []
    for number in range(100):
        began = time.perf_counter()
        connection.execute("INSERT INTO rows VALUES (?)", (f"row {number}" * 40,))
        found.append(time.perf_counter() - began)
    return median(found)


def measure_dbos(folder: Path) -> float:
    """Seconds of one step of DBOS on SQLite in WAL mode."""
    import sqlalchemy
    from dbos import DBOS  # type: ignore[import-not-found,unused-ignore]  # only where it is installed

    url = f"sqlite:///{folder}/dbos.db"
    engine = sqlalchemy.create_engine(url)

    @sqlalchemy.event.listens_for(engine, "connect")  # type: ignore[untyped-decorator,unused-ignore]  # a decorator
    def set_wal(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")

    config = {"name": "bench", "application_version": "1", "system_database_engine": engine, "system_database_url": url}
    DBOS(config=config)

    @DBOS.step()  # type: ignore[untyped-decorator,unused-ignore]  # not typed
    def step(number: int) -> str:
        return answer(str(number))

    @DBOS.workflow()  # type: ignore[untyped-decorator,unused-ignore]  # not typed
    def run() -> None:
        for number in range(STEPS):
            step(number)

    DBOS.launch()
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        run()
        found.append((time.perf_counter() - began) / STEPS)
    DBOS.destroy()
    return median(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dbos", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        commit = measure_commit(folder)
        print(f"{'one durable commit of SQLite itself':<40} {commit * 1e3:8.3f} ms")
        if arguments.dbos:
            took = measure_dbos(folder)
            print(f"{'DBOS, a step':<40} {took * 1e3:8.3f} ms  {took / commit:6.2f} commits")
            return
        for is_durable in (False, True):
            (folder / str(is_durable)).mkdir()
            bare, whole = asyncio.run(measure_engine(folder / str(is_durable), is_durable=is_durable))
            named = "engine, a step, durable" if is_durable else "engine, a step, in process"
            over = whole - bare
            print(f"{'bare call of the same worker':<40} {bare * 1e3:8.3f} ms")
            print(f"{named:<40} {over * 1e3:8.3f} ms  {over / commit:6.2f} commits beside its call and its check")


if __name__ == "__main__":
    main()
