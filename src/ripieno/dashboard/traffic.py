"""Traffic: the latest decisions with what came of them, read beside the pages, as several of them show it."""

import asyncio
import subprocess
import sys
from dataclasses import dataclass

import msgspec

from ripieno.app import Installation
from ripieno.app.policies import audit_traffic
from ripieno.app.sources import list_campaigns, list_local
from ripieno.dashboard.views import Kept, Views
from ripieno.errors import LedgerError
from ripieno.evaluate.audit import Audit
from ripieno.evaluate.questions import TrafficReport

LAST = 20_000
"""Latest decisions that are read."""
READING_S = 300.0
"""That reading may take."""
AUDITED = 1_000
"""Latest decisions that are looked at for bias: their features are found anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the latest decisions show."""

    report: TrafficReport
    calibration: tuple[tuple[float, float], ...]
    """Expected and met quality of the workers that were chosen, in bins of equal count."""
    courses: dict[str, tuple[tuple[float, float], ...]]
    """By worker: its met quality over the decisions, in their order; from 0, the oldest, to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the reading process is told."""

    url: str
    """Of the ledger; it may hold a password, and so does not stand in a command line."""
    local: dict[str, int]
    """Workers that run on this machine, with how many tasks each takes at once."""
    datasets: tuple[str, ...]
    """Campaigns in which several workers were measured on the same tasks."""
    last: int = LAST


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What the reading process answers."""

    traffic: Traffic | None = None
    fault: str = ""


def look_at_traffic(app: Installation, views: Views, *, last: int = LAST) -> Kept[Traffic]:
    """The latest decisions, read within the last minute, or being read."""
    local = list_local(app.runtime.pool)
    wanted = Wanted(url=app.runtime.settings.ledger.url, local=local, datasets=list_campaigns(app), last=last)
    return views.look(f"traffic {last}", lambda: _read_apart(wanted))


def look_for_bias(app: Installation, views: Views) -> Kept[tuple[Audit, list[str]]]:
    """The audit of the latest decisions, made within the last minute, or being made."""
    return views.look("audit", lambda: audit_traffic(app, last=AUDITED))


async def _read_apart(wanted: Wanted) -> Traffic:
    """Read in a process of its own: it takes a whole processor for seconds, and requests must not wait for it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ripieno.dashboard.reader", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(READING_S):
            told, _ = await process.communicate(msgspec.json.encode(wanted))
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
    found = msgspec.json.decode(told, type=Read)
    if found.traffic is None:
        raise LedgerError(found.fault)
    return found.traffic
