"""Gate: checks every request before its route is found. Pages of other sites must not reach the gateway.

Three headers decide. Host: a name that an attacker points to this address (DNS rebinding) is refused. Origin and
Sec-Fetch-Site: a page of another site is refused, unless the settings allow its origin. Content-Type: the types that
a browser sends without a preflight request (a form, text/plain) are refused on JSON routes.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence

from ripieno.errors import Forbidden, InvalidTask
from ripieno.gateway.http import Request, Response

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
LONGEST_HOST = 300
"""A DNS name has at most 253 characters, a port 5 digits."""
MOST_KNOWN = 256
"""Accepted Host headers that are remembered."""
PREFLIGHT_S = 600
"""How long a browser may cache the answer to a preflight request; Chromium caches it for at most two hours."""
METHODS = "GET, POST, DELETE"
MOST_ASKED = 4096
"""Characters of the header names in a preflight request."""

_HOST = re.compile(r"(?P<name>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*", re.ASCII)
_OWN_PAGES = ("/ui", "/admin")
"""Pages of allowed origins may not reach these paths: only the dashboard's own pages may."""

SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""Headers of every response: browsers do not guess its type, frame it, or give it to a page of another site."""


class BadHost(InvalidTask):
    """The Host header is missing, malformed or contradictory."""


class StrangeHost(Forbidden):
    """The Host header names another host than the gateway."""


class StrangeOrigin(Forbidden):
    """A page of another site sent the request."""


class WrongMediaType(InvalidTask):
    """The body has a media type that the route does not accept."""


class Gate:
    """Admits or refuses requests.

    Args:
        hosts: names of the gateway beside loopback names; `*.example.org` means every name below.
        origins: origins of pages that may call the API, such as `https://chat.example.org`.
        is_loopback: whether the gateway listens on loopback only. Otherwise every route requires a key, and the gate
            also accepts an IP address as Host (probes send it, and DNS rebinding needs a name), and any name if
            `hosts` is empty.
    """

    def __init__(self, *, hosts: Sequence[str], origins: Sequence[str], is_loopback: bool) -> None:
        self._hosts = frozenset(host.lower() for host in hosts if not host.startswith("*."))
        self._parents = tuple(host[1:].lower() for host in hosts if host.startswith("*."))
        self._origins = frozenset(origin.lower() for origin in origins)
        self._is_loopback = is_loopback
        self._known: set[str] = set()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every response. `vary` keeps a cache from mixing the answers to several origins."""
        return SAFE_HEADERS | ({"vary": "Origin"} if self._origins else {})

    def check(self, request: Request) -> None:
        """Check a request.

        Raises:
            BadHost: its Host header is missing or malformed, or its address names another host.
            StrangeHost: the Host is not the gateway's.
            StrangeOrigin: a page of another site sent it.
            WrongMediaType: its body has a type that the route does not accept.
        """
        headers = request.headers
        host = headers.get("host", "")
        if host not in self._known:
            self._check_host(host)
        if request.authority and request.authority.lower() != host.lower():
            raise BadHost("the address of the request names another host than its Host header")
        origin = headers.get("origin")
        if origin is not None:
            self._check_origin(request, origin, host)
        elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            _check_navigation(request)
        if request.method == "POST" and (headers.get("content-type") != JSON or _is_dashboard(request.path)):
            _check_media_type(request)

    def answer_preflight(self, request: Request) -> Response | None:
        """Answer a preflight request of an allowed origin; None for any other request."""
        headers = request.headers
        if request.method != "OPTIONS" or "access-control-request-method" not in headers or not self._allows(request):
            return None
        found = {
            "access-control-allow-methods": METHODS,
            "access-control-max-age": str(PREFLIGHT_S),
            "vary": "Access-Control-Request-Method, Access-Control-Request-Headers",
        }
        asked = headers.get("access-control-request-headers", "")
        if asked and len(asked) <= MOST_ASKED and _NAMES.fullmatch(asked):
            found["access-control-allow-headers"] = asked
        if headers.get("access-control-request-private-network") == "true":
            found["access-control-allow-private-network"] = "true"
        return Response(b"", status=204, headers=found, content_type="")

    def find_cors(self, request: Request) -> Mapping[str, str]:
        """Return the headers that let a page of an allowed origin read the response.

        They allow no credentials, because only the dashboard's own pages use its cookie. So `*` exposes every header.
        """
        if not self._allows(request):
            return {}
        return {"access-control-allow-origin": request.headers["origin"], "access-control-expose-headers": "*"}

    def _allows(self, request: Request) -> bool:
        origin = request.headers.get("origin")
        return origin is not None and origin.lower() in self._origins and not _is_own_page(request.path)

    def _check_origin(self, request: Request, origin: str, host: str) -> None:
        scheme, _, place = origin.partition("://")
        if scheme in ("http", "https") and place.lower() == host.lower():
            return
        if not self._allows(request):
            raise StrangeOrigin(
                f"requests from pages of {origin[:LONGEST_HOST]!r} are not accepted",
                hint="gateway.allowed_origins lists the origins that may call the API, all but /ui and /admin",
            )

    def _check_host(self, host: str) -> None:
        if not host:
            raise BadHost("the request has no Host header", hint="send exactly one")
        found = _HOST.fullmatch(host.lower()) if len(host) <= LONGEST_HOST else None
        if found is None:
            raise BadHost("the Host header is not a host name with a port", hint="send the name of the gateway")
        name = found["name"].removesuffix(".").strip("[]")
        if not self._answers_to(name):
            raise StrangeHost(
                f"the gateway does not answer to the name {name!r}",
                hint="use 127.0.0.1 or localhost, or add the name to gateway.allowed_hosts",
            )
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known.add(host)

    def _answers_to(self, name: str) -> bool:
        if name == "localhost" or name in self._hosts or name.endswith(self._parents):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return not self._is_loopback and not self._hosts and not self._parents
        return address.is_loopback or not self._is_loopback


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")


def _is_dashboard(path: str) -> bool:
    return _is_below(path, "/ui")


def _is_own_page(path: str) -> bool:
    return any(_is_below(path, own) for own in _OWN_PAGES)


def _check_navigation(request: Request) -> None:
    """Accept from a page of another site only a clicked link to the dashboard."""
    headers = request.headers
    is_click = headers.get("sec-fetch-user") == "?1" and headers.get("sec-fetch-dest") == "document"
    is_page = request.path == "/" or _is_dashboard(request.path)
    if request.method != "GET" or headers.get("sec-fetch-mode") != "navigate" or not is_click or not is_page:
        raise StrangeOrigin("requests from pages of other sites are not accepted")


def _check_media_type(request: Request) -> None:
    wanted = FORM if _is_dashboard(request.path) else JSON
    given = request.headers.get("content-type", "")
    kind, _, options = given.partition(";")
    if kind.strip().lower() != wanted:
        raise WrongMediaType(
            f"{request.path[:200]} takes {wanted}, not {kind.strip()[:100]!r}" if given else
            f"{request.path[:200]} takes {wanted}, and the request has no Content-Type",
            hint=f"send the header `Content-Type: {wanted}`",
        )  # fmt: skip
    name, _, charset = options.strip().lower().partition("=")
    if name.strip() == "charset" and charset.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
        raise WrongMediaType("the body must be UTF-8", hint=f"send `Content-Type: {wanted}`")
