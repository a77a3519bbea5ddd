"""Visitors of the dashboard: who may read, who may change, and that a form was sent by its own page."""

import hmac
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from ripieno.domain import Clock
from ripieno.errors import Forbidden
from ripieno.gateway.backoff import Backoff
from ripieno.gateway.http import Request

COOKIE = "ripieno_ui"
LASTS_S = 12 * 3600
ADMIN, VIEWER = "admin", "viewer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who looks at pages."""

    may_read: bool
    is_admin: bool = False
    cookie: str = ""
    """What it was given when it gave a key."""


class Visitors:
    """Gives those who know a key a signed cookie, so that every process and replica with the same key knows them.

    Args:
        key: who gives it may change things.
        viewer_key: who gives it may read; None where there is none.
        is_open: whether anybody may read: on loopback, where no key is demanded.
        clock: the time.
    """

    def __init__(self, *, key: str, viewer_key: str | None, is_open: bool, clock: Clock) -> None:
        self._keys = {ADMIN: key.encode()} | ({VIEWER: viewer_key.encode()} if viewer_key else {})
        self._secret = hmac.digest(key.encode(), b"ripieno dashboard", "sha256")
        self._is_open = is_open
        self._clock = clock
        self._backoff = Backoff(clock)

    def recognise(self, request: Request) -> Visitor:
        """Who sends a request."""
        cookie = read_cookie(request, COOKIE)
        role = self._read_role(cookie)
        if role is None:
            return Visitor(may_read=self._is_open)
        return Visitor(may_read=True, is_admin=role == ADMIN, cookie=cookie)

    def enter(self, key: str, client: str) -> str | None:
        """The cookie of a client that gives a key; None if the key is wrong.

        Raises:
            RateLimited: wrong keys were given before, and the client must wait.
        """
        self._backoff.check(client)
        given, found = key.strip().encode("utf-8", "replace"), None
        for role, known in self._keys.items():
            if hmac.compare_digest(given, known):  # each is compared, so that the time does not tell which one
                found = found or role
        if found is None:
            self._backoff.note_wrong(client)
            return None
        self._backoff.note_right(client)
        ends = f"{found}.{int(self._clock.now()) + LASTS_S}"
        return f"{ends}.{self._sign('cookie', ends)}"

    def make_token(self, visitor: Visitor) -> str:
        """What the forms of a visitor carry."""
        return self._sign("form", visitor.cookie) if visitor.cookie else ""

    def require_own_form(self, request: Request, visitor: Visitor, token: str) -> None:
        """Take only forms of this visitor's own pages.

        Raises:
            Forbidden: it is another site's, or nobody gave the admin key.
        """
        require_own_site(request)
        if not visitor.is_admin:
            raise Forbidden("only who gives the admin key may change things", hint="give it at /ui/enter")
        if not hmac.compare_digest(token.encode(), self.make_token(visitor).encode()):
            raise Forbidden("the form is not of this page", hint="open the page again, and send it from there")

    def _read_role(self, cookie: str) -> str | None:
        ends, _, signed = cookie.rpartition(".")
        role, _, until = ends.partition(".")
        if not until.isdigit() or role not in self._keys:
            return None
        if not hmac.compare_digest(signed.encode(), self._sign("cookie", ends).encode()):
            return None
        return role if int(until) > self._clock.now() else None

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._secret, f"{purpose}\x1f{text}".encode(), "sha256").hexdigest()


def require_own_site(request: Request) -> None:
    """Take a form only from a page of this address.

    Raises:
        Forbidden: it is another site's, or hides where it comes from.
    """
    origin = request.headers.get("origin", "")
    if not origin or origin.partition("://")[2] != request.headers.get("host"):
        raise Forbidden("forms are taken from the dashboard's own pages only")


def read_cookie(request: Request, name: str) -> str:
    """One cookie of a request; empty where it has none."""
    try:
        found = SimpleCookie(request.headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def set_cookie(request: Request, name: str, value: str, *, lasts_s: int) -> str:
    """A header that keeps a cookie from scripts and from other sites."""
    is_safe = request.headers.get("x-forwarded-proto") == "https"
    return f"{name}={value}; Path=/ui; Max-Age={lasts_s}; HttpOnly; SameSite=Strict" + ("; Secure" if is_safe else "")
