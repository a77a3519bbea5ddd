"""The built-in providers, registered like any plugin."""

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from pydantic import SecretStr

from ripieno.errors import ConfigError
from ripieno.plugins import Plugin
from ripieno.providers.base import Provider
from ripieno.providers.callables import CallableOptions, CallableProvider
from ripieno.providers.llama import LlamaOptions, LlamaProvider
from ripieno.providers.mcp import McpOptions, McpProvider
from ripieno.providers.options import AnthropicOptions, EndpointOptions, GeminiOptions, is_plain
from ripieno.providers.remote import RemoteProvider
from ripieno.providers.replay import ReplayOptions, ReplayProvider
from ripieno.wires import ChatUpstream, GeminiUpstream, MessagesUpstream, ResponsesUpstream, Upstream

Remote = TypeVar("Remote", bound=EndpointOptions)


def _make_remote(options: Remote, upstream: Callable[[], Upstream]) -> Provider:
    """Make a provider behind an HTTP address, with its key.

    Raises:
        ConfigError: the key is missing, or cannot stand in a header.
    """
    if options.api_key is None and options.api_key_env:
        key = os.environ.get(options.api_key_env)
        if not key:
            raise ConfigError(
                f"the provider takes its key from {options.api_key_env}, which is not set",
                key="providers.api_key_env",
                hint=f"export {options.api_key_env}=..., or remove the provider and its workers from ripieno.toml",
            )
        options = options.model_copy(update={"api_key": SecretStr(key)})
    if options.api_key is not None and not is_plain(options.api_key.get_secret_value()):
        raise ConfigError(
            "the provider's API key holds a line break or a control character",
            key="providers.api_key",
            hint="copy it again, without the end of its line",
        )
    if options.api_key is None and options.needs_key:
        raise ConfigError(
            "the provider has no API key",
            key="providers.api_key",
            hint="set RIPIENO_PROVIDERS__NAME__API_KEY, or remove the provider and its workers from ripieno.toml",
        )
    return RemoteProvider(options, upstream())


def _remote(kind: type[Remote], upstream: Callable[[], Upstream]) -> Plugin[Remote, Provider]:
    return Plugin(kind, partial(_make_remote, upstream=upstream))


openai = _remote(EndpointOptions, ChatUpstream)
openai_responses = _remote(EndpointOptions, ResponsesUpstream)
anthropic = _remote(AnthropicOptions, MessagesUpstream)
gemini = _remote(GeminiOptions, GeminiUpstream)
llama: Plugin[LlamaOptions, Provider] = Plugin(LlamaOptions, LlamaProvider)
callables: Plugin[CallableOptions, Provider] = Plugin(CallableOptions, CallableProvider)
replay: Plugin[ReplayOptions, Provider] = Plugin(ReplayOptions, ReplayProvider)
mcp: Plugin[McpOptions, Provider] = Plugin(McpOptions, McpProvider)
