"""Checks of `ripieno doctor` and `ripieno pool check`. Each part is opened alone, so no fault hides another."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ripieno.app import Installation, MemoryApp
from ripieno.app.build import build_encoder, build_pool, build_providers, prepare_home
from ripieno.cli.errors import OUT_OF_REACH, WRONG_SETUP
from ripieno.cli.output import say
from ripieno.cli.prices import describe_list_date, describe_unknown_prices
from ripieno.config import Loaded
from ripieno.domain import Worker, WorkerId
from ripieno.errors import ConfigError, ProviderError, RipienoError
from ripieno.ledger import Ledger
from ripieno.memory.health import Pulse
from ripieno.plugins import list_plugins
from ripieno.providers import Provider, Residents
from ripieno.route.predictors.drift import find_drift_fault
from ripieno.verify.jail import describe_jail

Check = Callable[[Loaded], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCheck:
    """Result of the check of one worker."""

    worker: WorkerId
    is_ok: bool
    detail: str
    """What was found, or what is wrong and how to fix it."""


async def check_workers(loaded: Loaded) -> list[WorkerCheck]:
    """Import or reach every worker of the pool, concurrently. Return the results in the order of the pool.

    Raises:
        ConfigError: the pool or a provider's options are wrong.
    """
    with loaded.placing():
        pool = build_pool(loaded.settings)
    providers = build_providers(loaded, known={}, residents=Residents(None))
    try:
        return list(
            await asyncio.gather(*(_check_worker(worker, providers[worker.binding.provider]) for worker in pool))
        )
    finally:
        for provider in providers.values():
            await provider.close()


async def examine(loaded: Loaded) -> int:
    """Check every part, and print one line for each.

    Returns:
        The exit code: 0; 3 if the setup is wrong; 4 if only workers cannot be opened or reached.
    """
    say(f"settings: ok ({loaded.path if loaded.path.exists() else 'no file, defaults'})")
    for name in loaded.ignored:
        say(f"settings: {name} is ignored: no such provider or worker is configured here")
    checks: dict[str, Check] = {
        "home": _check_home,
        "ledger": _check_ledger,
        "memory": _check_memory,
        "encoder": _check_encoder,
        "plugins": _check_plugins,
    }
    is_whole = all([await _report(name, check, loaded) for name, check in checks.items()])
    if is_whole:
        is_whole = await _report("checkpoint", _check_checkpoint, loaded)
    say(find_drift_fault() or "drift detection: ok, on")
    try:
        seen = await check_workers(loaded)
    except ConfigError as error:
        say(f"pool: {_format_error(error)}")
        return WRONG_SETUP
    say(f"jail: {describe_jail()[1]}")
    say(describe_list_date())
    unpriced = describe_unknown_prices(build_pool(loaded.settings))
    if unpriced is not None:
        say(unpriced)
    for each in seen:
        say(f"worker {each.worker}: {'ok, ' if each.is_ok else ''}{each.detail}")
    if not is_whole:
        return WRONG_SETUP
    return 0 if all(each.is_ok for each in seen) else OUT_OF_REACH


async def _check_worker(worker: Worker, provider: Provider) -> WorkerCheck:
    try:
        return WorkerCheck(worker=worker.id, is_ok=True, detail=await provider.check(worker))
    except (ProviderError, ConfigError) as error:
        return WorkerCheck(worker=worker.id, is_ok=False, detail=_format_error(error))


async def _report(name: str, check: Check, loaded: Loaded) -> bool:
    try:
        say(f"{name}: {await check(loaded)}")
    except RipienoError as error:
        say(f"{name}: {_format_error(error)}")
        return False
    return True


async def _check_home(loaded: Loaded) -> str:
    prepare_home(loaded.settings)
    return f"ok, writable ({loaded.settings.home})"


async def _check_ledger(loaded: Loaded) -> str:
    with Ledger(loaded.settings.ledger.url) as ledger:
        return f"ok, {ledger.verify().entries} entries ({ledger.url})"


async def _check_memory(loaded: Loaded) -> str:
    async with MemoryApp(loaded) as app:
        health = await app.memory.health()
        if health.pulse is Pulse.UNAVAILABLE:
            raise ConfigError(f"unavailable: {health.detail}", hint="run `ripieno memory status`")
        return f"{health.pulse}, {health.items} items"


async def _check_encoder(loaded: Loaded) -> str:
    encoder = build_encoder(loaded)
    try:
        rows = await encoder.encode(["What is 15% of 80?"])
    finally:
        await encoder.close()
    return f"ok, {rows.shape[1]} numbers a text ({encoder.name})"


async def _check_plugins(loaded: Loaded) -> str:
    found = list_plugins()
    broken = [f"{each.name} ({each.fault})" for each in found if each.fault is not None]
    return f"{len(found) - len(broken)} can be imported" + (f"; not used here: {'; '.join(broken)}" if broken else "")


async def _check_checkpoint(loaded: Loaded) -> str:
    async with Installation(loaded) as app:
        current = app.registry.current()
    return f"ok, {current}" if current else "none yet; run `ripieno profile` and `ripieno train`"


def _format_error(error: RipienoError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
