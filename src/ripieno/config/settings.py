"""Settings: one typed tree of everything that can be set; unknown keys are errors."""

import re
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ripieno.domain import Mode, Privacy
from ripieno.domain.task import read_mode

_HOST_NAME = r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"
_WEB_ORIGIN = r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s,*]+"
LONGEST_NAME = 255


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GatewaySettings(_Part):
    """The HTTP address."""

    host: str = "127.0.0.1"
    """Address to listen on; anything but loopback needs `api_key`."""
    port: int = Field(default=4141, ge=0, le=65535)
    """0 takes a free port."""
    api_key: SecretStr | None = None
    """The master key, which may do everything; set RIPIENO_GATEWAY__API_KEY."""
    viewer_key: SecretStr | None = None
    """Lets its holder look at the dashboard, and change nothing; set RIPIENO_GATEWAY__VIEWER_KEY."""
    needs_key: bool = False
    """Whether loopback clients need a key too; with `api_key`, all do."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that the gateway answers to beside loopback names: `router.example.org`, `*.example.org`, an IP address."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the API, such as `https://chat.example.org`; never `/ui` or `/admin`."""
    aliases: dict[str, str] = Field(default_factory=dict)
    """Further model names, each for a worker or for `auto` with a preset."""
    max_in_flight: int = Field(default=2000, ge=1)
    """Requests at once; more are turned away with 503."""
    allow_code_checks: bool = False
    """Whether a request may ask for checks that run code, in a jail: `unit_tests`, and plugins (`external`)."""
    body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Largest request body."""
    memory_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """Of all request bodies that are being read or worked on; more are turned away with 503."""
    shared_url: SecretStr | None = None
    """Redis or Valkey that replicas share rates, spend and resting workers in; set RIPIENO_GATEWAY__SHARED_URL."""
    traces_url: str | None = None
    """Where spans go by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; None sends none."""
    drain_s: float = Field(default=30.0, ge=0)
    """How long requests under way are waited for when the gateway ends."""

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if len(host) > LONGEST_NAME or not re.fullmatch(_HOST_NAME, host):
                raise ValueError(f"{host!r} is no host name without port, no *.name, and no IP address")
        return hosts

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if len(origin) > LONGEST_NAME or not re.fullmatch(_WEB_ORIGIN, origin):
                raise ValueError(
                    f"{origin!r} is no origin such as 'https://chat.example.org' (no path, no slash, no *)"
                )
        return origins


class LedgerSettings(_Part):
    """The record."""

    url: str = ""
    """Database URL: sqlite:///path, or postgresql://user@host/database; `ledger.db` in `home` if not given."""
    on_fault: Literal["refuse", "spool"] = "refuse"
    """While the database takes no entries: refuse tasks, or keep entries in the outbox and go on."""
    outbox: Path | None = None
    """File of the outbox; `outbox.jsonl` in `home` where not given. Best on another disk than the ledger."""
    durable_runs: bool = True
    """Whether each step of a run is recorded as it is made, so that the run survives the process."""
    outbox_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """What the outbox may hold; then tasks are refused."""


class RouteSettings(_Part):
    """How tasks are decided where the caller does not say."""

    policy: str = "utility"
    """Policy plugin: utility, rules, or an installed one."""
    preset: str = "balanced"
    """balanced, best, fast, cheap, private or qos."""
    preference: float | None = Field(default=None, ge=0, le=1)
    """The dial, 0 = cheapest, 1 = best; None takes the preset's."""
    exploration: float = Field(default=0.02, ge=0, lt=0.2)
    """Share of tasks on which a plausible worker is tried at random; never on critical ones."""
    newcomers: Literal["ladder", "free"] = "ladder"
    """Whether a worker without outcomes climbs from shadow over trial, or takes tasks at once."""
    budget_usd_per_task: float | None = Field(default=None, gt=0)
    """Mean price of a task that the pacer holds; None spends as the dial says."""
    abstain_price: float | None = Field(default=None, ge=0)
    """What no answer costs, in units of what a right one is worth; None always answers."""
    sensitive: Privacy | None = None
    """How far a text that holds secrets or personal data may travel: local or private; None does not look for any."""
    phone_region: str | None = "US"
    """Where phone numbers without a country code are from, by ISO 3166 (US, DE); None finds only those with one."""
    sensitive_patterns: dict[str, str] = Field(default_factory=dict)
    """Further forms of what is secret here: names, each with a pattern in the syntax of RE2."""
    hedge_share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of tasks for which a second worker may be asked too, when the first is later than it usually is."""
    modes: tuple[Mode, ...] = tuple(Mode)
    """Workflows that a request may ask for."""
    chooses_modes: bool = True
    """Whether the router may choose a workflow unasked, where training proved that it pays."""
    rules: Path | None = None
    """TOML file for `policy = "rules"`."""

    @field_validator("modes", mode="before")
    @classmethod
    def _check_modes(cls, modes: object) -> object:
        if not isinstance(modes, list):
            return modes
        return [read_mode(mode) if isinstance(mode, str) else mode for mode in modes]


class CacheSettings(_Part):
    """What is kept of earlier requests."""

    answers: bool = False
    """Whether exactly the same request is given the answer it had before; a request may say otherwise."""
    answer_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """Memory for kept answers."""


class EncoderSettings(_Part):
    """Text to vectors."""

    name: str = "static"
    """Encoder plugin: static, onnx, remote, or an installed one."""
    options: dict[str, object] = Field(default_factory=dict)


class ConductorSettings(_Part):
    """Who writes plans, where a task is to be worked on by plan."""

    kind: Literal["tiny", "prompted"] = "tiny"
    """The trained policy, or a worker that is asked for a plan."""
    checkpoint: Path | None = None
    """File of the trained policy; the one of `ripieno conductor train` in `home` if not given, else the bundled one."""
    head: Path | None = None
    """File of the turn-level head; the one of `ripieno conductor train` in `home`, else the bundled one."""
    has_examples: bool = True
    """Whether who writes by prompt is shown examples; a model trained for it needs none."""
    worker: str | None = None
    """Who writes by prompt; the model of which most is expected if not given."""


class MemorySettings(_Part):
    """What is remembered, and where."""

    url: str | None = None
    """SQLite or PostgreSQL URL of the memory; `memory.db` in `home` if not given."""
    read_s: float = Field(default=2.0, gt=0)
    """Seconds in which a read answers; then it is `unavailable`."""
    most_tokens: int = Field(default=800, ge=50)
    """Of a prompt that what is remembered may take, counted roughly."""
    compact_words: int | None = Field(default=None, ge=200)
    """Words of a conversation beyond which its older turns are made short; None leaves all as they are."""
    compact_worker: str | None = None
    """Who writes prose beside what is always kept of them: a worker, or `auto` for the router's choice."""
    extract_worker: str | None = None
    """Who extracts facts from what was said, while the gateway runs: a worker, or `auto`; None leaves that out."""


