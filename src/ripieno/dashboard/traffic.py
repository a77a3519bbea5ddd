"""Traffic: the latest decisions with their results, for several pages."""

import asyncio
import subprocess
import sys
from dataclasses import dataclass

import msgspec

from ripieno.app import Installation
from ripieno.app.policies import audit_traffic
from ripieno.app.sources import list_campaigns, list_local
from ripieno.dashboard.views import CachedView, Views
from ripieno.errors import LedgerError
from ripieno.evaluate.audit import Audit
from ripieno.evaluate.questions import TrafficReport

LAST = 20_000
"""Latest decisions that the reports read."""
READING_S = 300.0
"""Seconds for reading."""
AUDITED = 1_000
"""Latest decisions in the audit, which computes their features again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Results of the latest decisions."""

    report: TrafficReport
    calibration: tuple[tuple[float, float], ...]
    """Expected and met quality of the chosen workers, in bins of equal count."""
    courses: dict[str, tuple[tuple[float, float], ...]]
    """By worker: its met quality over the decisions, from 0, the oldest, to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficQuery:
    """What the reading process reads."""

    url: str
    """Of the ledger. It may hold a password, and so is not a command line argument."""
    local: dict[str, int]
    """Workers on this machine, with the number of tasks that each runs at once."""
    datasets: tuple[str, ...]
    """Campaigns that measured several workers on the same tasks."""
    last: int = LAST


def view_traffic(app: Installation, views: Views, *, last: int = LAST) -> CachedView[Traffic]:
    """Return the latest decisions, at most a minute old, or a view that is being made."""
    local = list_local(app.runtime.pool)
    query = TrafficQuery(url=app.runtime.settings.ledger.url, local=local, datasets=list_campaigns(app), last=last)
    return views.get(f"traffic {last}", lambda: _read_apart(query))


def view_audit(app: Installation, views: Views) -> CachedView[tuple[Audit, list[str]]]:
    """Return the audit of the latest decisions, at most a minute old, or a view that is being made."""
    return views.get("audit", lambda: audit_traffic(app, last=AUDITED))


async def _read_apart(query: TrafficQuery) -> Traffic:
    """Read in another process, because it takes seconds of a processor and requests must not wait for it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ripieno.dashboard.reader", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(READING_S):
            reply, _ = await process.communicate(msgspec.json.encode(query))
    except TimeoutError:
        raise LedgerError(f"traffic was not read within {READING_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise LedgerError(
            "the process that reads traffic has failed", hint="its traceback is on the gateway's standard error"
        )
    found: Traffic | str = msgspec.json.decode(reply, type=Traffic | str)
    if isinstance(found, str):
        raise LedgerError(found)
    return found
