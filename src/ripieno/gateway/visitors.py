"""Visitors of the dashboard: who may read, who may change, and whether a form is the dashboard's own."""

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
    """Who reads pages."""

    may_read: bool
    is_admin: bool = False
    cookie: str = ""
    """The cookie that the visitor got for its key."""


class Visitors:
    """Gives visitors with a key a signed cookie, which every process and replica with the same key accepts.

    Args:
        key: lets visitors read and change.
        viewer_key: lets visitors read; None if there is none.
        is_open: whether visitors without a key may read: on loopback, if no key is required.
        clock: the time.
    """

    def __init__(self, *, key: str, viewer_key: str | None, is_open: bool, clock: Clock) -> None:
        self._keys = {ADMIN: key.encode()} | ({VIEWER: viewer_key.encode()} if viewer_key else {})
        self._secret = hmac.digest(key.encode(), b"ripieno dashboard", "sha256")
        self._is_open = is_open
        self._clock = clock
        self._backoff = Backoff(clock)

    def identify(self, request: Request) -> Visitor:
        """Return who sends a request, by its cookie."""
        cookie = read_cookie(request, COOKIE)
        role = self._read_role(cookie)
        if role is None:
            return Visitor(may_read=self._is_open)
        return Visitor(may_read=True, is_admin=role == ADMIN, cookie=cookie)

    def enter(self, key: str, client: str) -> str | None:
        """Make the cookie of a client that gives a key; None if the key is wrong.

        Raises:
            RateLimited: the client must wait after wrong keys.
        """
        self._backoff.check(client)
        given, found = key.strip().encode("utf-8", "replace"), None
        for role, known in self._keys.items():
            if hmac.compare_digest(
                given, known
            ):  # compare each key, so that the time does not reveal which one matches
                found = found or role
        if found is None:
            self._backoff.note_wrong(client)
            return None
        self._backoff.note_right(client)
        ends = f"{found}.{int(self._clock.now()) + LASTS_S}"
        return f"{ends}.{self._sign('cookie', ends)}"

    def make_token(self, visitor: Visitor) -> str:
        """Make the token of a visitor's forms."""
        return self._sign("form", visitor.cookie) if visitor.cookie else ""

    def require_own_form(self, request: Request, visitor: Visitor, token: str) -> None:
        """Accept only forms of this visitor's own pages.

        Raises:
            Forbidden: the form is another site's, or the visitor is not the admin.
        """
        require_own_site(request)
        if not visitor.is_admin:
            raise Forbidden("only the admin may change things", hint="enter the admin key at /ui/enter")
        if not hmac.compare_digest(token.encode(), self.make_token(visitor).encode()):
            raise Forbidden("the form is not from this page", hint="open the page again, and send the form from there")

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
    """Accept a form only from a page of this address.

    Raises:
        Forbidden: the form is another site's, or has no origin.
    """
    origin = request.headers.get("origin", "")
    if not origin or origin.partition("://")[2] != request.headers.get("host"):
        raise Forbidden("the gateway accepts forms from the dashboard's own pages only")


def read_cookie(request: Request, name: str) -> str:
    """Read one cookie of a request; empty if there is none."""
    try:
        found = SimpleCookie(request.headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def set_cookie(request: Request, name: str, value: str, *, lasts_s: int) -> str:
    """Make the header that sets a cookie, which neither scripts nor other sites can read."""
    is_safe = request.headers.get("x-forwarded-proto") == "https"
    return f"{name}={value}; Path=/ui; Max-Age={lasts_s}; HttpOnly; SameSite=Strict" + ("; Secure" if is_safe else "")
