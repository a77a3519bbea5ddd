"""Jail: runs untrusted code in bubblewrap. Without bubblewrap there is no jail, and the code does not run.

A jail has no network, one process, Python's own files, an empty folder of limited size, and no environment variables.
It ends with this process at the latest.
"""

import asyncio
import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from ripieno.errors import ConfigError
from ripieno.verify.jailed.syscalls import MACHINES, make_filter

MEMORY_BYTES = 512 * 1024 * 1024
"""Memory of one process in a jail."""
FOLDER_BYTES = 16 * 1024 * 1024
"""Size of all files that a jail writes."""
START_S = 60.0
"""Seconds until a jail that has not started counts as unavailable."""
SCRIPTS = Path(__file__).parent / "jailed"
INSIDE = "/jailed/ripieno/verify/jailed"
"""Folder of the scripts inside a jail, with the package path that their imports need."""
LIBRARIES = "/libraries"
INSTALL = "install bubblewrap: `scripts/install_jail.sh`, or `apt-get install bubblewrap`, `dnf install bubblewrap`"


class NoJail(ConfigError):
    """No jail is available here. The code did not run, and its result is unknown."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the code was not run: no jail is available: {why}", hint=INSTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class JailLimits:
    """JailLimits of one process in a jail."""

    memory_bytes: int = MEMORY_BYTES
    libraries: tuple[str, ...] = ()
    may_fork: bool = False
    """Only for a trusted server, which removes this right from each program before it runs."""


def describe_jail() -> tuple[bool, str]:
    """Start a jail. Return whether one is available, and a description."""
    try:
        command, seccomp = make_command(["-c", "print('free')"], JailLimits())
    except NoJail as error:
        return False, f"{error.message}; {error.hint}"
    try:
        done = subprocess.run(  # noqa: S603  # our own command, in a list
            command,
            pass_fds=(seccomp,),
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=START_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"no jail is available: {error}; {INSTALL}"
    finally:
        os.close(seccomp)
    if done.returncode or done.stdout != b"free\n":
        why = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return False, f"no jail is available: {why[-1] if why else f'it ended with {done.returncode}'}; {INSTALL}"
    return True, f"ok ({command[0]})"


def find_bwrap() -> str:
    """Find the path of bubblewrap.

    Raises:
        NoJail: there is no bubblewrap for this machine.
    """
    if sys.platform != "linux":
        raise NoJail(f"jails need Linux, and this is {sys.platform}")
    if platform.machine() not in MACHINES:
        raise NoJail(f"its filter supports the processors {', '.join(MACHINES)}, not {platform.machine()}")
    found = shutil.which("bwrap", path=os.defpath + os.pathsep + os.environ.get("PATH", ""))
    if found is None:
        raise NoJail("`bwrap` is not installed")
    return found


def make_command(python: Sequence[str], limits: JailLimits) -> tuple[list[str], int]:
    """Make the command that runs Python in a new jail, and the file descriptor that it must inherit.

    Raises:
        NoJail: there is no bubblewrap for this machine.
    """
    bwrap = find_bwrap()
    seccomp, filled = os.pipe()
    os.write(filled, make_filter(platform.machine(), may_fork=limits.may_fork))
    os.close(filled)
    command = [bwrap, "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--uid", "65534", "--gid", "65534", "--hostname", "jail", "--cap-drop", "ALL"]
    command += ["--die-with-parent", "--seccomp", str(seccomp)]
    for path in _list_readable():
        if Path(path).is_symlink():
            command += ["--symlink", str(Path(path).readlink()), path]
        else:
            command += ["--ro-bind", path, path]
    for path, inside in zip(limits.libraries, name_libraries(limits), strict=True):
        command += ["--ro-bind", path, inside]
    for device in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"):
        command += ["--dev-bind", device, device]
    command += ["--ro-bind", str(SCRIPTS), INSIDE, "--size", str(FOLDER_BYTES), "--tmpfs", "/tmp"]  # noqa: S108
    command += ["--remount-ro", "/", "--chdir", "/tmp", "--"]  # noqa: S108  # the jail's own
    return [*command, _find_python(), "-I", "-S", "-B", *python], seccomp


def name_libraries(limits: JailLimits) -> list[str]:
    """Name the libraries' folders inside a jail, where /tmp is another folder than outside."""
    return [f"{LIBRARIES}/{place}" for place in range(len(limits.libraries))]


def _find_python() -> str:
    """Return the path of the interpreter that a virtual environment links to."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _list_readable() -> list[str]:
    """List the files that Python needs: itself, its library, and shared libraries; parents first."""
    system = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache"]
    own = [f"{prefix}/{part}" for prefix in (sys.base_prefix, sys.base_exec_prefix) for part in ("lib", "lib64")]
    own.append(str(Path(os.__file__).parent))
    kept: list[str] = []
    for path in sorted({*system, *own, _find_python()}):
        is_inside = any(Path(path).is_relative_to(other) for other in kept if not Path(other).is_symlink())
        if os.path.lexists(path) and not is_inside:
            kept.append(path)
    return kept


_turns: "WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]" = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def take_turn() -> AsyncIterator[None]:
    """Wait until one more program may run: one per processor at a time."""
    loop = asyncio.get_running_loop()
    turn = _turns.setdefault(loop, asyncio.Semaphore(max(1, os.cpu_count() or 1)))
    async with turn:
        yield


@contextlib.asynccontextmanager
async def open_jail(
    python: Sequence[str], limits: JailLimits, *, pass_fds: Sequence[int] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run Python in a jail. All its processes have ended when this returns.

    Raises:
        NoJail: there is no bubblewrap for this machine, or it cannot be started.
    """
    child = await _spawn(python, limits, pass_fds)
    try:
        yield child
    finally:
        end_jail(child.pid)
        await child.communicate()


def end_jail(pid: int) -> None:
    """Kill all processes of a jail, given the pid of its bubblewrap.

    The jail's first process is in bubblewrap's process group and dies with it, and with that process every other one of
    its namespace. So bubblewrap must start no session of its own (`--new-session`); the caller starts one instead.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


async def _spawn(python: Sequence[str], limits: JailLimits, pass_fds: Sequence[int]) -> asyncio.subprocess.Process:
    command, seccomp = make_command(python, limits)
    making = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            env={},
            cwd="/",
            pass_fds=(seccomp, *pass_fds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        child = await making  # a start that is cancelled half-way would leak the process
        end_jail(child.pid)
        await child.communicate()
        raise
    except OSError as error:
        raise NoJail(f"{command[0]} cannot be started: {error}") from error
    finally:
        os.close(seccomp)