class ProfileSettings(_Part):
    """Measuring workers."""

    judge: str | None = None
    """Worker that grades tasks with a rubric."""


class PoolSettings(_Part):
    """What is said of workers beside their cards."""

    muted: tuple[str, ...] = ()
    """Workers that may not take tasks for now."""
    memory_mb: int | None = Field(default=None, ge=1)
    """Memory for all local models together; the one that was used longest ago is unloaded for the next."""


class ProviderSettings(BaseModel):
    """How to reach some workers: a kind, and the options of that kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    """Provider plugin: openai, llama, callable, replay, or an installed one."""
    api_key: SecretStr | None = None


class WorkerSettings(_Part):
    """A worker card with its binding."""

    provider: str
    model: str | None = None
    """The provider's name for it; the worker's id where not given."""
    options: dict[str, object] = Field(default_factory=dict)
    price: Literal["free"] | None = None
    """`free` states that calls cost nothing. Without any price, the carried price list is asked; what it does not know
    either is unknown, and no budget can use the worker."""
    input_usd_per_mtok: float | None = Field(default=None, ge=0)
    """US dollars for a million tokens in; the price list's where not given."""
    output_usd_per_mtok: float | None = Field(default=None, ge=0)
    """US dollars for a million tokens out; the price list's where not given. A worker that only embeds needs none."""
    cached_usd_per_mtok: float | None = Field(default=None, ge=0)
    """Of input tokens that the provider had read before."""
    cache_write_usd_per_mtok: float | None = Field(default=None, ge=0)
    """Of input tokens that the provider writes into its cache."""
    usd_per_cpu_s: float | None = Field(default=None, ge=0)
    """US dollars for a second of CPU time, for a worker that runs here."""
    usd_per_call: float | None = Field(default=None, ge=0)
    """US dollars for a call, whatever its length."""
    context_window: int | None = Field(default=None, ge=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    """Largest `max_tokens` that the worker takes; a request for more is cut down to it."""
    modalities: tuple[Literal["text", "image", "audio"], ...] = ("text",)
    has_tools: bool = True
    has_json_mode: bool = True
    privacy: Privacy = Privacy.PUBLIC
    region: str | None = None
    max_concurrency: int = Field(default=8, ge=1)
    deprecated_on: date | None = None
    notes: str = ""
    family: str = ""
    """What it shares its faults with; two of one family that agree prove little. Empty takes the id's stem."""
    is_tool: bool = False
    """Whether it is a solver and no model: it is given the bare input of a step, without instructions."""
    can_run: bool = False
    """Whether it executes what it is given, as a plan's `run` asks."""
    has_effects: bool = False
    """Whether a call changes something outside: it is made at most once, and nobody stands in for it."""
    needs_approval: bool = False
    """Whether a human must agree to each call."""


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="RIPIENO_", env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True
    )

    home: Path = Path(".ripieno")
    """Folder for ledger, memory, checkpoints and keys; `.ripieno` next to the settings file if not given."""
    scale: Literal["laptop", "server"] = "laptop"
    """Size of what Ripieno may hold: request bodies, open requests, outbox, kept answers, time to drain and to read."""
    gateway: GatewaySettings = GatewaySettings()
    ledger: LedgerSettings = LedgerSettings()
    route: RouteSettings = RouteSettings()
    cache: CacheSettings = CacheSettings()
    encoder: EncoderSettings = EncoderSettings()
    conductor: ConductorSettings = ConductorSettings()
    memory: MemorySettings = MemorySettings()
    profile: ProfileSettings = ProfileSettings()
    pool: PoolSettings = PoolSettings()
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    workers: dict[str, WorkerSettings] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """All sources are merged by `load_settings`, which also remembers where each value came from."""
        return (init_settings,)
