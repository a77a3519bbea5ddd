"""Routes: which handler answers which method and path, and who may ask it."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from ripieno.gateway.dialects import Dialect
from ripieno.gateway.errors import UnknownUrl, WrongMethod
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response, Stream

Handler = Callable[[Facts], Awaitable[Response | Stream]]


class Access(Enum):
    """Who may ask a route."""

    OPEN = auto()
    """Anybody; the route itself says who may do what."""
    KEY = auto()
    """Who gives a valid key, or anybody where no key is demanded."""
    ADMIN = auto()
    """Who gives the master key or the admin key."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path; a `{parameter}` at the end of the path stands for all that follows."""

    method: str
    path: str
    handler: Handler
    access: Access = Access.KEY
    dialect: Dialect | None = None
    """The form of its errors; OpenAI's chat completions where none is given."""

    @property
    def label(self) -> str:
        """The route as metrics and logs name it."""
        return f"{self.method} {self.path}"

    @property
    def beginning(self) -> str:
        """The path before its parameter."""
        return self.path.partition("{")[0]

    @property
    def has_parameter(self) -> bool:
        """Whether the path ends with a parameter."""
        return self.path.endswith("}")


class RouteTable:
    """Finds the route of a request.

    Args:
        routes: in any order; a path without a parameter comes before one with it, a longer one before a shorter one.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact = {(route.method, route.path): (route, route.label) for route in self.routes}
        named = sorted((route for route in self.routes if route.has_parameter), key=lambda route: -len(route.beginning))
        self._named = [(route, route.beginning, route.label) for route in named]

    def find(self, facts: Facts) -> Route | None:
        """Find the route, and note its label and parameter; None if no route takes this method and path."""
        method, path = "GET" if facts.request.method == "HEAD" else facts.request.method, facts.request.path
        exact = self._exact.get((method, path))
        if exact is not None:
            facts.route = exact[1]
            return exact[0]
        for route, beginning, label in self._named:
            if route.method == method and path.startswith(beginning):
                facts.route, facts.parameter = label, path[len(beginning) :]
                return route
        return None

    def refuse(self, facts: Facts) -> UnknownUrl | WrongMethod:
        """Return the error of a request that no route takes."""
        path = facts.request.path
        allowed = {route.method for route in self.routes if route.path == path}
        allowed |= {route.method for route, beginning, _ in self._named if path.startswith(beginning)}
        said = f"{facts.request.method} {path[:200]} is not served here"
        return WrongMethod(said, allowed) if allowed else UnknownUrl(said)
