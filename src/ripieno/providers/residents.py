"""Residents: models that hold memory on this machine; they load when asked, and the idlest makes room for the next."""

import logging
from typing import Protocol, TypeGuard

log = logging.getLogger(__name__)


class Resident(Protocol):
    """A provider whose model takes memory while it is loaded."""

    residents: "Residents | None"

    @property
    def size_bytes(self) -> int:
        """Memory that the model takes, as far as it is known before."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether it is loaded, and nobody waits for an answer."""
        ...

    async def unload(self) -> None:
        """Give the memory back; the next task loads it again."""
        ...


def is_resident(provider: object) -> TypeGuard[Resident]:
    """Return whether a provider's model takes memory while it is loaded.

    Reads the class and never the object: `isinstance` with a protocol would evaluate the object's properties, and
    `size_bytes` needs a model file that may be missing.
    """
    return all(hasattr(type(provider), name) for name in ("size_bytes", "is_idle", "unload"))


class Residents:
    """Holds the models of one process within a bound.

    Args:
        bound_bytes: memory of all loaded models together; None does not bound it.
    """

    def __init__(self, bound_bytes: int | None) -> None:
        self._bound_bytes = bound_bytes
        self._loaded: list[Resident] = []
        """The one that was used last stands last."""

    @property
    def loaded(self) -> tuple[Resident, ...]:
        """What is loaded, the idlest first."""
        return tuple(self._loaded)

    async def admit(self, one: Resident) -> None:
        """Make room for a model that is about to load; models that are answering stay, even over the bound."""
        self.forget(one)
        if self._bound_bytes is not None:
            for other in tuple(self._loaded):
                if self._total() + one.size_bytes <= self._bound_bytes:
                    break
                if other.is_idle:
                    self.forget(other)
                    await other.unload()
            if self._total() + one.size_bytes > self._bound_bytes:
                log.warning("models take more memory than pool.memory_mb: those loaded are at work")
        self._loaded.append(one)

    def touch(self, one: Resident) -> None:
        """The model is used now."""
        if self._loaded and self._loaded[-1] is not one and one in self._loaded:
            self._loaded.remove(one)
            self._loaded.append(one)

    def forget(self, one: Resident) -> None:
        """The model is loaded no longer."""
        if one in self._loaded:
            self._loaded.remove(one)

    def _total(self) -> int:
        return sum(one.size_bytes for one in self._loaded)
