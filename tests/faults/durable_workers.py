"""Workers of the kill tests: each writes one line into a file, and may be the end of its process."""

import os
import signal
import threading
from pathlib import Path

_LOCK = threading.Lock()


def do_step(text: str) -> str:
    """Do the step of the running thread: which one, and when the process ends, stand in the environment."""
    folder = Path(os.environ["DURABLE_FOLDER"])
    with _LOCK:
        number = len((folder / "began.txt").read_text().splitlines()) + 1 if (folder / "began.txt").exists() else 1
        _append(folder / "began.txt", str(number))
    kill_at = os.environ.get("DURABLE_KILL", "")
    done = len((folder / "effects.txt").read_text().splitlines()) if (folder / "effects.txt").exists() else 0
    if kill_at == f"before:{done + 1}":
        os.kill(os.getpid(), signal.SIGKILL)
    _append(folder / "effects.txt", f"effect {done + 1}")
    if kill_at == f"after:{done + 1}":
        os.kill(os.getpid(), signal.SIGKILL)
    others = os.environ.get("DURABLE_SAYS") or f"step {done + 1}"
    return "done" if done + 1 >= int(os.environ["DURABLE_STEPS"]) else others


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())
