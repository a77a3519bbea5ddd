"""Server-sent events: splits a body into events, and writes them."""

from collections.abc import AsyncGenerator, AsyncIterator

from ripieno.errors import BadAnswer

LONGEST_EVENT = 4 * 1024 * 1024


async def read_events(parts: AsyncIterator[bytes], *, worker: str) -> AsyncGenerator[tuple[str, bytes]]:
    """Split a body into events: the name and the data of each. The last one needs no blank line.

    Raises:
        BadAnswer: an event is too long.
    """
    rest = b""
    async for part in parts:
        rest = rest + part if rest else part
        if b"\r" in rest:
            held = rest.endswith(b"\r")  # the other half of a line's end may follow
            rest = rest.replace(b"\r\n", b"\n")
            if not held:
                rest = rest.replace(b"\r", b"\n")
        *events, rest = rest.split(b"\n\n")
        if len(rest) > LONGEST_EVENT:
            raise BadAnswer(f"{worker!r} sent an event over {LONGEST_EVENT} bytes", worker=worker)
        for event in events:
            found = _parse(event)
            if found[1]:
                yield found
    name, data = _parse(rest.replace(b"\r", b"\n"))
    if data:
        yield name, data


def _parse(event: bytes) -> tuple[str, bytes]:
    """Return the name and the data of one event."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return "", event[6:].strip()
    name, data = "", []
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.strip().decode("utf-8", "replace")
    return name, b"\n".join(data).strip()


def pack_data(data: bytes) -> bytes:
    """Write one event without a name."""
    return b"data: %b\n\n" % data


def pack_event(name: str, data: bytes) -> bytes:
    """Write one event with a name."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
