"""Loading: settings merged from file, variables and flags. Every fault is named with its place."""

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from ripieno.config.places import PATHS, find_line, split_key, trim
from ripieno.config.reload import require_own_workers, require_reloadable
from ripieno.config.scale import FORMER, SERVER
from ripieno.config.settings import Settings
from ripieno.errors import ConfigError
from ripieno.plugins import find_plugins

log = logging.getLogger(__name__)

AUTO = "auto"
"""Model name that lets the router choose."""

FILE = "ripieno.toml"
HOME = ".ripieno"
PREFIX = "RIPIENO_"
_URLS = (("ledger", "url"), ("memory", "url"))
_RELATIVE = re.compile(r"(sqlite(?:\+\w+)?:///)([^/:?].*)", re.DOTALL)
"""Matches a SQLite URL with a relative path, but not `:memory:`."""
_NEEDED = (("providers", "kind"), ("workers", "provider"))
"""Keys that make an entry of a table complete. Variables without them only extend an entry that exists."""

Tree = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, and the origin of each value."""

    settings: Settings
    path: Path
    origins: Mapping[str, str]
    """For each dotted key that is not a default: `file`, `environment`, `flag`, `scale` or `embedded pool`."""
    ignored: tuple[str, ...] = ()
    """RIPIENO_* variables of providers and workers that are not configured here."""
    is_named: bool = False
    """Whether the caller named the file. A named file must exist."""
    flags: Mapping[str, object] | None = None

    @property
    def folder(self) -> Path:
        """Return the folder that relative paths of the file are resolved against."""
        return self.path.parent

    def reload(self) -> "Loaded":
        """Read the same sources again; flags still override the file.

        Raises:
            ConfigError: as `load_settings`, or a key has changed that needs a restart.
        """
        loaded = load_settings(self.path if self.is_named else None, flags=self.flags)
        require_own_workers(self.origins, loaded.origins, path=self.path)
        with loaded.placing():
            require_reloadable(self.settings, loaded.settings)
        return loaded

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Add file and line to a ConfigError that names a key of the file."""
        try:
            yield
        except ConfigError as error:
            if error.key is not None and error.path is None:
                where = _locate(self.path, error.key)
                if where is not None:
                    raise ConfigError(
                        f"{where}: {error.message}", key=error.key, path=str(self.path), hint=error.hint
                    ) from error
            raise


def load_settings(
    path: Path | None = None, *, flags: Mapping[str, object] | None = None, text: str | None = None
) -> Loaded:
    """Read the settings.

    Args:
        path: the file. Default: `ripieno.toml` of the current folder, which may be missing.
        flags: nested values that override all others.
        text: future content of the file. Default: the content is read from the file.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong. It names the value, the place and the fix.
    """
    where = path if path is not None else Path(FILE)
    content = text if text is not None else _read_text(where, is_required=path is not None)
    from_file = _parse(where, content)
    from_flags = dict(flags or {})
    embedded = tomllib.loads((files("ripieno.embedded") / "pool.toml").read_text(encoding="utf-8"))
    base = _merge(from_file, from_flags)
    from_env, ignored = _read_variables(base if base.get("workers") else _merge(embedded, base))
    layers = {"file": _resolve(from_file, where.parent), "environment": from_env, "flag": from_flags}
    merged: Tree = {}
    origins: dict[str, str] = {}
    for origin, layer in layers.items():
        merged = _merge(merged, layer)
        origins |= dict.fromkeys(_flatten(layer), origin)
    _warn_of_former_keys(origins, where, content)
    if merged.get("scale") == "server":
        merged = _merge(SERVER, merged)
        origins = dict.fromkeys(FORMER, "scale") | origins
    if not merged.get("workers"):
        merged = _merge(embedded, merged)
        origins = dict.fromkeys(_flatten(embedded), "embedded pool") | origins
    _fill_in(merged, where.parent)
    try:
        settings = Settings(**merged)  # type: ignore[arg-type]  # validated here
    except ValidationError as error:
        raise _explain(error, where, content, layers) from error
    _check_kinds(settings, where, content, layers)
    _check_references(settings, where, content)
    return Loaded(
        settings=settings,
        path=where,
        origins=origins,
        ignored=ignored,
        is_named=path is not None,
        flags=flags,
    )


