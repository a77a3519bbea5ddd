"""Routes: the handler of each method and path, and who may use it."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from ripieno.gateway.errors import UnknownUrl, WrongMethod
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response, Stream
from ripieno.wires import Dialect

Handler = Callable[[Facts], Awaitable[Response | Stream]]


class Access(Enum):
    """Who may use a route."""

    OPEN = auto()
    """Every request; the handler checks permissions itself."""
    KEY = auto()
    """Requests with a valid key, or every request if no key is required."""
    ADMIN = auto()
    """Requests with the master key or the admin key."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path; a `{parameter}` at the end of the path matches all that follows."""

    method: str
    path: str
    handler: Handler
    access: Access = Access.KEY
    dialect: Dialect | None = None
    """The format of its errors; None means OpenAI's chat completions."""

    @property
    def label(self) -> str:
        """The name of the route in metrics and logs."""
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
        routes: in any order; the table prefers a path without a parameter, then the longest path.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact = {(route.method, route.path): (route, route.label) for route in self.routes}
        named = sorted((route for route in self.routes if route.has_parameter), key=lambda route: -len(route.beginning))
        self._named = [(route, route.beginning, route.label) for route in named]

    def find(self, facts: Facts) -> Route | None:
        """Find the route, and note its label and parameter; None if no route has this method and path."""
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
        """Return the error of a request without a route."""
        path = facts.request.path
        allowed = {route.method for route in self.routes if route.path == path}
        allowed |= {route.method for route, beginning, _ in self._named if path.startswith(beginning)}
        message = f"{facts.request.method} {path[:200]} is not served here"
        return WrongMethod(message, allowed) if allowed else UnknownUrl(message)
