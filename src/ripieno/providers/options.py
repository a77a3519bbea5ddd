"""Options of providers behind an HTTP address, and of their workers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from ripieno.domain import Message, Task
from ripieno.providers.transport import Security


class EndpointOptions(BaseModel):
    """Options of every provider behind an HTTP address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    """Address up to and including `/v1`. A query in it goes with every request."""
    api_key: SecretStr | None = None
    """Set by RIPIENO_PROVIDERS__NAME__API_KEY, never in the file."""
    api_key_env: str | None = None
    """Name of another environment variable that holds the key."""
    needs_key: bool = False
    """Whether a missing key is an error at once."""
    key_header: str | None = None
    """Header that carries the key, such as Azure's `api-key`. Default: the one of the format."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of every request, such as `openai-organization`."""
    query: dict[str, str] = Field(default_factory=dict)
    """Query of every request, such as Azure's `api-version`."""
    ca_file: Path | None = None
    """File with the only authorities to trust, in PEM form. Default: SSL_CERT_FILE, or the system's."""
    cert_file: Path | None = None
    """File with the certificate that is shown to the server, in PEM form."""
    key_file: Path | None = None
    """File with the key of `cert_file`."""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    first_token_timeout_s: float = Field(default=30.0, gt=0)
    idle_timeout_s: float = Field(default=30.0, gt=0)
    total_timeout_s: float = Field(default=120.0, gt=0)

    usual_key_header: ClassVar[str] = "authorization"
    usual_headers: ClassVar[Mapping[str, str]] = {}

    @field_validator("base_url")
    @classmethod
    def _check_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or parts.hostname is None or parts.port == 0:
            raise ValueError(f"{value!r} is not an http or https address; write http://host:port/v1")
        return value

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not name or not is_plain(name) or not is_plain(text):
                raise ValueError(f"the header {name[:40]!r} holds a line break or a control character")
        return value

    def make_security(self) -> Security:
        """Make the settings of TLS connections."""
        return Security(ca_file=self.ca_file, cert_file=self.cert_file, key_file=self.key_file)

    def add_query(self, path: str) -> str:
        """Return a path with the query of every request."""
        query = urlencode(dict(parse_qsl(urlsplit(self.base_url).query)) | self.query)
        return f"{path}{'&' if '?' in path else '?'}{query}" if query else path

    def make_headers(self) -> dict[str, str]:
        """Make the headers of every request, with the key."""
        headers = {**self.usual_headers, **{name.lower(): value for name, value in self.headers.items()}}
        if self.api_key is not None:
            name, key = (self.key_header or self.usual_key_header).lower(), self.api_key.get_secret_value()
            headers[name] = f"Bearer {key}" if name == "authorization" else key
        return headers


def is_plain(text: str) -> bool:
    """Return whether a text can stand in a header as it is."""
    return all(character.isprintable() or character == "\t" for character in text)


class AnthropicOptions(EndpointOptions):
    """Options of `kind = "anthropic"`."""

    base_url: str = "https://api.anthropic.com/v1"

    usual_key_header: ClassVar[str] = "x-api-key"
    usual_headers: ClassVar[Mapping[str, str]] = {"anthropic-version": "2023-06-01"}


class GeminiOptions(EndpointOptions):
    """Options of `kind = "gemini"`."""

    base_url: str = "https://generativelanguage.googleapis.com/v1beta"

    usual_key_header: ClassVar[str] = "x-goog-api-key"


class WorkerOptions(BaseModel):
    """Options of one worker behind an HTTP address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str | None = None
    """A system message for tasks without one."""
    has_developer_role: bool = False
    """Whether the server accepts the role `developer`. If not, it is sent as `system`."""
    takes_effort: bool = False
    """Whether a model in Anthropic's format takes an effort. If not, it gets a budget of thinking tokens."""
    params: dict[str, object] = Field(default_factory=dict)
    """Request fields for tasks that do not state them."""
    samples: int = Field(default=1, ge=1, le=64)
    """Answers to sample; above 1, the most frequent is taken."""

    def complete(self, task: Task) -> Task:
        """Return the task with the worker's system message and request fields, where it states none."""
        if self.params:
            task = replace(task, params={**self.params, **task.params})
        if self.system and not any(message.role in ("system", "developer") for message in task.messages):
            task = replace(task, messages=(Message(role="system", content=self.system), *task.messages))
        return task
