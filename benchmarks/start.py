"""Time of `ripieno --help` and CPU time of a subcommand's help, against `python -c pass`, in one run.

python benchmarks/start.py
"""

import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROUNDS = 9
MOST_CPU_S = 0.3
"""What help of a subcommand may take on the machine that the figures in the docs are from."""


def spend(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def spend_cpu(*command: str) -> float:
    """User and system time of a child process, in seconds: another job on the machine does not change it much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    ripieno = str(Path(sys.executable).with_name("ripieno"))
    pairs = [(spend(ripieno, "--help"), spend(sys.executable, "-c", "pass")) for _ in range(ROUNDS)]
    ours, base = median(a for a, _ in pairs), median(b for _, b in pairs)
    cpu = median(spend_cpu(ripieno, "pool", "add", "--help") for _ in range(ROUNDS))
    print(f"ripieno pool add --help {cpu:.2f} CPU-seconds (bound: {MOST_CPU_S})")
    print(f"ripieno --help {ours * 1e3:.0f} ms, {ours / base:.1f} x python -c pass ({base * 1e3:.0f} ms)")


if __name__ == "__main__":
    main()
