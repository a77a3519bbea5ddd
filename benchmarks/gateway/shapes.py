"""Hostile and odd shapes of HTTP/1.1, and what a strict server does with each. Tests and the server table use them."""

from dataclasses import dataclass

HOST = b"host: localhost\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
"""Bytes that a lenient server takes as a second request."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Bytes that a client sends on a new connection."""

    name: str
    sent: bytes
    is_taken: bool = False
    """Whether a strict server may answer it with success."""


def _post(lines: bytes, body: bytes = b"", *, version: bytes = b"1.1") -> bytes:
    return b"POST /a HTTP/" + version + b"\r\n" + HOST + lines + b"\r\n" + body


def _get(lines: bytes = b"", *, target: bytes = b"/a") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + lines + b"\r\n"


CHUNKED = b"transfer-encoding: chunked\r\n"
SHAPES = (
    Shape("length and chunked", _post(b"content-length: 4\r\n" + CHUNKED, b"0\r\n\r\n" + NEXT)),
    Shape("chunked and length", _post(CHUNKED + b"content-length: 4\r\n", b"0\r\n\r\n" + NEXT)),
    Shape("two lengths", _post(b"content-length: 3\r\ncontent-length: 4\r\n", b"abc" + NEXT)),
    Shape("the same length twice", _post(b"content-length: 3\r\ncontent-length: 3\r\n", b"abc")),
    Shape("a list of lengths", _post(b"content-length: 3, 3\r\n", b"abc")),
    Shape("a signed length", _post(b"content-length: +3\r\n", b"abc")),
    Shape("a negative length", _post(b"content-length: -1\r\n", b"abc")),
    Shape("a length with a space inside", _post(b"content-length: 1 3\r\n", b"abc" + b"x" * 10)),
    Shape("a huge length", _post(b"content-length: 99999999999999999999\r\n", b"abc")),
    Shape("an unknown coding", _post(b"transfer-encoding: xchunked\r\n", b"0\r\n\r\n" + NEXT)),
    Shape("chunked is not last", _post(b"transfer-encoding: chunked, identity\r\n", b"0\r\n\r\n" + NEXT)),
    Shape("chunked twice", _post(CHUNKED + b"transfer-encoding: identity\r\n", b"0\r\n\r\n" + NEXT)),
    Shape("chunked after a vertical tab", _post(b"transfer-encoding: \x0bchunked\r\n", b"0\r\n\r\n" + NEXT)),
    Shape("a space before the colon", _post(b"transfer-encoding : chunked\r\n", b"0\r\n\r\n" + NEXT)),
    Shape("a chunk size that overflows", _post(CHUNKED, b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n")),
    Shape("a chunk size with 0x", _post(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n")),
    Shape("a negative chunk size", _post(CHUNKED, b"-3\r\nabc\r\n0\r\n\r\n")),
    Shape("a chunk longer than its size", _post(CHUNKED, b"3\r\nabcdef\r\n0\r\n\r\n")),
    Shape("a chunk that ends in a bare LF", _post(CHUNKED, b"3\r\nabc\n0\r\n\r\n")),
    Shape("a chunk size that ends in a bare LF", _post(CHUNKED, b"3\nabc\r\n0\r\n\r\n")),
    Shape("a chunk extension with a bare LF", _post(CHUNKED, b"3;a\nb\r\nabc\r\n0\r\n\r\n")),
    Shape("a folded header", _get(b"x-a: b\r\n c\r\n")),
    Shape("a folded transfer-encoding", _post(b"transfer-encoding:\r\n chunked\r\n", b"0\r\n\r\n" + NEXT)),
    Shape("a bare CR in a value", _get(b"x-a: b\rx-c: d\r\n")),
    Shape("lines that end in a bare LF", b"GET /a HTTP/1.1\nhost: localhost\n\n"),
    Shape("a bare LF after a value", _get(b"x-a: b\nx-c: d\r\n")),
    Shape("a NUL in a value", _get(b"x-a: b\0c\r\n")),
    Shape("a NUL in a name", _get(b"x\0a: b\r\n")),
    Shape("a header without a colon", _get(b"x-a\r\n")),
    Shape("a header without a name", _get(b": b\r\n")),
    Shape("a name with a space", _get(b"x a: b\r\n")),
    Shape("a target with a space", _get(target=b"/a b")),
    Shape("a target with a control", _get(target=b"/a\x01b")),
    Shape("two hosts", _get(b"host: other\r\n")),
    Shape("two authorizations", _get(b"authorization: a\r\nauthorization: b\r\n")),
    Shape("a user in the target", _get(target=b"http://user@localhost/a")),
    Shape("an unknown method", b"SMUGGLE /a HTTP/1.1\r\n" + HOST + b"\r\n"),
    Shape("no version", b"GET /a\r\n\r\n"),
    Shape("version 9", b"GET /a HTTP/9.9\r\n" + HOST + b"\r\n"),
    Shape("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64),
    Shape("a head of 100 kB", _get(b"x-a: " + b"y" * 100_000 + b"\r\n")),
    Shape("a target of 100 kB", _get(target=b"/" + b"y" * 100_000)),
    Shape("5,000 headers", _get(b"".join(b"x-%d: y\r\n" % n for n in range(5000)))),
    Shape("a plain GET", _get(), is_taken=True),
    Shape("a plain chunked POST", _post(CHUNKED, b"3\r\nabc\r\n0\r\n\r\n"), is_taken=True),
    Shape(
        "h2c upgrade with a body",
        _post(
            b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
            b"content-length: 3\r\n",
            b"abc",
        ),
        is_taken=True,
    ),
)  # fmt: skip
