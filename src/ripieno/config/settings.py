"""Settings: one typed tree of all settings. Unknown keys are errors."""

import re
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ripieno.domain import Mode, Privacy
from ripieno.domain.objective import read_mode

_HOST_NAME = r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"
_WEB_ORIGIN = r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s,*]+"
LONGEST_NAME = 255


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GatewaySettings(_Part):
    """The HTTP address."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than loopback needs `api_key`."""
    port: int = Field(default=4141, ge=0, le=65535)
    """Port to listen on; 0 takes a free port."""
    api_key: SecretStr | None = None
    """The master key, which allows everything; set RIPIENO_GATEWAY__API_KEY."""
    viewer_key: SecretStr | None = None
    """Key that may read the dashboard and change nothing; set RIPIENO_GATEWAY__VIEWER_KEY."""
    needs_key: bool = False
    """Whether loopback clients need a key, too. With `api_key`, all clients need one."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names the gateway accepts beside loopback names: `router.example.org`, `*.example.org`, an IP address."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the API, such as `https://chat.example.org`; never `/ui` or `/admin`."""
    aliases: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """Further model names, each for one or several workers, or `auto` with a preset; `*` in a name is any text."""
    resume_streams: bool = False
    """Whether another worker continues the text of a stream whose worker died; the record names both."""
    max_in_flight: int = Field(default=2000, ge=1)
    """Most concurrent requests. The gateway rejects more with 503."""
    allow_code_checks: bool = False
    """Whether a request may use checks that run code in a jail: `unit_tests`, and plugins (`external`)."""
    body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Largest request body in bytes."""
    memory_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """Most bytes of all request bodies in progress. The gateway rejects more with 503."""
    shared_url: SecretStr | None = None
    """Redis or Valkey where replicas share rates, spend and worker health; set RIPIENO_GATEWAY__SHARED_URL."""
    traces_url: str | None = None
    """OTLP over HTTP address for spans, such as http://127.0.0.1:4318/v1/traces; None sends none."""
    tls_cert: Path | None = None
    """File with the certificate and its chain, in PEM form: the gateway then serves HTTPS; `--tls-cert` sets it."""
    tls_key: Path | None = None
    """File with the key of `tls_cert`, in PEM form. Default: the key is in `tls_cert`; `--tls-key` sets it."""
    drain_s: float = Field(default=30.0, ge=0)
    """Seconds that the gateway waits for open requests when it stops."""

    @field_validator("api_key", "viewer_key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[!-~]+", key.get_secret_value()):
            raise ValueError("a key consists of printable ASCII characters without spaces")
        return key

    @model_validator(mode="after")
    def _check_tls(self) -> "GatewaySettings":
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key needs tls_cert, the certificate that the key belongs to")
        return self

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if len(host) > LONGEST_NAME or not re.fullmatch(_HOST_NAME, host):
                raise ValueError(f"{host!r} is not a host name without a port, *.name, or an IP address")
        return hosts

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if len(origin) > LONGEST_NAME or not re.fullmatch(_WEB_ORIGIN, origin):
                raise ValueError(
                    f"{origin!r} is not an origin such as 'https://chat.example.org' (no path, no slash, no *)"
                )
        return origins


class LedgerSettings(_Part):
    """The ledger."""

    url: str = ""
    """Database URL: sqlite:///path, or postgresql://user@host/database. Default: `ledger.db` in `home`."""
    on_fault: Literal["refuse", "spool"] = "refuse"
    """While the database accepts no entries: `refuse` refuses tasks, `spool` keeps entries in the outbox and
    continues.
    """
    outbox: Path | None = None
    """File of the outbox. Default: `outbox.jsonl` in `home`. Use another disk than the ledger's if you can."""
    durable_runs: bool = True
    """Whether each step of a run is recorded immediately, so that the run survives the process."""
    outbox_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """Most bytes in the outbox. Beyond it, tasks are refused."""


class RouteSettings(_Part):
    """How the router decides if the caller does not say."""

    policy: str = "utility"
    """Policy plugin: utility, rules, or an installed one."""
    preset: str = "balanced"
    """Preset: balanced, best, fast, cheap, private or qos."""
    preference: float | None = Field(default=None, ge=0, le=1)
    """The dial: 0 = cheapest, 1 = best; None takes the preset's value."""
    exploration: float = Field(default=0.02, ge=0, lt=0.2)
    """Share of tasks for which the router tries a plausible worker at random; never critical tasks."""
    newcomers: Literal["ladder", "free"] = "ladder"
    """How a worker without outcomes starts: `ladder` in shadow, then on trial; `free` with tasks at once."""
    budget_usd_per_task: float | None = Field(default=None, gt=0)
    """Mean price of a task that the pacer keeps; None spends as the dial says."""
    abstain_price: float | None = Field(default=None, ge=0)
    """Cost of no answer, in units of the value of a right answer; None always answers."""
    sensitive: Privacy | None = None
    """How far a text with secrets or personal data may travel: local or private; None does not scan for them."""
    phone_region: str | None = "US"
    """Region of phone numbers without a country code, by ISO 3166 (US, DE); None finds only those with a code."""
    sensitive_patterns: dict[str, str] = Field(default_factory=dict)
    """Additional kinds of secrets: a name and a pattern in the syntax of RE2 for each."""
    hedge_share: float = Field(default=0.0, ge=0, le=0.5)
    """Largest share of tasks that call a second worker if the first is later than a checkpoint predicts."""
    modes: tuple[Mode, ...] = tuple(Mode)
    """Workflows that a request may name."""
    chooses_modes: bool = True
    """Whether the router may choose a workflow itself, if training proved that it pays."""
    rules: Path | None = None
    """TOML file for `policy = "rules"`."""

    @field_validator("modes", mode="before")
    @classmethod
    def _check_modes(cls, modes: object) -> object:
        if not isinstance(modes, list):
            return modes
        return [read_mode(mode) if isinstance(mode, str) else mode for mode in modes]


