"""Time of `ripieno --help`, against `python -c pass`, in one run.

python benchmarks/start.py
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROUNDS = 9


def spend(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    ripieno = str(Path(sys.executable).with_name("ripieno"))
    pairs = [(spend(ripieno, "--help"), spend(sys.executable, "-c", "pass")) for _ in range(ROUNDS)]
    ours, base = median(a for a, _ in pairs), median(b for _, b in pairs)
    print(f"ripieno --help {ours * 1e3:.0f} ms, {ours / base:.1f} x python -c pass ({base * 1e3:.0f} ms)")


if __name__ == "__main__":
    main()
