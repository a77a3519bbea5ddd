"""System calls that a process in a jail may not make: a seccomp filter in the form of bubblewrap and the kernel."""

import ctypes
import struct

ENOSYS, EPERM = 38, 1
CLONE_THREAD = 0x10000
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUALS, _AT_LEAST, _HAS_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _FLAGS_AT = 0, 4, 16

MACHINES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "fork": 57,
            "vfork": 58,
            "clone": 56,
            "shmget": 29,
            "msgget": 68,
            "semget": 64,
            "socket": 41,
            "ptrace": 101,
            "mount": 165,
            "umount": 166,
            "pivot_root": 155,
            "mq_open": 240,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "unshare": 272,
            "perf": 298,
            "by_handle": 304,
            "setns": 308,
            "read_vm": 310,
            "write_vm": 311,
            "kcmp": 312,
            "memfd": 319,
            "bpf": 321,
            "userfault": 323,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "clone": 220,
            "shmget": 194,
            "msgget": 186,
            "semget": 190,
            "socket": 198,
            "ptrace": 117,
            "mount": 40,
            "umount": 39,
            "pivot_root": 41,
            "mq_open": 180,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "unshare": 97,
            "perf": 241,
            "by_handle": 265,
            "setns": 268,
            "read_vm": 270,
            "write_vm": 271,
            "kcmp": 272,
            "memfd": 279,
            "bpf": 280,
            "userfault": 282,
        },
    ),
}
"""By processor: its audit architecture, and the numbers of its system calls (linux/arch/*/syscall tables)."""
_EVERYWHERE = {
    "uring_setup": 425,
    "uring_enter": 426,
    "uring_register": 427,
    "pidfd_open": 434,
    "clone3": 435,
    "pidfd_getfd": 438,
    "secret_memory": 447,
}
"""System call numbers that all processors share."""
_X32 = 0x40000000
"""Calls of the old 32-bit form carry this bit on x86_64."""


def make_filter(machine: str, *, may_fork: bool = False) -> bytes:
    """Make the filter: no new process (threads are allowed), no socket, no unlimited memory, no access to processes."""
    audit, numbers = MACHINES[machine]
    numbers = numbers | _EVERYWHERE
    lines = [_line(_LOAD, _MACHINE_AT), _line(_EQUALS, audit, 1, 0), _line(_RETURN, _KILL), _line(_LOAD, _NUMBER_AT)]
    if machine == "x86_64":
        lines += [_line(_AT_LEAST, _X32, 0, 1), _line(_RETURN, _FAIL | ENOSYS)]
    clone, clone3 = numbers.pop("clone"), numbers.pop("clone3")
    makes = {name: numbers.pop(name) for name in ("fork", "vfork") if name in numbers}
    for number in (*numbers.values(), *(() if may_fork else makes.values())):
        lines += [_line(_EQUALS, number, 0, 1), _line(_RETURN, _FAIL | EPERM)]
    if not may_fork:
        # The filter cannot see the flags of clone3. The C library falls back to clone, whose flags it can see.
        lines += [_line(_EQUALS, clone3, 0, 1), _line(_RETURN, _FAIL | ENOSYS)]
        lines += [_line(_EQUALS, clone, 0, 3), _line(_LOAD, _FLAGS_AT), _line(_HAS_BIT, CLONE_THREAD, 1, 0)]
        lines += [_line(_RETURN, _FAIL | EPERM)]
    return b"".join([*lines, _line(_RETURN, _ALLOW)])


def apply_filter(content: bytes) -> None:
    """Bind this process and its children to a filter, permanently.

    Raises:
        OSError: the kernel refuses the filter.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(content, len(content))
    program = struct.pack("HxxxxxxP", len(content) // 8, ctypes.addressof(held))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel refuses the filter")


def _line(code: int, value: int, jump_true: int = 0, jump_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, jump_true, jump_false, value)
