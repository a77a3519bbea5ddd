"""The process that reads the latest traffic: a query on stdin, the traffic or a fault on stdout."""

import os
import sys
from collections import defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np

from ripieno.dashboard.traffic import Traffic, TrafficQuery
from ripieno.errors import NotFound, RipienoError
from ripieno.evaluate.observed import Observed
from ripieno.evaluate.report import bin_calibration
from ripieno.learn.logs import make_report
from ripieno.ledger import Ledger

WINDOWS = 20
"""Windows in which the quality of a worker is averaged."""
LEAST_WINDOW = 5
"""Least judged outcomes of a window in the chart."""
POLITE = 5
"""How much the process lowers its priority."""


def main() -> None:
    """Read the query, and write the reply."""
    os.nice(POLITE)
    query = msgspec.json.decode(sys.stdin.buffer.read(), type=TrafficQuery)
    found: Traffic | str
    try:
        found = read(query)
    except RipienoError as error:
        found = error.message
    sys.stdout.buffer.write(msgspec.json.encode(found, enc_hook=float))  # numpy's numbers become plain ones


def read(query: TrafficQuery) -> Traffic:
    """Read the latest decisions.

    Raises:
        NotFound: there are no decisions.
        LedgerError: the ledger cannot be read.
    """
    with Ledger(query.url) as ledger:
        found, rows = make_report(ledger, last=query.last, local=query.local, datasets=query.datasets)
    if not rows:
        raise NotFound("no task of traffic is recorded yet")
    realised = [row for row in rows if row.quality is not None and row.is_realised and row.worker in row.expected]
    stated = np.array([row.expected[row.worker] for row in realised])
    met = np.array([float(row.quality or 0.0) for row in realised])
    return Traffic(
        report=found,
        calibration=tuple(bin_calibration(stated, met)) if realised else (),
        courses=_average_windows(rows),
    )


def _average_windows(rows: Sequence[Observed]) -> dict[str, tuple[tuple[float, float], ...]]:
    """Average the met quality of each worker over windows of the decisions."""
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
