"""What an app is built of: the objects that settings describe."""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from ripieno.conductor import Conductor, Directors, PromptedConductor
from ripieno.conductor.tiny import BUNDLED, load_tiny
from ripieno.conductor.turns import BUNDLED_HEAD, load_turns
from ripieno.config import Loaded, ProviderSettings, Settings, WorkerSettings
from ripieno.domain import FREE, Binding, Clock, Pool, Price, Worker, WorkerId, parse_worker_id
from ripieno.encoders import Encoder
from ripieno.errors import CheckpointError, ConfigError
from ripieno.ledger import Outbox
from ripieno.memory import Memory, Store
from ripieno.memory.opening import open_memory
from ripieno.memory.shorten import Shortener
from ripieno.plugins import build_plugin, open_plugin
from ripieno.privacy import Boundary, Scanner, make_scanner
from ripieno.privacy.files import make_folder
from ripieno.providers import Caller, Provider, Residents, UnavailableProvider, find_fault, is_resident
from ripieno.providers.prices import complete_price, find_price

log = logging.getLogger(__name__)

HERE = "local:"
"""Address of workers that run in this process: their names say nothing of a price."""
PROVIDERS = "ripieno.providers"
MEMORY_FILE = "memory.db"


def build_pool(settings: Settings) -> Pool:
    """Make the pool of the settings.

    Raises:
        ConfigError: an id is not canonical, a card is wrong, or there is no worker.
    """
    muted = set(settings.pool.muted)
    try:
        workers = [
            _make_worker(name, card, is_muted=name in muted, base_url=_find_address(settings, card))
            for name, card in settings.workers.items()
        ]
        pool = Pool(tuple(workers))
    except ValueError as error:
        raise ConfigError(str(error), key="workers") from error
    if not len(pool):
        raise ConfigError("the pool is empty", key="workers", hint="add a worker: `ripieno pool add`")
    return pool


def make_price(name: str, card: WorkerSettings, *, base_url: str | None) -> Price:
    """Return the price of a card: its stated prices, completed by the price list. `UNKNOWN` is never zero.

    Raises:
        ValueError: the card calls the worker free and states a price.
    """
    names = ("input_usd_per_mtok", "output_usd_per_mtok", "cached_usd_per_mtok", "cache_write_usd_per_mtok")
    tokens = {each: getattr(card, each) for each in names}
    others = {"usd_per_cpu_s": card.usd_per_cpu_s, "usd_per_call": card.usd_per_call}
    stated = {each: value for each, value in (tokens | others).items() if value is not None}
    if card.price == "free":
        if any(stated.values()):
            raise ValueError(f'worker {name!r} has price = "free" and states {", ".join(stated)}; remove one of both')
        return FREE
    has_both = card.input_usd_per_mtok is not None and card.output_usd_per_mtok is not None
    if has_both or (set(stated) & set(others) and not set(stated) & set(names)):
        return complete_price(Price(), stated)
    listed = find_price(card.model or name, base_url=base_url)
    if card.input_usd_per_mtok is not None and not listed.is_known:
        listed = Price(prices_output=False)
    return complete_price(listed, stated)


def _make_worker(name: str, card: WorkerSettings, *, is_muted: bool, base_url: str | None) -> Worker:
    model = card.model or name
    return Worker(
        id=parse_worker_id(name),
        binding=Binding(provider=card.provider, model=model, options=card.options),
        price=make_price(name, card, base_url=base_url),
        context_window=card.context_window,
        max_output_tokens=card.max_output_tokens,
        modalities=frozenset(card.modalities),
        has_tools=card.has_tools,
        has_json_mode=card.has_json_mode,
        privacy=card.privacy,
        region=card.region,
        max_concurrency=card.max_concurrency,
        deprecated_on=card.deprecated_on,
        is_muted=is_muted,
        notes=card.notes,
        family=card.family,
        is_tool=card.is_tool,
        can_run=card.can_run,
        has_effects=card.has_effects,
        needs_approval=card.needs_approval,
    )


def build_providers(
    loaded: Loaded, *, known: Mapping[tuple[str, str], Provider], residents: Residents
) -> dict[str, Provider]:
    """Make the providers that workers name; unchanged ones are kept, with their connections.

    A provider whose key, package or plugin is missing on this machine is replaced by one that names the reason, so
    that the other workers can serve.

    Raises:
        ConfigError: an option is unknown or wrong.
    """
    settings = loaded.settings
    providers: dict[str, Provider] = {}
    for name in dict.fromkeys(card.provider for card in settings.workers.values()):
        configured = settings.providers[name]
        kept = known.get((name, repr(configured)))
        # a provider that lacked something is made again: what was missing may be there now
        is_kept = kept is not None and not isinstance(kept, UnavailableProvider)
        if kept is not None and is_kept:
            provider = kept
        else:
            with loaded.placing():
                provider = _build_provider(name, configured, loaded.folder)
        if is_resident(provider):
            provider.residents = residents
        providers[name] = provider
    return providers


def _build_provider(name: str, configured: ProviderSettings, folder: Path) -> Provider:
    key = f"providers.{name}"
    options = dict(configured.model_extra or {})
    if configured.api_key is not None:
        options["api_key"] = configured.api_key
    try:
        plugin = open_plugin(PROVIDERS, configured.kind, key=f"{key}.kind")
    except ConfigError as error:
        return UnavailableProvider(error)
    checked = plugin.read(options, key=key, folder=folder)
    try:
        return cast(Provider, plugin.make(checked))
    except ConfigError as error:
        hint = (error.hint or "").replace("RIPIENO_PROVIDERS__NAME__", f"RIPIENO_PROVIDERS__{name.upper()}__") or None
        return UnavailableProvider(ConfigError(error.message, key=error.key, hint=hint))


