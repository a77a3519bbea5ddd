"""The side of the code under test. It obeys the tests, which trust none of its answers."""

import io
import os
import sys
import types

sys.path.insert(0, __file__.rpartition("/ripieno/")[0])

from ripieno.verify.jailed.extract import extract_code  # the path comes first
from ripieno.verify.jailed.start import confine, read_frame, silence
from ripieno.verify.jailed.values import Gone
from ripieno.verify.jailed.wire import Peer

LONGEST_OUTPUT = 64 * 1024
"""Most characters that one call may print."""


class _Output(io.StringIO):
    def write(self, text: str, /) -> int:
        if self.tell() + len(text) > LONGEST_OUTPUT:
            raise OSError("the code printed too much")
        return super().write(text)

    def take(self) -> str:
        said = self.getvalue()
        if said:
            self.seek(0)
            self.truncate()
        return said


def main() -> None:
    """Confine this process, report that, load the code, and serve."""
    channel, memory, cpu = (int(argument) for argument in sys.argv[1:4])
    confine(memory_bytes=memory, cpu_s=cpu)
    prefix, text = (read_frame(sys.stdin.buffer).decode("utf-8", "surrogatepass") for _ in range(2))
    silence()
    module = types.ModuleType("answer")
    peer = Peer(os.fdopen(channel, "rb", closefd=False), channel, home="answer", find=module.__dict__.__getitem__)
    peer.say("ready")
    output = _Output()
    sys.stdout = output
    peer.take_output = output.take
    try:
        code = extract_code(text, prefix=prefix)
        sys.modules["answer"] = module
        exec(compile(code, "answer.py", "exec"), module.__dict__)  # noqa: S102  # the jail exists for this
    except BaseException as error:  # noqa: BLE001  # any exception means that the code cannot be loaded
        peer.say(f"{type(error).__name__}: {error}"[:200])
        return
    output.take()
    peer.say("loaded")
    peer.serve()


if __name__ == "__main__":
    try:
        main()
    except Gone:
        sys.exit(0)
