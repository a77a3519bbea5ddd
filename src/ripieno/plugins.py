"""Plugins: entry points, found without importing them, loaded when asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType
from typing import Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ripieno.errors import ConfigError, RipienoError

GROUPS = (
    "ripieno.policies",
    "ripieno.predictors",
    "ripieno.encoders",
    "ripieno.providers",
    "ripieno.verifiers",
)

Role = TypeVar("Role")
Options = TypeVar("Options", bound=BaseModel)


class NoOptions(BaseModel):
    """For plugins that take none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Plugin(Generic[Options, Role]):
    """What an entry point names: a factory, and the model of its options."""

    options: type[Options]
    make: Callable[[Options], Role]

    def build(self, given: dict[str, object], *, key: str) -> Role:
        """Check the options, then make the object.

        Raises:
            ConfigError: an option is unknown or wrong; the message names it.
        """
        try:
            options = self.options.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join((key, *(str(part) for part in first["loc"])))
            raise ConfigError(
                f"{place}: {first['msg']}", key=place, hint=f"options here: {', '.join(self.options.model_fields)}"
            ) from error
        return self.make(options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One plugin as `ripieno plugins list` shows it."""

    group: str
    name: str
    target: str
    fault: str | None
    """Why it cannot load, if it cannot."""


def find_plugins(group: str) -> dict[str, EntryPoint]:
    """Plugins of one group by name."""
    return {point.name: point for point in entry_points(group=group)}


def load_plugin(group: str, name: str) -> object:
    """Load one plugin.

    Raises:
        ConfigError: it is not installed, or cannot load.
    """
    found = find_plugins(group)
    if name not in found:
        raise ConfigError(f"no plugin {name!r} in {group}", hint=f"installed: {', '.join(sorted(found)) or 'none'}")
    try:
        return found[name].load()
    except Exception as error:
        raise ConfigError(
            f"plugin {name!r} of {group} cannot load: {type(error).__name__}: {error}",
            hint=f"it is {found[name].value}; mend it or uninstall it",
        ) from error


def build_plugin(group: str, name: str, options: dict[str, object], *, key: str) -> object:
    """Load a plugin and make its object.

    Raises:
        ConfigError: it is missing, broken, or its options are wrong.
    """
    plugin = load_plugin(group, name)
    if not isinstance(plugin, Plugin):
        raise ConfigError(f"plugin {name!r} of {group} is no ripieno.plugins.Plugin", key=key)
    made: object = plugin.build(options, key=key)
    return made


def list_plugins() -> list[Listed]:
    """Every installed plugin, with the fault of those that cannot load."""
    listed = []
    for group in GROUPS:
        for name, point in sorted(find_plugins(group).items()):
            fault = None
            try:
                load_plugin(group, name)
            except ConfigError as error:
                fault = error.message
            listed.append(Listed(group=group, name=name, target=point.value, fault=fault))
    return listed


class ForeignCall:
    """Runs a plugin's code, or what a task file brings, in a block: an exception ends the block, and is told in `text`.

    Errors of Ripieno's own pass through, because the code has said which one it means; so does a cancellation.
    """

    text = ""
    """How the code failed, in words; empty where it did not."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, RipienoError):
            return False
        self.text = f"{type(error).__name__}: {error}"[:300]
        return True
