"""The sandbox's server: confined once, then one fork a program, so that many cost little. Started with -I -S."""

import contextlib
import os
import resource
import select
import signal
import sys
import time

from sandbox_child import _make_hook, _read_frame, confine

LONGEST = 64 * 1024


def main() -> None:
    """Run programs from stdin until it closes; answer each with a status byte and what it printed."""
    seconds = float(sys.argv[2])
    confine(int(sys.argv[1]), cpu_s=None)
    stream = os.fdopen(0, "rb", buffering=0, closefd=False)
    while True:
        try:
            code = _read_frame(stream)
        except EOFError:
            return
        status, said = _run_one(code, seconds)
        os.write(1, len(said).to_bytes(8, "big") + status + said)


def _run_one(code: bytes, seconds: float) -> tuple[bytes, bytes]:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _be_program(code, write_end, seconds)
    os.close(write_end)
    said, ends = b"", time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([read_end], [], [], max(0.0, ends - time.monotonic()))
        part = os.read(read_end, 65536) if ready else b""
        said += part
        if not part or len(said) > LONGEST:
            break
    os.close(read_end)
    is_late = not ready
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    is_good = not is_late and len(said) <= LONGEST and said[-1:] == b"\0"
    return (b"+" if is_good else b"-"), said[:LONGEST].rstrip(b"\0")


def _be_program(code: bytes, write_end: int, seconds: float) -> None:
    """Never returns: what the program prints goes into the pipe, and a zero byte once it came to its end."""
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (max(1, round(seconds)),) * 2)
        os.dup2(write_end, 1)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 2)
        report = os.dup(write_end)
        sys.addaudithook(_make_hook(os.getcwd(), (sys.prefix, sys.base_prefix)))
        exec(compile(code, "program.py", "exec"), {"__name__": "__main__"})
        sys.stdout.flush()
        os.write(report, b"\0")
    except BaseException:
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