class CacheSettings(_Part):
    """What is cached of earlier requests."""

    answers: bool = False
    """Whether an identical request gets the earlier answer. A request can override it."""
    answer_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """Bytes of memory for cached answers."""


class EncoderSettings(_Part):
    """Text to vectors."""

    name: str = "static"
    """Encoder plugin: static, onnx, remote, or an installed one."""
    options: dict[str, object] = Field(default_factory=dict)


class ConductorSettings(_Part):
    """The writer of plans, for tasks that run by plan."""

    kind: Literal["tiny", "prompted"] = "tiny"
    """`tiny` is the trained policy; `prompted` calls a worker for a plan."""
    checkpoint: Path | None = None
    """File of the trained policy. Default: that of `ripieno conductor train` in `home`, else the bundled one."""
    head: Path | None = None
    """File of the turn-level head. Default: that of `ripieno conductor train` in `home`, else the bundled one."""
    has_examples: bool = True
    """Whether the prompt for plans contains examples. A model trained to write plans needs none."""
    worker: str | None = None
    """Worker that writes plans by prompting. Default: the model with the highest expected quality."""


class MemorySettings(_Part):
    """Memory: its database and its limits."""

    url: str | None = None
    """SQLite or PostgreSQL URL of the memory. Default: `memory.db` in `home`."""
    read_s: float = Field(default=2.0, gt=0)
    """Seconds until a read gives up and reports `unavailable`."""
    most_tokens: int = Field(default=800, ge=50)
    """Most tokens of a prompt that recalled items may take, counted roughly."""
    compact_words: int | None = Field(default=None, ge=200)
    """Words of a conversation beyond which its older turns are compacted; None compacts nothing."""
    compact_worker: str | None = None
    """Worker that writes a summary beside the facts that rules keep, or `auto` for the router's choice."""
    extract_worker: str | None = None
    """Worker that extracts facts from conversations while the gateway runs, or `auto`; None extracts nothing."""


class ProfileSettings(_Part):
    """Measurement of workers."""

    judge: str | None = None
    """Worker that grades tasks with a rubric."""


class PoolSettings(_Part):
    """Settings of workers beside their cards."""

    muted: tuple[str, ...] = ()
    """Workers that may not take tasks for now."""
    memory_mb: int | None = Field(default=None, ge=1)
    """Memory for all local models together, in MB. The least recently used model is unloaded for the next."""


class ProviderSettings(BaseModel):
    """How to reach some workers: a kind, and the options of that kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    """Provider plugin: openai, llama, callable, replay, or an installed one."""
    api_key: SecretStr | None = None


class WorkerSettings(_Part):
    """A worker card with its provider binding."""

    provider: str
    model: str | None = None
    """The provider's name for the model. Default: the worker's id."""
    options: dict[str, object] = Field(default_factory=dict)
    price: Literal["free"] | None = None
    """`free` states that calls cost nothing. Without any price, the bundled price list applies. If that does not know
    the model, the price is unknown, and no task with a budget can use the worker.
    """
    input_usd_per_mtok: float | None = Field(default=None, ge=0)
    """US dollars per million input tokens. Default: the price list's."""
    output_usd_per_mtok: float | None = Field(default=None, ge=0)
    """US dollars per million output tokens. Default: the price list's. A worker that only embeds needs none."""
    cached_usd_per_mtok: float | None = Field(default=None, ge=0)
    """US dollars per million input tokens that the provider reads from its cache."""
    cache_write_usd_per_mtok: float | None = Field(default=None, ge=0)
    """US dollars per million input tokens that the provider writes into its cache."""
    usd_per_cpu_s: float | None = Field(default=None, ge=0)
    """US dollars per second of CPU time, for a worker that runs here."""
    usd_per_call: float | None = Field(default=None, ge=0)
    """US dollars per call, whatever its length."""
    context_window: int | None = Field(default=None, ge=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    """Largest `max_tokens` that the worker accepts. A larger request is cut to it."""
    modalities: tuple[Literal["text", "image", "audio"], ...] = ("text",)
    has_tools: bool = True
    has_json_mode: bool = True
    privacy: Privacy = Privacy.PUBLIC
    region: str | None = None
    max_concurrency: int = Field(default=8, ge=1)
    deprecated_on: date | None = None
    notes: str = ""
    family: str = ""
    """Model family. Agreement within a family is weak evidence. Default: the id up to its first separator."""
    is_tool: bool = False
    """Whether it is a solver instead of a model: it gets the bare input of a step, without instructions."""
    can_run: bool = False
    """Whether it executes the code it gets, as a plan's `run` step needs."""
    has_effects: bool = False
    """Whether a call changes something outside. Such a call is made at most once and has no fallback."""
    needs_approval: bool = False
    """Whether a human must approve each call."""


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix="RIPIENO_", env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True
    )

    home: Path = Path(".ripieno")
    """Folder for ledger, memory, checkpoints and keys. Default: `.ripieno` next to the settings file."""
    scale: Literal["laptop", "server"] = "laptop"
    """Size of Ripieno's limits: request bodies, open requests, outbox, cached answers, time to drain and to read."""
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
        """Use the given values only: `load_settings` merges all sources, and records where each value came from."""
        return (init_settings,)