def find_unavailable(pool: Pool, providers: Mapping[str, Provider]) -> Mapping[WorkerId, str]:
    """Find the workers that cannot be opened on this machine, with what is missing for each.

    Raises:
        ConfigError: a worker's card is wrong.
    """
    faults = {worker.id: find_fault(providers[worker.binding.provider], worker) for worker in pool}
    return {worker: fault for worker, fault in faults.items() if fault is not None}


def build_encoder(loaded: Loaded) -> Encoder:
    """Make the encoder of the settings.

    Raises:
        ConfigError: there is no such encoder, it lacks a package or a file, or an option is wrong.
    """
    chosen = loaded.settings.encoder
    options, key = dict(chosen.options), "encoder.options"
    with loaded.placing():
        return cast(Encoder, build_plugin("ripieno.encoders", chosen.name, options, key=key, folder=loaded.folder))


def prepare_home(settings: Settings) -> None:
    """Make the home folder, and make sure that files can be written into it.

    Raises:
        ConfigError: it cannot be made, or nothing can be written into it.
    """
    home = settings.home
    try:
        make_folder(home)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise ConfigError(
            f"the home folder {str(home)!r} cannot be written: {error.strerror}",
            key="home",
            hint="set `home` in ripieno.toml, or RIPIENO_HOME, to a folder that you may write into",
        ) from error


def build_boundary(settings: Settings) -> Boundary | None:
    """Make what keeps sensitive text near; None where the settings do not ask for it.

    Raises:
        ConfigError: the extra `privacy` is missing, or a pattern or the region is none.
    """
    reach = settings.route.sensitive
    return Boundary(reach, build_scanner(settings)) if reach is not None else None


def build_scanner(settings: Settings) -> Scanner:
    """Make what finds secrets and personal data.

    Raises:
        ConfigError: the extra `privacy` is missing, or a pattern or the region is none.
    """
    return make_scanner(region=settings.route.phone_region, patterns=settings.route.sensitive_patterns)


def build_conductor(settings: Settings, caller: Caller, encoder: Encoder) -> Conductor:
    """Make who writes plans; the trained policy where it fits the encoder, else a worker by prompt.

    Raises:
        CheckpointError: the policy that the settings name cannot be used.
    """
    chosen = settings.conductor
    worker = parse_worker_id(chosen.worker) if chosen.worker is not None else None
    if chosen.kind == "prompted":
        return PromptedConductor(caller, worker=worker, has_examples=chosen.has_examples)
    if chosen.checkpoint is not None:
        return load_tiny(chosen.checkpoint, encoder)
    trained = settings.home / "conductor" / "conductor-0.safetensors"
    try:
        return load_tiny(trained if trained.exists() else BUNDLED, encoder)
    except CheckpointError as error:
        log.info("plans are written by prompt: %s", error.message)
        return PromptedConductor(caller, worker=worker, has_examples=chosen.has_examples)


def build_directors(settings: Settings, encoder: Encoder) -> Directors | None:
    """Make the directors of turns; None if the available head was trained with another encoder.

    Raises:
        CheckpointError: the head that the settings name cannot be used.
    """
    chosen = settings.conductor.head
    if chosen is not None:
        return load_turns(chosen, encoder)
    trained = settings.home / "conductor" / "turns" / "0.safetensors"
    try:
        return load_turns(trained if trained.exists() else BUNDLED_HEAD, encoder)
    except CheckpointError as error:
        log.info("turns are not available: %s", error.message)
        return None


def build_shortener(settings: Settings) -> Shortener | None:
    """Make the shortener of long conversations; None if the settings do not ask for it."""
    memory = settings.memory
    if memory.compact_words is None:
        return None
    return Shortener(most_words=memory.compact_words, worker=memory.compact_worker)


def has_memory_file(settings: Settings) -> bool:
    """Return whether the home folder has a memory from before."""
    return (settings.home / MEMORY_FILE).exists()


def build_memory(settings: Settings, encoder: Encoder, clock: Clock) -> Memory:
    """Open the memory of the settings.

    Raises:
        ConfigError: its URL is none that a memory can be at.
        MemoryUnavailable: it cannot be opened.
    """
    url = settings.memory.url or f"sqlite:///{settings.home / MEMORY_FILE}"
    return Memory(Store(open_memory(url), clock), encoder, clock, read_s=settings.memory.read_s)


def make_outbox(settings: Settings) -> Outbox | None:
    """Make the outbox of the settings; None where a ledger at fault refuses."""
    ledger = settings.ledger
    if ledger.on_fault == "refuse":
        return None
    return Outbox(ledger.outbox or settings.home / "outbox.jsonl", largest=ledger.outbox_bytes)


def _find_address(settings: Settings, card: WorkerSettings) -> str | None:
    """Where a worker is reached, as far as that tells its price; None where its provider has an address of its own."""
    found = settings.providers[card.provider]
    if found.kind in ("callable", "llama"):
        return HERE
    address = (found.model_extra or {}).get("base_url")
    return address if isinstance(address, str) else None