def _warn_of_former_keys(origins: Mapping[str, str], path: Path, text: str) -> None:
    for key in sorted(FORMER & origins.keys()):
        names = tuple(key.split("."))
        place = f"{path}{_name_line(text, names)}" if origins[key] == "file" else _name_variable(names)
        log.warning("%s: %s now follows from `scale`; this value overrides it until you remove it", place, key)


def _read_text(path: Path, *, is_required: bool) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        if not is_required:
            return ""
        raise ConfigError(f"the configuration file {str(path)!r} does not exist", path=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", path=str(path), hint="name a readable file with --config"
        ) from error


def _parse(path: Path, text: str) -> Tree:
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        hint = "write each id only once" if "declare" in str(error) or "overwrite" in str(error) else None
        raise ConfigError(f"{path}: {error}{_name_repeat(text, str(error))}", path=str(path), hint=hint) from error
    for name, provider in _tables(parsed.get("providers")).items():
        if "api_key" in provider:
            hint = f"remove it and set RIPIENO_PROVIDERS__{name.upper()}__API_KEY"
            raise _fault(("providers", name, "api_key"), "a key does not belong in the file", path, text, hint=hint)
    return parsed


def _name_repeat(text: str, error: str) -> str:
    """Return the header that a TOML error about a second declaration refers to."""
    line = re.search(r"line (\d+)", error)
    if "declare" not in error or line is None:
        return ""
    return f": {text.splitlines()[int(line.group(1)) - 1].strip()}"


def _read_variables(base: Mapping[str, object]) -> tuple[Tree, tuple[str, ...]]:
    """Read the RIPIENO_* variables, except those of providers and workers that are not configured.

    A key in the environment serves all folders of a user. It must not break a folder without that provider.

    Raises:
        ConfigError: a variable names a table that does not exist, or its value cannot be read.
    """
    for name in os.environ:
        table, separator, _ = name.upper().removeprefix(PREFIX).partition("__")
        if name.upper().startswith(PREFIX) and separator and table.lower() not in Settings.model_fields:
            near = difflib.get_close_matches(table.lower(), Settings.model_fields, n=1)
            hint = f"did you mean {PREFIX}{near[0].upper()}__...?" if near else "`ripieno config show` lists every key"
            raise ConfigError(f"{name}: there is no table {table.lower()!r}", key=table.lower(), hint=hint)
    try:
        found: Tree = EnvSettingsSource(Settings)()
    except SettingsError as error:
        named = re.search(r'field "(\w+)"', str(error))
        name = f"{PREFIX}{named.group(1).upper()}" if named else "a RIPIENO_ variable"
        raise ConfigError(
            f"{name} is not valid JSON", hint=f"write {name}__KEY=value for one key, or a JSON object"
        ) from error
    ignored: list[str] = []
    for table, needed in _NEEDED:
        entries, known = _tables(found.get(table)), _tables(base.get(table))
        for name, entry in entries.items():
            if name not in known and needed not in entry:
                ignored.extend(_name_variable((table, name, *key.split("."))) for key in _flatten(entry))
                entries = {other: kept for other, kept in entries.items() if other != name}
        if table in found and isinstance(found[table], dict):
            found[table] = dict(entries)
            if not entries:
                del found[table]
    return found, tuple(ignored)


def _name_variable(path: tuple[str, ...]) -> str:
    return PREFIX + "__".join(path).upper()


