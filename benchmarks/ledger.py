"""Durable entries a second by group commit, against one commit an entry, in one run.

python benchmarks/ledger.py
"""

import asyncio
import tempfile
import time

from ripieno.domain import Answer, Call, Executed, Origin, Run, Usage, WorkerId
from ripieno.ledger import Ledger

ENTRIES = 20_000
SINGLE = 300


def make_entry(name: str) -> Executed:
    call = Call(
        worker=WorkerId("w"),
        worker_version="v",
        usage=Usage(input_tokens=10, output_tokens=5),
        cost_usd=0.1,
        latency_s=0.2,
    )
    run = Run(id=name, task="0" * 64, origin=Origin.TRAFFIC, calls=(call,), answer=Answer(text="an answer"))
    return Executed(run=run)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Ledger(f"sqlite:///{folder}/l.db") as ledger:
        start = time.perf_counter()
        for index in range(SINGLE):
            await ledger.append(make_entry(f"single-{index}"))
        alone = SINGLE / (time.perf_counter() - start)
        start = time.perf_counter()
        await asyncio.gather(*(ledger.append(make_entry(f"group-{index}")) for index in range(ENTRIES)))
        together = ENTRIES / (time.perf_counter() - start)
    print(
        f"group commit {together:,.0f} durable entries/s, {together / alone:.1f} x one commit an entry ({alone:,.0f}/s)"
    )


if __name__ == "__main__":
    asyncio.run(main())
