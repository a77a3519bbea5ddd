"""Programs: runs many small Python programs in one jail, a process each, and returns their output."""

from ripieno.verify.jail import JailLimits
from ripieno.verify.warm import WarmJail

USUAL_S = 2.0


class Programs:
    """Runs programs one after the other, until it is closed."""

    def __init__(self, *, timeout_s: float = USUAL_S) -> None:
        self._jail = WarmJail("programs", seconds=timeout_s, limits=JailLimits(may_fork=True))
        self._known: dict[str, str | None] = {}

    def run(self, code: str) -> str | None:
        """Return a program's output; None if it fails, prints too much, or takes too long. Repeats are cached.

        Raises:
            NoJail: no jail is available here, so nothing ran.
        """
        if code not in self._known:
            is_done, said = self._jail.run(code.encode("utf-8", "surrogatepass"))
            self._known[code] = said.decode("utf-8", "replace").strip() if is_done else None
        return self._known[code]

    def close(self) -> None:
        """End the jail."""
        self._jail.close()
