"""Changes of the settings file's pool: whole and right afterwards, or not made; running gateways take them up."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from ripieno.app.build import build_pool
from ripieno.config import load_settings
from ripieno.errors import ConfigError, InvalidTask

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWorker:
    """What is to stand in the file."""

    id: str
    provider: str
    facts: Mapping[str, object]
    """Fields of the card, without those that are not given."""
    base_url: str | None = None
    """Of a new OpenAI-compatible provider."""


def add_worker(path: Path, new: NewWorker, *, keeps_embedded: bool = False, is_dry: bool = False) -> str:
    """Add a worker to a settings file; gives the file's text.

    Args:
        path: the file; made if it is missing.
        new: the worker.
        keeps_embedded: whether the embedded pool is written into a file that lists no workers.
        is_dry: whether the file is left as it is.

    Raises:
        InvalidTask: the worker is in the file already.
        ConfigError: the file would not be right.
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
        document.setdefault("providers", {})[new.provider] = {"kind": "openai", "base_url": new.base_url}
    _write_checked(document, path, is_dry=is_dry)
    return tomlkit.dumps(document)


def set_muted(path: Path, worker: str, *, is_muted: bool) -> None:
    """Take a worker out of routing, or let it take tasks again.

    Raises:
        InvalidTask: the file's pool has no such worker.
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

    return tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()


def _write_checked(document: "TOMLDocument", path: Path, *, is_dry: bool) -> None:
    """Write a settings file whole, after reading it as the gateway would."""
    import tomlkit

    text = tomlkit.dumps(document)
    build_pool(load_settings(path, text=text).settings)
    if is_dry:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".ripieno-", suffix=".toml")
        scratch = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", path=str(path), hint="check the folder and its permissions"
        ) from error
