"""Report words that the house style replaces: `python scripts/check_words.py`.

The words of `EVERYWHERE` apply to the text of all sources, templates, scripts and reference pages; those of `PLAIN`
apply to sources and scripts. The text of a Python file is its comments and strings, and so its
help, errors and log lines. Each finding is one line, `file:line: word -> better word`; then the exit code is 1.
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]

EVERYWHERE = {
    r"a fault of ours, or of a plugin": "unhandled exception in the gateway or a plugin",
    r"the log of the gateway says more": "the gateway's log has the details under this request id",
    r"holds? what is no block": "every item of ... must be an object",
    r"pass the mask by": "choose only eligible workers",
    r"is looked after every": "probes ... every ... seconds",
    r"says? (it )?when it cannot be read": "reports outages",
    r"purse": "budget",
    r"(hence|thus|thereby|whence)": "so",
    r"wherever": "in each place",
    r"(aught|naught)": "anything, nothing",
    r"looked after": "probed, watched",
    r"handed over": "passed",
    r"stood in for": "replaced",
}
"""By pattern: the better words."""

PLAIN = {
    r"(nobody|somebody|anybody|whoever)": "name the user, the caller, the process or the worker",
    r"whom": "which, or name the user",
    r"anew": "again",
    r"(dear|dearer|dearest)": "expensive, more expensive",
    r"under way": "running",
    r"(is|are|was|were) told": "is recorded, is shown, gets",
    r"tells? (why|what|it|them|of)": "says, shows, reports",
    r"(come|comes|came) of": "result of",
    r"what stands": "what is",
    r"stands? in for": "replaces",
    r"foretells?": "predicts",
    r"(go|goes|gone) on with": "continues, resumes",
    r"held against": "compared with",
    r"passed over": "skipped",
    r"in hand": "running, owned",
    r"given? back": "returned, released",
    r"of ours": "of the gateway",
    r"learnt": "learned",
    r"(?<!\")begun": "started",
    r"all the same": "still, anyway",
    r"for want of": "without",
}

DATA = {
    "compact.py": "what stands", "extract.py": "whom", "prompted.py": ".*", "runs.py": "under way",
    "search.py": "whom", "shorten.py": "what stands", "snapshots.py": "learnt",
}  # fmt: skip
"""By file, words that are data: prompts that a model was trained on, a state in JSON, the name of a file."""


def find_words(path: Path, words: Mapping[str, str]) -> Iterator[str]:
    """Find the words in the text of one file."""
    content = path.read_text(encoding="utf-8")
    texts = _read_python(content) if path.suffix == ".py" else [(1, content)]
    for first, text in texts:
        for pattern, better in words.items():
            for match in re.finditer(rf"\b{pattern}\b", text, re.IGNORECASE):
                if re.fullmatch(DATA.get(path.name, "(?!)"), match[0], re.IGNORECASE):
                    continue
                line = first + text.count("\n", 0, match.start())
                yield f"{path}:{line}: {match[0]!r} -> {better}"


def _read_python(content: str) -> Iterator[tuple[int, str]]:
    """Yield the comments and strings of a module, each with its first line; the middle of f-strings, too."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type in kinds:
            yield token.start[0], token.string


def list_files(folder: Path) -> list[Path]:
    """List the files of a folder that people read."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".html", ".js", ".md"))


def main() -> int:
    """Check every file, and print the findings."""
    own = Path(__file__).resolve()
    found: list[str] = []
    for folder in ("src", "docs/reference", "scripts"):
        for path in list_files(ROOT / folder):
            if path.resolve() != own:
                found += find_words(path, EVERYWHERE if folder == "docs/reference" else EVERYWHERE | PLAIN)
    for finding in found:
        print(finding.removeprefix(f"{ROOT}/"))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