def _resolve(layer: Tree, folder: Path) -> Tree:
    """Make the relative paths of the file relative to the current folder."""
    for path in PATHS:
        layer = _change(layer, path, lambda value: str(folder / value))
    for path in _URLS:
        layer = _change(layer, path, lambda value: _RELATIVE.sub(lambda m: f"{m[1]}{folder / m[2]}", value))
    return layer


def _change(tree: Tree, path: tuple[str, ...], change: Callable[[str], str]) -> Tree:
    """Replace one text in a tree, if the tree holds it."""
    value = tree.get(path[0])
    if len(path) > 1:
        return {**tree, path[0]: _change(value, path[1:], change)} if isinstance(value, dict) else tree
    return {**tree, path[0]: change(value)} if isinstance(value, str) else tree


def _fill_in(merged: Tree, folder: Path) -> None:
    """Set the values that follow from the file's place: the home next to it, and the ledger in the home."""
    home = merged.setdefault("home", str(folder / HOME))
    ledger = merged.get("ledger", {})
    if isinstance(ledger, dict) and not ledger.get("url"):
        merged["ledger"] = {**ledger, "url": f"sqlite:///{home}/ledger.db"}


def _check_kinds(settings: Settings, path: Path, text: str, layers: Mapping[str, Tree]) -> None:
    """Check that every provider has an installed kind, whether a worker uses it or not.

    Raises:
        ConfigError: a kind is unknown.
    """
    installed = sorted(find_plugins("ripieno.providers"))
    for name, provider in settings.providers.items():
        if provider.kind not in installed:
            place = ("providers", name, "kind")
            near = difflib.get_close_matches(provider.kind, installed, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            fault = f"{_find_origin(place, path, text, layers)}: provider {name!r}: unknown kind {provider.kind!r}"
            hint = f"{meant}installed kinds: {', '.join(installed)}; a plugin can add others"
            raise ConfigError(fault, key=".".join(place), path=str(path), hint=hint)


def _check_references(settings: Settings, path: Path, text: str) -> None:
    for name in settings.providers:
        if not re.fullmatch(r"[a-z0-9_]+", name):
            fault = f"the name of provider {name!r} may contain only a-z, 0-9 and _"
            hint = "RIPIENO_PROVIDERS__NAME__API_KEY must be able to name it"
            raise _fault(("providers", name), fault, path, text, hint=hint)
    for worker, card in settings.workers.items():
        if card.provider not in settings.providers:
            fault = f"worker {worker!r} names the provider {card.provider!r}, which is not configured"
            hint = f"configured providers: {', '.join(sorted(settings.providers)) or 'none'}"
            raise _fault(("workers", worker, "provider"), fault, path, text, hint=hint)
    for worker in settings.pool.muted:
        if worker not in settings.workers:
            raise _fault(("pool", "muted"), f"pool.muted names {worker!r}, which is not a worker", path, text)
    _check_names(settings, path, text)


def _check_names(settings: Settings, path: Path, text: str) -> None:
    """Check that every reference to a worker or preset exists, and that every name is unique.

    Raises:
        ConfigError: a name is unknown or already used.
    """
    workers, known_presets = settings.workers, _list_presets(settings)
    presets = (AUTO, *(f"{AUTO}:{preset}" for preset in known_presets))
    named: list[tuple[tuple[str, ...], str | None, tuple[str, ...]]] = [
        (("route", "preset"), settings.route.preset, known_presets),
        (("profile", "judge"), settings.profile.judge, tuple(workers)),
        (("conductor", "worker"), settings.conductor.worker, tuple(workers)),
        (("memory", "compact_worker"), settings.memory.compact_worker, (AUTO, *workers)),
        (("memory", "extract_worker"), settings.memory.extract_worker, (AUTO, *workers)),
    ]
    for name, to in settings.gateway.aliases.items():
        targets = [(to, (*presets, *workers))] if isinstance(to, str) else [(each, tuple(workers)) for each in to]
        named += [(("gateway", "aliases", name), *target) for target in targets]
    taken: list[tuple[tuple[str, ...], str]] = [(("workers", name), name) for name in workers]
    taken += [(("gateway", "aliases", name), name) for name in settings.gateway.aliases]
    for place, name in taken:
        is_preset = name.partition(":")[0] == AUTO
        if is_preset or (place[0] == "gateway" and name in workers):
            fault = f"{name!r} is the name of {'the router' if is_preset else 'a worker'}"
            raise _fault(place, fault, path, text)
    for place, value, known in named:
        if value is not None and value not in known:
            fault = f"{'.'.join(place)} names {value!r}, which does not exist"
            raise _fault(place, fault, path, text, hint=f"one of {', '.join(sorted(known)[:20])}")


def _fault(place: tuple[str, ...], fault: str, path: Path, text: str, *, hint: str | None = None) -> ConfigError:
    return ConfigError(f"{path}{_name_line(text, place)}: {fault}", key=".".join(place), path=str(path), hint=hint)


def _list_presets(settings: Settings) -> tuple[str, ...]:
    """List the presets. Routing is imported only if the settings name one, because that import is slow."""
    if settings.route.preset == type(settings.route)().preset and not settings.gateway.aliases:
        return (settings.route.preset,)
    from ripieno.route import PRESETS

    return tuple(PRESETS)


def _explain(error: ValidationError, path: Path, text: str, layers: Mapping[str, Tree]) -> ConfigError:
    first = error.errors()[0]
    place = first["loc"]
    key = ".".join(str(part) for part in place)
    where = _find_origin(place, path, text, layers)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), _known_keys(place), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`ripieno config show` lists every key"
        return ConfigError(f"{where}: unknown key {key!r}", key=key, path=str(path), hint=hint)
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        hint = f"write [{key}], and its keys below"
        return ConfigError(f"{where}: {key} must be a table", key=key, path=str(path), hint=hint)
    return ConfigError(f"{where}: {key}: {first['msg']}", key=key, path=str(path))


