"""Install with pip, and show what and how far: `install.py TITLE [argument of pip install]...`.

pip itself is either silent for minutes or prints thousands of lines. What pip says is shown where it fails.
"""

import itertools
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

BEAT_S = 10.0
"""Seconds between two lines where the output is no terminal."""


class Told:
    """One line on a terminal, drawn again each second; elsewhere one line each `BEAT_S`."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.doing = "looking for packages"
        self.started = time.monotonic()
        self._is_live = sys.stdout.isatty()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def end(self, word: str) -> None:
        """Draw the last line."""
        self._ended.set()
        self._thread.join()
        self._draw(f"{word} in {time.monotonic() - self.started:.0f} s", end="\n")

    def _beat(self) -> None:
        self._draw(self.doing, end="" if self._is_live else "\n")
        while not self._ended.wait(1.0 if self._is_live else BEAT_S):
            took = time.monotonic() - self.started
            self._draw(f"{self.doing}, {took:.0f} s", end="" if self._is_live else "\n")

    def _draw(self, text: str, *, end: str) -> None:
        start = "\r\x1b[K" if self._is_live else ""
        print(f"{start}{self.title}: {text}", end=end, flush=True)


def count_pins(arguments: list[str]) -> int:
    """Packages that requirement files pin; those for other Pythons and systems count, too."""
    files = [after for before, after in itertools.pairwise(arguments) if before == "-r"]
    return sum(len(re.findall(r"^[\w.-]+==", Path(file).read_text(), re.MULTILINE)) for file in files)


def main(title: str, arguments: list[str]) -> int:
    """Run pip; gives its exit code."""
    command = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *arguments]
    pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert pip.stdout is not None
    told, said, found, total = Told(title), list[str](), 0, count_pins(arguments)
    of = f" of at most {total}" if total else ""
    for line in pip.stdout:
        if re.match(r"WARNING: (Location|The scripts?|.*PATH)", line):
            continue
        said.append(line)
        match = re.match(r"\s*(Collecting|Requirement already satisfied:|Downloading) (\S+)", line)
        if match is not None and match[1] in ("Collecting", "Requirement already satisfied:"):
            found += 1
            told.doing = f"package {found}{of}, {match[2].partition(' ')[0]}"
        elif match is not None and match[1] == "Downloading":
            told.doing = f"package {found}{of}, downloading {line.split(maxsplit=1)[1].strip()}"
        elif line.startswith("Installing collected packages:"):
            told.doing = f"writing {line.count(',') + 1} packages"
    code = pip.wait()
    told.end("done" if code == 0 else "FAILED")
    if code != 0:
        print("".join(said[-40:]), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
