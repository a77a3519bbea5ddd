"""The process that reads the latest traffic: told what to read on stdin, it answers on stdout, and ends."""

import os
import sys
from collections import defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np

from ripieno.dashboard.traffic import Read, Traffic, Wanted
from ripieno.errors import NotFound, RipienoError
from ripieno.evaluate.observed import Observed
from ripieno.evaluate.report import bin_calibration
from ripieno.learn.reports import make_report
from ripieno.ledger import Ledger

WINDOWS = 20
"""Stretches of time in which the quality of a worker is averaged."""
LEAST_WINDOW = 5
"""Judged outcomes below which a stretch is not drawn."""
POLITE = 5
"""How much others go before it."""


def main() -> None:
    """Read, and answer."""
    os.nice(POLITE)
    wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=Wanted)
    try:
        found = Read(traffic=read(wanted))
    except RipienoError as error:
        found = Read(fault=error.message)
    sys.stdout.buffer.write(msgspec.json.encode(found, enc_hook=float))  # numpy's numbers become plain ones


def read(wanted: Wanted) -> Traffic:
    """Read the latest decisions.

    Raises:
        NotFound: there are none.
        LedgerError: the ledger cannot be read.
    """
    with Ledger(wanted.url) as ledger:
        found, rows = make_report(ledger, last=wanted.last, local=wanted.local, datasets=wanted.datasets)
    if not rows:
        raise NotFound("no task of traffic is recorded yet")
    realised = [row for row in rows if row.quality is not None and row.is_realised and row.worker in row.expected]
    stated = np.array([row.expected[row.worker] for row in realised])
    met = np.array([float(row.quality or 0.0) for row in realised])
    return Traffic(
        report=found,
        calibration=tuple(bin_calibration(stated, met)) if realised else (),
        courses=_follow(rows),
    )


def _follow(rows: Sequence[Observed]) -> dict[str, tuple[tuple[float, float], ...]]:
    """Met quality of each worker in stretches of the decisions."""
    sums: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for place, row in enumerate(rows):
        if row.quality is not None and row.is_realised:
            sums[row.worker][place * WINDOWS // len(rows)].append(row.quality)
    return {
        worker: tuple(
            ((window + 0.5) / WINDOWS, sum(values) / len(values))
            for window, values in sorted(found.items())
            if len(values) >= LEAST_WINDOW
        )
        for worker, found in sums.items()
    }


if __name__ == "__main__":
    main()