def _find_origin(place: tuple[int | str, ...], path: Path, text: str, layers: Mapping[str, Tree]) -> str:
    """Find the source of a wrong value: the last layer that holds most of its path."""
    depth = {origin: len(trim(layer, place)) for origin, layer in layers.items()}
    most = max(depth.values())
    origin = [name for name, held in depth.items() if held == most][-1] if most else "file"
    names = trim(layers[origin], place)
    if origin == "environment":
        return f"the variable {_name_variable(names)}"
    if origin == "flag":
        return f"the flag for {'.'.join(names)}"
    return f"{path}{_name_line(text, names)}"


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    """Return the keys beside one place of the tree."""
    model: type[BaseModel] | None = Settings
    for part in place[:-1]:
        if model is None:
            return []
        if str(part) in model.model_fields:
            model = _find_model(model.model_fields[str(part)].annotation)
    return list(model.model_fields) if model is not None else []


def _find_model(annotation: object) -> type[BaseModel] | None:
    """Find the model that an annotation holds: itself, or the values of a table."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _find_model(part)) is not None), None)


def _locate(path: Path, key: str) -> str | None:
    """Find file and line of a dotted key. Return None if the file does not hold it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = split_key(tomllib.loads(text), key)
    except (OSError, ValueError):
        return None
    return f"{path}{_name_line(text, names)}" if names else None


def _name_line(text: str, path: tuple[str, ...]) -> str:
    line = find_line(text, path) if path else None
    return f", line {line}" if line is not None else ""


def _tables(value: object) -> dict[str, Tree]:
    return {name: table for name, table in value.items() if isinstance(table, dict)} if isinstance(value, dict) else {}


def _merge(below: Mapping[str, object], above: Mapping[str, object]) -> Tree:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _flatten(tree: Mapping[str, object], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        keys.extend(_flatten(value, f"{name}.") if isinstance(value, dict) and value else [name])
    return keys
