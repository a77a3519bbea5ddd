"""Residents: local models that use memory. They load on demand, and the least recently used one is unloaded first."""

import logging
from typing import Protocol, TypeGuard

log = logging.getLogger(__name__)


class Resident(Protocol):
    """A provider whose model uses memory while it is loaded."""

    residents: "Residents | None"

    @property
    def size_bytes(self) -> int:
        """Return the memory that the model takes, as far as known in advance."""
        ...

    @property
    def is_idle(self) -> bool:
        """Return whether the model is loaded and no call waits for an answer."""
        ...

    async def unload(self) -> None:
        """Release the memory. The next task loads the model again."""
        ...


def is_resident(provider: object) -> TypeGuard[Resident]:
    """Return whether a provider's model uses memory while it is loaded.

    The check reads only the class: `isinstance` with a protocol would evaluate the object's properties, and
    `size_bytes` needs a model file that may be missing.
    """
    return all(hasattr(type(provider), name) for name in ("size_bytes", "is_idle", "unload"))


class Residents:
    """Keeps the models of one process within a memory limit.

    Args:
        bound_bytes: memory of all loaded models together; None sets no limit.
    """

    def __init__(self, bound_bytes: int | None) -> None:
        self._bound_bytes = bound_bytes
        self._loaded: list[Resident] = []
        """Least recently used first."""

    @property
    def loaded(self) -> tuple[Resident, ...]:
        """Return the loaded models, the least recently used first."""
        return tuple(self._loaded)

    async def admit(self, one: Resident) -> None:
        """Make room for a model that is about to load. Busy models stay loaded, even beyond the limit."""
        self.forget(one)
        if self._bound_bytes is not None:
            for other in tuple(self._loaded):
                if self._total() + one.size_bytes <= self._bound_bytes:
                    break
                if other.is_idle:
                    self.forget(other)
                    await other.unload()
            if self._total() + one.size_bytes > self._bound_bytes:
                log.warning("models use more memory than pool.memory_mb, because the loaded models are busy")
        self._loaded.append(one)

    def touch(self, one: Resident) -> None:
        """Mark a model as just used."""
        if self._loaded and self._loaded[-1] is not one and one in self._loaded:
            self._loaded.remove(one)
            self._loaded.append(one)

    def forget(self, one: Resident) -> None:
        """Remove a model that is no longer loaded."""
        if one in self._loaded:
            self._loaded.remove(one)

    def _total(self) -> int:
        return sum(one.size_bytes for one in self._loaded)
