"""What an HTTP client needs below its requests: connections, TLS, a proxy, and errors that name the cause."""

import ssl
import urllib.request
from contextvars import ContextVar
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from pydantic import BaseModel, ConfigDict, model_validator

if TYPE_CHECKING:
    import asyncio

    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

MOST_CONNECTIONS = 4096
"""Open connections of one client. A further request waits for a free one, within the time to connect."""
KEPT_S = 30.0
"""Seconds that an idle connection is kept. Servers close theirs after a minute or more."""


class Unreachable(OSError):
    """No connection was possible, so that the server got nothing of the request."""


class Broken(OSError):
    """The connection ended early, or the reply was not HTTP."""


class BadCertificate(OSError):
    """The certificate of the server is not accepted, or the server does not accept that of the client."""


class ProxyFault(OSError):
    """The proxy cannot be reached, or refuses to pass the request on."""


class Security(BaseModel):
    """Certificates of a client. Without `ca_file`, SSL_CERT_FILE or the system's authorities count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca_file: Path | None = None
    """File with the certificates of the only authorities to trust, in PEM form."""
    cert_file: Path | None = None
    """File with the certificate that this client shows, in PEM form; it may hold the key, too."""
    key_file: Path | None = None
    """File with the key of `cert_file`, in PEM form."""

    @model_validator(mode="after")
    def _check_pair(self) -> "Security":
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        return self

    def make_context(self) -> ssl.SSLContext:
        """Make the TLS context.

        Raises:
            ValueError: a file is missing, or is not what it should be.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise ValueError(f"ca_file {str(self.ca_file)!r} cannot be used: {error}") from error
        if self.cert_file is not None:
            try:
                context.load_cert_chain(self.cert_file, self.key_file)
            except OSError as error:
                raise ValueError(f"cert_file {str(self.cert_file)!r} cannot be used: {error}") from error
        return context


def find_proxy(scheme: str, host: str, port: int) -> str | None:
    """Find the proxy for an address: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, and NO_PROXY; none for this machine.

    Raises:
        ValueError: the proxy speaks another protocol than HTTP.
    """
    if _is_here(host):
        return None
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise ValueError(f"the proxy {parts.scheme}://{parts.hostname} of {scheme.upper()}_PROXY is not an HTTP proxy")
    return proxy


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class HttpConnection(ResponseHandler):
    """One connection of the pool, which knows whether a request may be sent again."""

    def __init__(self, loop: "asyncio.AbstractEventLoop") -> None:
        super().__init__(loop)
        self.exchanges = 0
        """Requests that were sent over it, with the current one."""
        self.has_reply = False
        """Whether any byte of the current reply has arrived."""
        self._socket: asyncio.Transport | None = None

    @property
    def is_stale(self) -> bool:
        """Whether the server may have closed this kept connection before it read anything of the request."""
        return self.exchanges > 1 and not self.has_reply

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        """See `asyncio.Protocol`."""
        self._socket = transport  # type: ignore[assignment]  # a stream's transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.has_reply = True
        super().data_received(data)

    def cut(self) -> None:
        """Close the connection at once, and drop what was not sent yet."""
        if self._socket is not None:
            self._socket.abort()


IN_USE: ContextVar[HttpConnection | None] = ContextVar("IN_USE", default=None)
"""The connection of the running task's request, once it has one."""


class HttpConnections(aiohttp.TCPConnector):
    """A pool of connections that tells through `IN_USE` which one a request got.

    Args:
        keeps: whether a connection is used again. If not, each request gets its own.
    """

    def __init__(self, *, context: ssl.SSLContext | None, keeps: bool) -> None:
        tls: ssl.SSLContext | bool = True if context is None else context
        if keeps:
            super().__init__(limit=MOST_CONNECTIONS, keepalive_timeout=KEPT_S, ssl=tls)
        else:
            super().__init__(limit=MOST_CONNECTIONS, force_close=True, ssl=tls)
        self._factory = partial(HttpConnection, loop=self._loop)  # type: ignore[assignment]  # a kind of it

    async def connect(
        self, req: aiohttp.ClientRequest, traces: "list[Trace]", timeout: aiohttp.ClientTimeout
    ) -> "Connection":
        """Get a connection from the pool, or make one."""
        while True:
            connection = await super().connect(req, traces, timeout)
            wire = connection.protocol
            assert isinstance(wire, HttpConnection)
            if not wire.should_close:
                break
            connection.close()  # the server sent bytes without a request: they must not become the next reply
        wire.exchanges += 1
        wire.has_reply = False
        IN_USE.set(wire)
        return connection


def translate(error: Exception, *, place: str) -> OSError:
    """Convert an error of the library into one that names the cause. It holds no header and no sent body.

    Args:
        error: raised by a request.
        place: host and port of the server.
    """
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return BadCertificate(
                f"the certificate of {place} is not accepted ({_read_reason(error.certificate_error)}); "
                "name the file of its authority in ca_file or SSL_CERT_FILE"
            )
        case aiohttp.ClientProxyConnectionError():
            return ProxyFault(f"the proxy {error.host}:{error.port} for {place} cannot be reached: {error.strerror}")
        case aiohttp.ClientHttpProxyError():
            return ProxyFault(f"the proxy for {place} answered {error.status} ({error.message})")
        case aiohttp.ConnectionTimeoutError():
            return Unreachable(f"no connection to {place} in time")
        case aiohttp.ClientConnectorError() | ValueError():
            return Unreachable(str(error))
        case aiohttp.ClientOSError() if "CERTIFICATE_REQUIRED" in str(error).upper().replace(" ", "_"):
            return BadCertificate(f"{place} demands a certificate of this client; name its file in cert_file")
        case aiohttp.ClientResponseError() | aiohttp.http.HttpProcessingError():
            return Broken("the reply is not HTTP")
        case _:
            return Broken("the connection ended before the reply did")


def _read_reason(error: Exception) -> str:
    return str(getattr(error, "verify_message", "")) or str(error)
