"""Outbox: rows that a database cannot accept now, stored durably beside it."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from ripieno.errors import LedgerCorrupt, LedgerFull
from ripieno.ledger.codec import EntryRow
from ripieno.privacy.files import make_folder, make_private

Kept = TypeVar("Kept")

LARGEST = 256 * 1024 * 1024
"""Default limit of the file, in bytes."""


class Spool(Generic[Kept]):
    """A file of rows, each a line with its checksum. It is appended to, read whole, then emptied.

    A read skips a last line that was cut off by the end of the process: its row has no receipt.
    """

    def __init__(self, path: Path, kind: type[Kept], *, largest: int = LARGEST) -> None:
        self.path = path
        self._kind = kind
        self._largest = largest
        self._rows = len(self.read())
        self._cut_torn_line()

    def __len__(self) -> int:
        return self._rows

    def put(self, rows: Sequence[Kept]) -> None:
        """Store rows durably, all or none.

        Raises:
            LedgerFull: the file would exceed its limit.
            OSError: the disk refuses them.
        """
        data = b"".join(_pack(row) for row in rows)
        make_folder(self.path.parent)
        make_private(self.path)
        with self.path.open("ab", buffering=0) as file:
            before = file.tell()
            if before + len(data) > self._largest:
                raise LedgerFull(
                    f"the outbox {self.path} holds {before} bytes of at most {self._largest}",
                    hint="make the database reachable again, so that the outbox empties",
                )
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
        self._rows += len(rows)

    def read(self) -> list[Kept]:
        """Return all rows in order.

        Raises:
            LedgerCorrupt: a line before the last one is damaged.
        """
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        rows: list[Kept] = []
        for number, line in enumerate(lines, start=1):
            row = _unpack(line, self._kind)
            if row is None and number < len(lines):
                raise LedgerCorrupt(
                    f"{self.path}, line {number}: the outbox is damaged",
                    hint="move the file away; the lines before that one are intact",
                )
            if row is not None:
                rows.append(row)
        return rows

    def _cut_torn_line(self) -> None:
        """Remove an incomplete last line, so that no row is appended to it."""
        if self.path.exists():
            content = self.path.read_bytes()
            os.truncate(self.path, content.rfind(b"\n") + 1)

    def clear(self) -> None:
        """Remove all rows."""
        self.path.unlink(missing_ok=True)
        self._rows = 0


class Outbox(Spool[EntryRow]):
    """Rows that the ledger cannot accept now."""

    def __init__(self, path: Path, *, largest: int = LARGEST) -> None:
        super().__init__(path, EntryRow, largest=largest)


def _pack(row: object) -> bytes:
    body = msgspec.json.encode(row)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _unpack(line: bytes, kind: type[Kept]) -> Kept | None:
    check, _, body = line.partition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(body[:-1]):
        return None
    return msgspec.json.decode(body, type=kind)
