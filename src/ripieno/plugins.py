"""Plugins: entry points, found without an import and loaded on demand; and the package's extras."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ripieno.errors import ConfigError, MissingExtra, RipienoError

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
    """Options model of plugins without options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Plugin(Generic[Options, Role]):
    """Target of an entry point: a factory, and the model of its options."""

    options: type[Options]
    make: Callable[[Options], Role]

    def read(self, given: dict[str, object], *, key: str, folder: Path | None = None) -> Options:
        """Check the options.

        Args:
            given: the options by name.
            key: their dotted key in the settings, for errors.
            folder: base of relative paths among the options. Default: the current folder.

        Raises:
            ConfigError: an option is unknown or wrong. The message names it.
        """
        try:
            options = self.options.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join((key, *(str(part) for part in first["loc"])))
            raise ConfigError(
                f"{place}: {first['msg']}", key=place, hint=f"options here: {', '.join(self.options.model_fields)}"
            ) from error
        if folder is None:
            return options
        paths = {
            name: value for name in type(options).model_fields if isinstance(value := getattr(options, name), Path)
        }
        return options.model_copy(update={name: folder / value for name, value in paths.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One plugin as `ripieno doctor --plugins` shows it."""

    group: str
    name: str
    target: str
    fault: str | None
    """Why the plugin cannot load; None if it loads."""


@contextmanager
def needs_extra(extra: str, what: str, *, key: str | None = None) -> Iterator[None]:
    """Import libraries of an extra in this context. If one is missing, the error names the extra.

    Args:
        extra: name of the package's extra that installs them.
        what: the feature that needs them, as the subject of the message: "training a router".
        key: the setting that requires it, if any.

    Raises:
        MissingExtra: a library is not installed.
    """
    try:
        yield
    except ImportError as error:
        library = (error.name or str(error)).partition(".")[0]
        raise MissingExtra(what, extra=extra, library=library, key=key) from error


def require_extra(extra: str, what: str, libraries: Sequence[str]) -> None:
    """Raise if a library of an extra is not installed, before any work starts. Nothing is imported.

    Args:
        extra: name of the package's extra that installs them.
        what: the feature that needs them, as the subject of the message.
        libraries: the required modules.

    Raises:
        MissingExtra: a library is not installed. It names the first.
    """
    for library in libraries:
        if find_spec(library) is None:
            raise MissingExtra(what, extra=extra, library=library)


def find_plugins(group: str) -> dict[str, EntryPoint]:
    """Find the plugins of one group, by name."""
    return {point.name: point for point in entry_points(group=group)}


def load_plugin(group: str, name: str) -> object:
    """Load one plugin.

    Raises:
        ConfigError: the plugin is not installed, or cannot load.
    """
    found = find_plugins(group)
    if name not in found:
        raise ConfigError(f"no plugin {name!r} in {group}", hint=f"installed: {', '.join(sorted(found)) or 'none'}")
    try:
        return found[name].load()
    except Exception as error:
        raise ConfigError(
            f"plugin {name!r} of {group} cannot load: {type(error).__name__}: {error}",
            hint=f"its entry point is {found[name].value}: fix it or uninstall it",
        ) from error


def build_plugin(group: str, name: str, options: dict[str, object], *, key: str, folder: Path | None = None) -> object:
    """Load a plugin and create its object. See `Plugin.read` for `key` and `folder`.

    Raises:
        ConfigError: the plugin is missing or broken, or its options are wrong.
    """
    plugin = open_plugin(group, name, key=key)
    return plugin.make(plugin.read(options, key=key, folder=folder))


def open_plugin(group: str, name: str, *, key: str) -> "Plugin[BaseModel, object]":
    """Load a plugin and check its type.

    Raises:
        ConfigError: the plugin is missing, broken, or not a `Plugin`.
    """
    plugin = load_plugin(group, name)
    if not isinstance(plugin, Plugin):
        raise ConfigError(f"plugin {name!r} of {group} is not a ripieno.plugins.Plugin", key=key)
    return plugin


def list_plugins() -> list[Listed]:
    """List every installed plugin, with the fault of each that cannot load."""
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
    """Runs code of a plugin or of a task file in a block. An exception ends the block and is kept in `text`.

    Ripieno's own errors pass through, because the code chose them. A cancellation passes through, too.
    """

    text = ""
    """The failure in words; empty if the code did not fail."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, RipienoError):
            return False
        self.text = f"{type(error).__name__}: {error}"[:300]
        return True
