"""The built-in providers, registered like any plugin."""

import os

from pydantic import SecretStr

from ripieno.errors import ConfigError
from ripieno.plugins import Plugin
from ripieno.providers.base import Provider
from ripieno.providers.callables import CallableOptions, CallableProvider
from ripieno.providers.llama import LlamaOptions, LlamaProvider
from ripieno.providers.openai import OpenAIOptions, OpenAIProvider
from ripieno.providers.replay import ReplayOptions, ReplayProvider


def _make_openai(options: OpenAIOptions) -> Provider:
    if options.api_key is None and options.api_key_env:
        key = os.environ.get(options.api_key_env)
        if not key:
            raise ConfigError(
                f"the provider at {options.base_url!r} takes its key from {options.api_key_env}, which is not set",
                key="providers.api_key_env",
                hint=f"export {options.api_key_env}=..., or remove the provider and its workers from ripieno.toml",
            )
        return OpenAIProvider(options.model_copy(update={"api_key": SecretStr(key)}))
    if options.api_key is None and options.needs_key:
        raise ConfigError(
            f"the provider at {options.base_url!r} has no API key",
            key="providers.api_key",
            hint="set RIPIENO_PROVIDERS__NAME__API_KEY, or remove the provider and its workers from ripieno.toml",
        )
    return OpenAIProvider(options)


openai: Plugin[OpenAIOptions, Provider] = Plugin(OpenAIOptions, _make_openai)
llama: Plugin[LlamaOptions, Provider] = Plugin(LlamaOptions, LlamaProvider)
callables: Plugin[CallableOptions, Provider] = Plugin(CallableOptions, CallableProvider)
replay: Plugin[ReplayOptions, Provider] = Plugin(ReplayOptions, ReplayProvider)
