"""Programs: many small Python programs in one sandbox, a fork each, with what they print."""

import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Self

from ripieno.verify.sandbox import MEMORY_BYTES

USUAL_S = 2.0
"""That a program may take."""


class Programs:
    """Runs programs one after the other; use as a context manager.

    Args:
        timeout_s: that each may take, in seconds.
    """

    def __init__(self, *, timeout_s: float = USUAL_S) -> None:
        self._timeout_s = timeout_s
        self._folder: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._known: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, code: str) -> str | None:
        """What a program prints; None where it fails, prints too much, or takes too long. The same one runs once."""
        if code not in self._known:
            self._known[code] = self._run(code)
        return self._known[code]

    def close(self) -> None:
        """End the sandbox."""
        server, self._server = self._server, None
        if server is not None:
            server.kill()
            server.communicate()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _run(self, code: str) -> str | None:
        server = self._server or self._start()
        assert server.stdin is not None
        assert server.stdout is not None
        packed = code.encode("utf-8", "surrogatepass")
        try:
            server.stdin.write(len(packed).to_bytes(8, "big") + packed)
            server.stdin.flush()
            size = int.from_bytes(server.stdout.read(8), "big")
            said = server.stdout.read(1 + size)
        except OSError:
            said = b""
        if not said:
            self.close()  # the server itself was hit; the next program gets a new one
            return None
        return said[1:].decode("utf-8", "replace").strip() if said[:1] == b"+" else None

    def _start(self) -> "subprocess.Popen[bytes]":
        self._folder = Path(tempfile.mkdtemp(prefix="ripieno-programs-"))
        script = Path(str(files("ripieno.verify") / "sandbox_server.py"))
        self._server = subprocess.Popen(  # noqa: S603  # our own script, in a list
            [
                sys.executable,
                "-I",
                "-S",
                "-B",
                "-c",
                _LAUNCH,
                str(MEMORY_BYTES),
                str(self._timeout_s),
                str(script.parent),
            ],
            cwd=self._folder,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self._server


_LAUNCH = "import sys; sys.path.insert(0, sys.argv[3]); import sandbox_server; sandbox_server.main()"
