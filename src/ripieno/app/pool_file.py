"""Changes of the pool in the settings file. Each is valid and whole, or not made. Running gateways reload the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from ripieno.app.build import build_pool
from ripieno.config import load_settings
from ripieno.errors import ConfigError, InvalidTask
from ripieno.privacy.files import replace_private

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWorker:
    """A worker to add to the file."""

    id: str
    provider: str
    facts: Mapping[str, object]
    """Stated fields of the card."""
    base_url: str | None = None
    """Address of a new OpenAI-compatible provider."""


def add_worker(path: Path, new: NewWorker, *, keeps_embedded: bool = False, is_dry: bool = False) -> str:
    """Add a worker to a settings file, which is created if it is missing. Return the text of the file.

    A file without workers also gets the embedded pool if `keeps_embedded`. A dry run writes nothing.

    Raises:
        InvalidTask: the worker, or the provider with another address, is in the file already.
        ConfigError: the new file would be invalid, or cannot be written.
    """
    import tomlkit

    document = _read(path)
    if keeps_embedded and "workers" not in document:
        document.update(_read(Path(str(files("ripieno.embedded") / "pool.toml"))))
    workers = document.setdefault("workers", {})
    if new.id in workers:
        raise InvalidTask(f"worker {new.id!r} is in {path} already", hint="edit the file, or choose another id")
    workers[new.id] = {"provider": new.provider, **new.facts}
    if new.base_url is not None:
        providers = document.setdefault("providers", {})
        known = providers.setdefault(new.provider, {"kind": "openai", "base_url": new.base_url})
        if known.get("base_url") != new.base_url:
            raise InvalidTask(
                f"provider {new.provider!r} is in {path} already, with another address",
                hint="leave out --base-url to use it, or choose another name for the provider",
            )
    _write_checked(document, path, is_dry=is_dry)
    return tomlkit.dumps(document)


def set_muted(path: Path, worker: str, *, is_muted: bool) -> None:
    """Mute a worker, or unmute it.

    Raises:
        InvalidTask: the pool of the file has no such worker.
    """
    settings = load_settings(path if path.exists() else None).settings
    if worker not in settings.workers:
        raise InvalidTask(f"no worker is called {worker!r}", hint=f"workers: {', '.join(settings.workers)}")
    document = _read(path)
    muted = [name for name in settings.pool.muted if name != worker]
    document.setdefault("pool", {})["muted"] = [*muted, worker] if is_muted else muted
    _write_checked(document, path, is_dry=False)


def _read(path: Path) -> "TOMLDocument":
    import tomlkit

    return tomlkit.parse(path.read_text(encoding="utf-8-sig")) if path.exists() else tomlkit.document()


def _write_checked(document: "TOMLDocument", path: Path, *, is_dry: bool) -> None:
    """Validate a settings file as the gateway does, and write it whole."""
    import tomlkit

    text = tomlkit.dumps(document)
    build_pool(load_settings(path, text=text).settings)
    if is_dry:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_private(path, text.encode())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", path=str(path), hint="check the folder and its permissions"
        ) from error
