"""A warm jail: one fork per program, so that many programs cost little. Nothing of a program outlives it."""

import contextlib
import json
import os
import platform
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable

sys.path.insert(0, __file__.rpartition("/ripieno/")[0])

from ripieno.verify.jailed.start import confine, read_frame, silence, write_frame  # the path comes first
from ripieno.verify.jailed.syscalls import apply_filter, make_filter

LONGEST = 64 * 1024
"""Most bytes that a program may print."""
FOLDER = "/tmp"  # noqa: S108  # the jail's own


def main() -> None:
    """Answer each frame of stdin with a status byte and the output, until stdin closes."""
    kind, memory, seconds, *libraries = sys.argv[1:]
    confine(memory_bytes=int(memory), cpu_s=None)
    answers = os.dup(1)
    sys.path += libraries
    program = KINDS[kind]()
    stripped = make_filter(platform.machine())
    write_frame(answers, b"ready")
    requests = os.fdopen(0, "rb", buffering=0, closefd=False)
    while True:
        try:
            request = read_frame(requests)
        except EOFError:
            return
        write_frame(answers, _run_one(program, request, stripped, float(seconds)))
        _clear()


def _run_one(program: Callable[[bytes], None], request: bytes, stripped: bytes, seconds: float) -> bytes:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _be_program(program, request, stripped, write_end=write_end, seconds=seconds)
    os.close(write_end)
    said, is_late = _read_until(read_end, time.monotonic() + seconds)
    os.close(read_end)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # every process of the jail except this one and its first
    _, status = os.waitpid(child, 0)
    is_good = not is_late and len(said) <= LONGEST and status == 0
    return (b"+" if is_good else b"-") + said[:LONGEST]


def _read_until(read_end: int, ends: float) -> tuple[bytes, bool]:
    said = b""
    while len(said) <= LONGEST:
        ready, _, _ = select.select([read_end], [], [], max(0.0, ends - time.monotonic()))
        if not ready:
            return said, True
        part = os.read(read_end, 65536)
        if not part:
            break
        said += part
    return said, False


def _be_program(
    program: Callable[[bytes], None], request: bytes, stripped: bytes, *, write_end: int, seconds: float
) -> None:
    """Become the program, with its output in the pipe. Never returns."""
    try:
        silence()
        os.dup2(write_end, 1)
        os.closerange(3, 256)
        limit = max(1, round(seconds))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        apply_filter(stripped)
        program(request)
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  # any exception means failure
        os._exit(1)
    os._exit(0)


def _clear() -> None:
    """Empty the folder for the next program. End the jail if that fails."""
    try:
        for entry in os.scandir(FOLDER):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.remove(entry.path)  # noqa: PTH107  # of an entry
    except (OSError, RecursionError):
        os._exit(3)


def _make_runner() -> Callable[[bytes], None]:
    def run(code: bytes) -> None:
        exec(compile(code, "program.py", "exec"), {"__name__": "__main__"})  # noqa: S102  # the jail exists for this

    return run


def _make_scorer() -> Callable[[bytes], None]:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import reasoning_gym  # its folder is an argument

    def score(request: bytes) -> None:
        asked = json.loads(request)
        data = reasoning_gym.create_dataset(asked["dataset"], seed=asked["seed"], size=asked["size"])
        entry = data[asked["index"]]
        os.write(1, b"made ")
        scores = []
        for candidate in asked["candidates"]:
            try:
                scores.append(float(data.score_answer(answer=candidate, entry=entry)))
            except Exception:  # noqa: BLE001  # a scorer that fails on an answer does not accept it
                scores.append(0.0)
        os.write(1, json.dumps(max(scores)).encode())

    return score


KINDS = {"programs": _make_runner, "reasoning_gym": _make_scorer}

if __name__ == "__main__":
    main()
