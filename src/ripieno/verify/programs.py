"""Programs: many small Python programs in one jail, a process each, with what they print."""

from types import TracebackType
from typing import Self

from ripieno.verify.jail import Limits
from ripieno.verify.warm import WarmJail

USUAL_S = 2.0
"""That a program may take."""


class Programs:
    """Runs programs one after the other; use as a context manager.

    Args:
        timeout_s: that each may take, in seconds.
    """

    def __init__(self, *, timeout_s: float = USUAL_S) -> None:
        self._jail = WarmJail("programs", seconds=timeout_s, limits=Limits(may_fork=True))
        self._known: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, code: str) -> str | None:
        """What a program prints; None where it fails, prints too much, or takes too long. The same one runs once.

        Raises:
            NoJail: no jail can be had here, so nothing was run.
        """
        if code not in self._known:
            is_done, said = self._jail.run(code.encode("utf-8", "surrogatepass"))
            self._known[code] = said.decode("utf-8", "replace").strip() if is_done else None
        return self._known[code]

    def close(self) -> None:
        """End the jail."""
        self._jail.close()
